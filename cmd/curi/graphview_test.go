package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// viewOf is a view of one task that runs, and what the view wrote.
func viewOf(mode int) (*graphView, *stages.Task, *bytes.Buffer) {
	var shown bytes.Buffer
	task := &stages.Task{Label: "train"}
	v := &graphView{a: &app{out: &shown, err: &shown}, w: &shown, mode: mode, all: 1}
	v.running = []*runningTask{{task: task}}
	return v, task, &shown
}

// Each line of a command's output stands behind the stage's name once, however
// it arrives and ends; of a progress bar what it came to in the end.
func TestLinesOfAStage(t *testing.T) {
	const output = "one\r\ntwo\n\n\r 10%|#   |\r 50%|##  |\r100%|####|\nend\r\n\tlast words"
	const want = "train | one\ntrain | two\ntrain | 100%|####|\ntrain | end\ntrain | \tlast words\n"
	for size := 1; size <= len(output); size++ {
		v, task, shown := viewOf(viewPlain)
		var opts launcher.Options
		v.connect(task, &opts)
		for rest := output; rest != ""; rest = rest[min(size, len(rest)):] {
			if n, err := opts.Stdout.Write([]byte(rest[:min(size, len(rest))])); n != min(size, len(rest)) || err != nil {
				t.Fatal(n, err)
			}
		}
		opts.Stdout.(interface{ EndLine() }).EndLine()
		if shown.String() != want {
			t.Fatalf("in writes of %d bytes:\n%s", size, shown)
		}
		if tail := strings.Join(v.running[0].tail, "|"); tail != "one|two|100%|####||end|    last words" {
			t.Fatalf("in writes of %d bytes a failure would show %s", size, tail)
		}
	}
}

// What is drawn for a stage fits into its row: a line that a terminal breaks
// into two could not be taken away again.
func TestRowsFit(t *testing.T) {
	for line, want := range map[string]string{
		"\x1b[32mloss\x1b[0m 0.1":       "loss 0.1",
		"\x1b]0;title\x07epoch\x1b[K":   "epoch",
		"\x1b[A 10%|\x1b[1;31m#\x1b[m|": " 10%|#|",
		"a\x1b":                         `a\x1b`,
		"bell\x07":                      `bell\a`,
	} {
		if got := oneRow(line); got != want {
			t.Errorf("%q is shown as %q, want %q", line, got, want)
		}
	}
	for text, want := range map[string]int{"loss": 4, "日本": 4, "e\u0301a": 2, "…é": 2, "🚀": 2} {
		if got := columns(text); got != want {
			t.Errorf("%q takes %d columns, want %d", text, got, want)
		}
		for n := range 6 {
			if got := clipped(text, n); columns(got) > max(n, 1) || n >= want && got != text {
				t.Errorf("%q clipped to %d is %q", text, n, got)
			}
		}
	}
	v, _, shown := viewOf(viewLive)
	v.running[0].last = strings.Repeat("日本語", 50)
	v.draw(true)
	for line := range strings.Lines(shown.String()) {
		if n := columns(sequences.ReplaceAllString(strings.TrimSuffix(line, "\n"), "")); n > 79 {
			t.Errorf("%d columns of 80: %q", n, line)
		}
	}
	// Of its two lines the first, of 79 columns, fills three rows now.
	if len(v.drawn) != 2 || v.drawn[0] < 78 {
		t.Fatalf("drawn: %v", v.drawn)
	}
	if got := v.back(30); got != "\r\x1b[5A" {
		t.Errorf("in a terminal that became narrower it goes back by %q", got)
	}
}
