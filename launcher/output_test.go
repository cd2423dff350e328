package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/curi-store/curi/stages"
)

// logOf is the kept log of a run.
func (c call) logOf(t *testing.T, id string) string {
	t.Helper()
	s := c.open(t)
	r, err := stages.FindRun(t.Context(), s, id)
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(t.Context(), r.Tree)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(view, "log.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOutputPassesUnchanged(t *testing.T) {
	c := shell(t, `printf 'a\rb\tc\377no newline' ; printf 'err\r\n' >&2; echo x > {out.model}`)
	ch := c.start(t)
	if got := ch.wait(t); got != 0 {
		t.Fatalf("exit status %d: %s", got, ch.stderr.String())
	}
	if got := ch.stdout.String(); got != "a\rb\tc\377no newline" {
		t.Errorf("stdout: %q", got)
	}
	wantText(t, ch.stderr.String(), "err\r\n")
	log := c.logOf(t, c.runs(t)[0].ID)
	wantText(t, log, "a\rb\tc\377no newline", "err\r\n")
}

func TestOutputComesAtOnce(t *testing.T) {
	c := shell(t, `printf early; while [ ! -e $MARKS/go ]; do sleep 0.05; done; echo x > {out.model}`)
	ch := c.start(t)
	ch.stdout.await(t, "early")
	c.mark(t, "go")
	if got := ch.wait(t); got != 0 {
		t.Fatalf("exit status %d: %s", got, ch.stderr.String())
	}
}

func TestReaderThatGoesAwayDoesNotEndTheRun(t *testing.T) {
	c := shell(t, `i=0; while [ $i -lt 2000 ]; do echo "line $i of many, many lines to fill a pipe"; i=$((i+1)); done; echo x > {out.model}`)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	cmd := exec.Command(self, callArg, c.json(t))
	var stderr output
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v; it said:\n%s", err, stderr.String())
	}
	wantText(t, c.logOf(t, c.runs(t)[0].ID), "line 1999 of")
}

func TestTerminal(t *testing.T) {
	c := shell(t, `[ -t 1 ] && [ -t 2 ] && [ ! -t 0 ] && echo is a terminal; stty size < /dev/tty; read -r _ _ _ _ group _ _ front _ < /proc/$$/stat; [ $group = $front ] && echo foreground; echo x > {out.model}`)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	cmd := exec.Command(self, callArg, c.json(t))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var out output
	copied := make(chan struct{})
	go func() { _, _ = io.Copy(&out, master); close(copied) }()
	err = cmd.Wait()
	<-copied
	if err != nil {
		t.Errorf("%v", err)
	}
	wantText(t, out.String(), "is a terminal\r\n", "33 77\r\n", "foreground\r\n")
	// The log stays as the program wrote it.
	log := c.logOf(t, c.runs(t)[0].ID)
	if strings.Contains(log, "\r") {
		t.Errorf("log: %q", log)
	}
	wantText(t, log, "is a terminal\n")
}

func TestSecretsAreMasked(t *testing.T) {
	c := shell(t, `printf 'token is tok'; sleep 0.2; echo 'en-123 and {secret.API_KEY}'; mkdir -p {logs}/r; echo {secret.API_KEY} > {logs}/r/stdout.log; echo x > {out.model}`)
	c.Secrets = map[string]string{"API_KEY": "token-123"}
	res, out := c.must(t)
	wantText(t, out, "token is token-123 and token-123\n", "runs: /bin/sh -c 'printf") // live output is the command's own
	first, _, _ := strings.Cut(out, "\ntoken is")
	if strings.Contains(first, "token-123") {
		t.Errorf("the command line shows the secret: %s", first)
	}
	log := c.logOf(t, res.Run)
	if strings.Contains(log, "token-123") {
		t.Errorf("the kept log shows the secret: %s", log)
	}
	wantText(t, log, "token is {secret.API_KEY} and {secret.API_KEY}\n")
	wantFile(t, filepath.Join(c.at(t), "logs", "r", "stdout.log"), "{secret.API_KEY}\n")
	err := filepath.WalkDir(c.Store, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(p); bytes.Contains(b, []byte("token-123")) {
				t.Errorf("%s holds the secret", p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMaskerAcrossWrites(t *testing.T) {
	m := newMasker(map[string]string{"A": "abcd", "B": "abcdef", "E": ""})
	for _, tc := range []struct{ in, want string }{
		{"xx|ab|cd|yy", "xx{secret.A}yy"},
		{"abcd|ef", "{secret.B}"},
		{"ab|ab|cd!", "ab{secret.A}!"},
		{"aab|c", "aabc"},
		{"abcde", "{secret.A}e"},
	} {
		var out, held []byte
		for part := range strings.SplitSeq(tc.in, "|") {
			var o []byte
			o, held = m.apply(append(held, part...))
			out = append(out, o...)
		}
		out = append(out, m.rest(held)...)
		if string(out) != tc.want {
			t.Errorf("%s: %q, want %q", tc.in, out, tc.want)
		}
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	c := shell(t, "")
	c.Stage.Shell = false
	for command, want := range map[string]int{"no-such-program-anywhere": 127, "/etc/passwd": 126, "/no/such/file": 127} {
		c.Stage.Command = []string{command}
		res, out, err := c.run(t)
		if err != nil || res.Exit != want {
			t.Errorf("%s: %+v, %v, want exit status %d", command, res, err, want)
		}
		wantText(t, out, command, "could not be started")
	}
}

func TestStdin(t *testing.T) {
	c := shell(t, "cat > {out.model}; echo >> {out.model}")
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "\n")
	c.addInput(t, "text", map[string]string{"a": "given"})
	c.Stage.Inputs = nil
	c.Stage.Stdin = "text/a"
	res, _ = c.must(t)
	wantFile(t, res.Outputs["model"].Path, "given\n")
}

// slowReader is a caller that reads only when it is let go (`| less`).
type slowReader struct {
	output
	read chan struct{}
}

func (s *slowReader) Write(p []byte) (int, error) {
	<-s.read
	return s.output.Write(p)
}

func TestReaderThatTakesItsTimeGetsAll(t *testing.T) {
	shortDrain(t)
	path := filepath.Join(t.TempDir(), "log")
	log, err := newKeptLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowReader{read: make(chan struct{})}
	text := strings.Repeat("x", 1000) + "\n"
	done := drained(t, slow, log, text)
	waitFor(t, "the log", func() bool { b, _ := os.ReadFile(path); return string(b) == text })
	select {
	case <-done:
		t.Error("it did not wait for the reader")
	case <-time.After(6 * drainTime):
	}
	close(slow.read)
	<-done
	if slow.String() != text {
		t.Errorf("the reader got %q", slow.String())
	}
}

func shortDrain(t *testing.T) {
	was := drainTime
	drainTime = 50 * time.Millisecond
	t.Cleanup(func() { drainTime = was })
}

// drained gives text out as a command that ended would have left it. The
// channel is closed when all was taken, or given up.
func drained(t *testing.T, live io.Writer, log *keptLog, text string) chan struct{} {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStdio(null, live, live, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.command[1].WriteString(text); err != nil {
		t.Fatal(err)
	}
	s.started()
	done := make(chan struct{})
	go func() { s.drain(t.Context()); close(done) }()
	return done
}

// The end of the log is what tells why a run failed: a disk that stalls must
// not cost it.
func TestLogOnADiskThatStallsIsWhole(t *testing.T) {
	shortDrain(t)
	disk, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	defer w.Close()
	fillPipe(t, w)
	const text = "first\nTraceback\n"
	var live output
	done := drained(t, &live, &keptLog{f: w, mask: newMasker(nil)}, text)
	select {
	case <-done:
		t.Error("it did not wait for the log")
	case <-time.After(6 * drainTime):
	}
	var kept output
	go io.Copy(&kept, disk)
	<-done
	waitFor(t, "the log", func() bool { return strings.HasSuffix(kept.String(), text) })
	if live.String() != text {
		t.Errorf("the caller got %q", live.String())
	}
}

// fillPipe fills the pipe that w writes to, to the last byte.
func fillPipe(t *testing.T, w *os.File) {
	t.Helper()
	// An open file of its own: w must go on blocking who writes to it.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := syscall.Write(int(f.Fd()), []byte{'x'}); errors.Is(err, syscall.EAGAIN) {
			return
		} else if err != nil && !errors.Is(err, syscall.EINTR) {
			t.Fatal(err)
		}
	}
}
