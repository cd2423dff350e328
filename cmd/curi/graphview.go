package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

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
	drawn   []int // the lines on the screen, by their columns
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
	case isTerminal(a.err) && os.Getenv("TERM") != "dumb" && !a.json && !a.quiet:
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
	case launcher.EventArray:
		v.say("%s: %s", e.Task.Stage.Name, e.Text)
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
	if e.Result.Run == "" {
		return fmt.Sprintf("%s was ended before it ran, with exit status %d", e.Task.Label, e.Result.Exit)
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
		v.put(map[string]any{"event": "summary", "ran": res.Ran, "submitted": res.Submitted, "cached": res.Cached, "failed": res.Failed, "skipped": res.Skipped,
			"exit_status": res.Exit, "seconds": took.Seconds()})
	}
	if v.all == 1 {
		return
	}
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{res.Ran, "ran"}, {res.Submitted, "submitted"}, {res.Cached, "cached"}, {res.Failed, "failed"}, {res.Skipped, "not run"}} {
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
		if r.Job != "" {
			m["job"] = r.Job
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
