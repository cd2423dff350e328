package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// How a graph is shown while it runs.
const (
	viewWhole  = iota // at most one stage runs: its output comes through as it is
	viewLive          // a terminal: a line for each stage that runs, with its newest output
	viewPlain         // lines of output, each behind the stage's name
	viewEvents        // --json: events on stdout, a JSON object a line
)

// drawEvery is how often the lines of a terminal are drawn anew at most, and
// tickEvery how often the times in them go on.
const (
	drawEvery = 100 * time.Millisecond
	tickEvery = time.Second
)

// graphView shows a graph that runs. It is told what happens by [launcher.Event].
type graphView struct {
	a    *app
	w    io.Writer // the app's stderr
	mode int
	all  int

	mu      sync.Mutex
	running []*runningTask // in order of their start
	failed  []string
	done    int
	cached  int
	drawn   int // lines on the screen
	next    time.Time
	stop    chan struct{}
	stopped sync.WaitGroup
}

// runningTask is a task that runs, or waits to.
type runningTask struct {
	task  *stages.Task
	began time.Time
	last  string   // the newest line of its output
	tail  []string // the newest ones, for a failure
}

// tailLines is how much of a failed command's output is shown again where it
// was not shown as it came.
const tailLines = 15

func (a *app) newGraphView(g *stages.Graph) *graphView {
	v := &graphView{a: a, w: a.err, all: len(g.Tasks), mode: viewPlain}
	stale := 0
	for _, t := range g.Tasks {
		if !t.Cached {
			stale++
		}
	}
	switch {
	case a.json && len(g.Targets) > 1:
		v.mode = viewEvents
	case stale <= 1:
		v.mode = viewWhole
	case isTerminal(a.err) && !a.json && !a.quiet:
		v.mode = viewLive
		v.stop = make(chan struct{})
		v.stopped.Go(v.tick)
		a.err = &lineWriter{line: func(line string) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.permanent(line)
			v.draw(true)
		}}
	}
	return v
}

func (v *graphView) saysErrors() bool { return v.mode != viewWhole }

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
	w.part = append(w.part, p...)
	for {
		// A progress bar goes back by \r and begins its line anew.
		i := strings.IndexAny(string(w.part), "\r\n")
		if i < 0 && len(w.part) < maxLine {
			return len(p), nil
		}
		rest := i + 1
		if i < 0 {
			i, rest = len(w.part), len(w.part)
		}
		line, bar := string(w.part[:i]), rest <= len(w.part) && i < len(w.part) && w.part[i] == '\r'
		w.part = append(w.part[:0], w.part[rest:]...)
		if line = strings.TrimRight(line, " "); line != "" {
			w.v.line(w.t, w.w, line, bar)
		}
	}
}

// line shows a line of output; bar says that another takes its place.
func (v *graphView) line(t *stages.Task, w io.Writer, line string, bar bool) {
	text := visible(strings.ReplaceAll(line, "\t", "    "))
	for _, r := range v.running {
		if r.task == t {
			r.last = text
			if !bar {
				if r.tail = append(r.tail, text); len(r.tail) > tailLines {
					r.tail = r.tail[1:]
				}
			}
		}
	}
	if v.mode == viewLive {
		v.draw(false)
	} else if !bar {
		fmt.Fprintf(w, "%s | %s\n", t.Label, line)
	}
}

func (v *graphView) start(t *stages.Task, says string) {
	for _, r := range v.running {
		if r.task == t {
			r.last = says
			return
		}
	}
	v.running = append(v.running, &runningTask{task: t, began: time.Now(), last: says})
}

// over takes a task off the running ones.
func (v *graphView) over(t *stages.Task) *runningTask {
	for i, r := range v.running {
		if r.task == t {
			v.running = append(v.running[:i], v.running[i+1:]...)
			return r
		}
	}
	return &runningTask{task: t, began: time.Now()}
}

// event shows what happened.
func (v *graphView) event(e launcher.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mode == viewEvents {
		v.tell(e)
	}
	switch e.Kind {
	case launcher.EventStarted:
		v.start(e.Task, "")
	case launcher.EventWaiting:
		v.start(e.Task, e.Text)
		if v.mode != viewLive {
			v.say("%s: %s", e.Task.Label, e.Text)
		}
	case launcher.EventFinished:
		r := v.over(e.Task)
		v.done++
		if e.Result.Cached {
			v.cached++
		}
		v.sayFinished(e, r)
	case launcher.EventFailed:
		r := v.over(e.Task)
		v.failed = append(v.failed, v.failure(e))
		if v.mode != viewWhole {
			v.warn("%s", v.failure(e))
			if v.mode == viewLive {
				for _, line := range r.tail {
					v.permanent("    " + line)
				}
			}
		}
	case launcher.EventSkipped:
		if v.all <= shownTasks || v.mode == viewWhole {
			v.say("%s is not run: %s", e.Task.Label, e.Text)
		}
	case launcher.EventWarning:
		v.warn("warning: %s", e.Text)
	}
	v.draw(true)
}

// shownTasks is up to how many tasks each gets a line of its own for what did
// not run.
const shownTasks = 40

func (v *graphView) sayFinished(e launcher.Event, r *runningTask) {
	switch {
	case v.mode != viewLive && (!e.Result.Cached || e.Result.Outputs != nil):
		// The launcher has said it.
	case !e.Result.Cached:
		v.say("%s succeeded in %s (%s)", e.Task.Label, span(time.Since(r.began)), e.Result.Run)
	case v.all <= shownTasks && (v.mode == viewLive || e.Result.Outputs == nil):
		v.say("%s is cached: the result of %s", e.Task.Label, e.Result.Run)
	}
}

func (v *graphView) failure(e launcher.Event) string {
	if e.Err != nil {
		return fmt.Sprintf("%s failed: %s", e.Task.Label, wayOut(e.Err))
	}
	return fmt.Sprintf("%s failed with exit status %d (curi log %s)", e.Task.Label, e.Result.Exit, e.Result.Run)
}

func (v *graphView) say(format string, args ...any) {
	if !v.a.quiet {
		v.permanent("curi: " + fmt.Sprintf(format, args...))
	}
}

func (v *graphView) warn(format string, args ...any) {
	v.permanent("curi: " + fmt.Sprintf(format, args...))
}

// permanent prints a line that stays, above those that are drawn anew.
func (v *graphView) permanent(line string) {
	v.erase()
	fmt.Fprintln(v.w, line)
}

func (v *graphView) erase() {
	if v.drawn > 0 {
		fmt.Fprintf(v.w, "\r\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

func (v *graphView) tick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			v.mu.Lock()
			v.draw(true)
			v.mu.Unlock()
		case <-v.stop:
			return
		}
	}
}

// draw draws a line for each running stage, and one for all.
func (v *graphView) draw(now bool) {
	if v.mode != viewLive || !now && time.Now().Before(v.next) {
		return
	}
	v.next = time.Now().Add(drawEvery)
	width, height := 80, 24
	if f, ok := v.w.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 10 && h > 2 {
			width, height = w, h
		}
	}
	v.erase()
	labels := 0
	for _, r := range v.running {
		labels = max(labels, utf8.RuneCountInString(r.task.Label))
	}
	labels = min(labels, width/3)
	var b strings.Builder
	for i, r := range v.running {
		if i == height-2 {
			break
		}
		b.WriteString(clipped(fmt.Sprintf("  %-*s  %6s  %s", labels, clipped(r.task.Label, labels), span(time.Since(r.began)), r.last), width-1) + "\n")
		v.drawn++
	}
	status := fmt.Sprintf("  %d of %d done, %d of them cached", v.done, v.all, v.cached)
	if len(v.failed) > 0 {
		status += fmt.Sprintf(", %d failed", len(v.failed))
	}
	b.WriteString(clipped(status, width-1) + "\n")
	v.drawn++
	_, _ = io.WriteString(v.w, b.String())
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

// clipped cuts a text to a number of characters.
func clipped(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(n-1, 0)]) + "…"
}

// end shows the summary.
func (v *graphView) end(res *launcher.GraphResult, took time.Duration) {
	if v.mode == viewLive {
		close(v.stop)
		v.stopped.Wait()
		v.a.err = v.w
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.erase()
	if v.mode == viewEvents {
		v.put(map[string]any{"event": "summary", "ran": res.Ran, "cached": res.Cached, "failed": res.Failed, "skipped": res.Skipped,
			"exit_status": res.Exit, "seconds": took.Seconds()})
	}
	if v.all == 1 {
		return
	}
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{res.Ran, "ran"}, {res.Cached, "cached"}, {res.Failed, "failed"}, {res.Skipped, "not run"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if len(v.failed) > 1 {
		for _, f := range v.failed {
			v.warn("%s", f)
		}
	}
	v.say("%s, in %s", strings.Join(parts, ", "), span(took))
}

// tell prints an event as JSON.
func (v *graphView) tell(e launcher.Event) {
	m := map[string]any{"event": e.Kind, "stage": e.Task.Stage.Name, "sets": append([]string{}, e.Task.Sets...)}
	if e.Text != "" {
		m["text"] = e.Text
	}
	if r := e.Result; r != nil {
		m["run"], m["key"], m["cached"], m["exit_status"], m["seconds"] = r.Run, r.Key, r.Cached, r.Exit, r.Seconds
		if r.Outputs != nil {
			m["outputs"] = r.Outputs
		}
	}
	if e.Err != nil {
		m["text"] = wayOut(e.Err)
	}
	v.put(m)
}

func (v *graphView) put(m map[string]any) {
	b, err := json.Marshal(m)
	if err == nil {
		fmt.Fprintf(v.a.out, "%s\n", b)
	}
}
