package main_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// Long work shows a bar where stderr is a terminal, takes it away in the end,
// and leaves stdout to the result.
func TestProgressAtATerminal(t *testing.T) {
	s := bareSite(t, byCopy)
	for what, argv := range map[string][]string{
		"adding -":               {"curi", "add", "-", "--name", "slow", "--json"},
		"reading standard input": {"curi", "stage", "exec", "--no-mount", "--json", "--name", "slow", "--stdin", "-", "--out", "o=o", "--", "sh", "-c", "cat > {out.o}"},
	} {
		terminal, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		var shown syncBuffer
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(&shown, terminal)
		}()
		cmd := s.command(argv...)
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, tty
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		tty.Close()
		// It comes as slowly as it takes for the bar to be shown.
		s.eventually(nil, what, func() bool {
			_, err := stdin.Write(make([]byte, 256<<10))
			return err != nil || strings.Contains(shown.String(), "\r"+what)
		})
		stdin.Close()
		err = cmd.Wait()
		<-drained
		terminal.Close()
		if err != nil {
			t.Errorf("%v: %v\n%s", argv, err, shown.String())
		}
		if text := shown.String(); !strings.Contains(text, "\r"+what) || !strings.Contains(text[strings.LastIndex(text, what):], "\r\x1b[K") {
			t.Errorf("no bar, or it stays: %q", text)
		}
		decode[map[string]any](s, stdout.String())
	}
}
