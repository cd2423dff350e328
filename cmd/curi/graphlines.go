package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// connect directs a task's output.
func (v *graphView) connect(t *stages.Task, opts *launcher.Options) {
	if v.mode == viewWhole {
		return
	}
	out := v.a.out
	if v.mode == viewEvents || v.a.json {
		out = v.w
	}
	opts.Progress = nil // one line is drawn at a time
	opts.Stdout = &taskWriter{v: v, t: t, w: out}
	opts.Stderr = &taskWriter{v: v, t: t, w: v.w}
}

// taskWriter takes a command's output line by line.
type taskWriter struct {
	v    *graphView
	t    *stages.Task
	w    io.Writer
	part []byte // of a line that has not ended
}

// maxLine is where a line without an end is cut, in bytes.
const maxLine = 8 << 10

func (w *taskWriter) Write(p []byte) (int, error) {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	b := append(w.part, p...)
	for len(b) > 0 {
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 && len(b) < maxLine {
			break
		}
		rest, bar := i+1, false
		switch {
		case i < 0:
			i, rest = len(b), len(b)
		case b[i] == '\r' && i+1 == len(b):
			// What comes next tells whether the line ends here.
			w.v.newest(w.t, string(b[:i]))
			w.part = append(w.part[:0], b...)
			return len(p), nil
		case b[i] == '\r' && b[i+1] == '\n':
			rest++
		default:
			// A progress bar goes back by \r and begins its line anew.
			bar = b[i] == '\r'
		}
		w.v.line(w.t, w.w, string(b[:i]), bar)
		b = b[rest:]
	}
	if len(b) > 0 {
		w.v.newest(w.t, string(b))
	}
	w.part = append(w.part[:0], b...)
	return len(p), nil
}

// EndLine shows what was written of a line that does not end: the last words of
// a program are often one.
func (w *taskWriter) EndLine() {
	w.v.mu.Lock()
	defer w.v.mu.Unlock()
	line := strings.TrimSuffix(string(w.part), "\r")
	w.part = w.part[:0]
	w.v.line(w.t, w.w, line, false)
}

// line shows a line of output; bar says that another takes its place.
func (v *graphView) line(t *stages.Task, w io.Writer, line string, bar bool) {
	if line = strings.TrimRight(line, " "); line == "" {
		return
	}
	r := v.newest(t, line)
	if bar {
		return
	}
	if r != nil {
		if r.tail = append(r.tail, r.last); len(r.tail) > tailLines {
			r.tail = r.tail[1:]
		}
	}
	if v.mode != viewLive {
		fmt.Fprintf(w, "%s | %s\n", t.Label, line)
	}
}

// newest shows a line of output, which may not have ended, beside a task that
// runs; nil if it does not.
func (v *graphView) newest(t *stages.Task, line string) *runningTask {
	for _, r := range v.running {
		if r.task == t {
			if text := oneRow(line); strings.TrimSpace(text) != "" {
				r.last = text
				v.draw(false)
			}
			return r
		}
	}
	return nil
}

// lineWriter passes whole lines on.
type lineWriter struct {
	mu   sync.Mutex
	part string
	line func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part += string(p)
	for {
		line, rest, ok := strings.Cut(w.part, "\n")
		if !ok {
			return len(p), nil
		}
		w.part = rest
		w.line(line)
	}
}
