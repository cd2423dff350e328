package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"

	"github.com/curi-store/curi/stages"
)

// The columns of many runs are broken into several tables at a terminal, so
// that no line is broken by that, and stay beside each other elsewhere. The
// same goes for what is above a plot.
func TestMetricsOfManyRuns(t *testing.T) {
	var list []measured
	for i := range 9 {
		list = append(list, measured{stages.Run{ID: fmt.Sprintf("train-%06d", i)},
			[]stages.Series{{Name: "val/loss", Points: []stages.Point{{Value: 1.0 / float64(i+3)}}}}})
	}
	show := func(out *os.File) {
		a := &app{out: out}
		for _, plot := range []bool{false, true} {
			if err := a.showMetrics(list, plot); err != nil {
				t.Fatal(err)
			}
		}
	}

	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	const columns = 60
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 40, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(terminal) // until the last who writes has gone
		shown <- string(b)
	}()
	show(tty)
	tty.Close()
	text := <-shown
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > columns {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	if n := strings.Count(text, "METRIC"); n != 3 {
		t.Errorf("%d tables:\n%s", n, text)
	}
	for _, m := range list {
		if strings.Count(text, m.run.ID) != 2 || !strings.Contains(text, m.last("val/loss")) {
			t.Errorf("%s is not shown twice, with its loss:\n%s", m.run.ID, text)
		}
	}

	file, err := os.Create(t.TempDir() + "/shown")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	show(file)
	b, err := os.ReadFile(file.Name())
	if err != nil || strings.Count(string(b), "METRIC") != 1 {
		t.Errorf("in a file: %v\n%s", err, b)
	}
}
