package launcher

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// GraphOptions of [ExecGraph].
type GraphOptions struct {
	Jobs      int  // how many stages run at once here; at least 1
	KeepGoing bool // after a failure, go on with what does not need what failed

	// Slurm, if it is set, tells how a task is run as a job; nil: it runs here.
	// Sets of a stage that are ready at the same time become one job array, and
	// of all arrays SlurmJobs tasks run at once; 0: as many as Slurm likes.
	Slurm     func(*stages.Task) *Slurm
	SlurmJobs int

	// Options says how a task is run. Exec says that a task that is cached is
	// taken by [Exec] all the same, which finds paths for its outputs.
	Options func(*stages.Task) Options
	Exec    func(*stages.Task) bool
	// Prepare, if it is set, is called with the plan and the options of a task
	// just before [Exec].
	Prepare func(*stages.Task, *stages.Plan, *Options) error
	// Event is told what happens, one thing at a time.
	Event func(Event)
	// After is called when [Exec] has returned for a task, with what it did. Its
	// error makes a task fail that did not.
	After func(context.Context, *stages.Task, *Result, error) error
}

// What can happen to a task.
const (
	EventWaiting  = "waiting"  // for what Text says, or for GPUs and CPUs
	EventStarted  = "started"  // it is looked at now, and run if it is not cached
	EventFinished = "finished" // Result has how
	EventFailed   = "failed"   // Err, or Result.Exit, says why
	EventSkipped  = "skipped"  // as Text says
	EventArray    = "array"    // Task and other sets of its stage were submitted together, as Text says
	EventWarning  = "warning"  // Text is for the person
)

// Event is a thing that happened to a task.
type Event struct {
	Kind   string
	Task   *stages.Task
	Result *Result
	Err    error
	Text   string
}

// GraphResult is how a graph ended.
type GraphResult struct {
	Ran, Cached, Failed, Skipped int
	Submitted                    int   // as jobs that nobody waits for
	Exit                         int   // of the first command that failed, or by a signal
	Err                          error // of Curi, if that is what failed first
}

// ExecGraph brings the tasks of a graph up to date that has been looked at
// ([stages.Graph.Look]): each as [Exec] does it, after all that it needs.
//
// A signal goes to all commands that run, and no other begins. Like Exec, it
// handles signals itself.
func ExecGraph(ctx context.Context, s *cas.Store, g *stages.Graph, o GraphOptions) *GraphResult {
	x := &graphExec{s: s, g: g, o: o, state: map[*stages.Task]taskState{}, jobs: map[*stages.Task]*submission{}, done: make(chan ended), warned: map[string]bool{}}
	x.sig = catchSignals(ctx)
	defer x.sig.stop()
	x.foresee()
	x.run(x.sig.ctx)
	if sig := x.sig.caught(); sig != 0 {
		x.res.Exit, x.res.Err = 128+int(sig), nil
	}
	return &x.res
}

type taskState int

const (
	taskPending taskState = iota
	taskRunning
	taskDone
	taskFailed   // or skipped
	taskDetached // a job that nobody waits for
)

type ended struct {
	task *stages.Task
	res  *Result
	err  error
}

type graphExec struct {
	s     *cas.Store
	g     *stages.Graph
	o     GraphOptions
	sig   *signals
	res   GraphResult
	state map[*stages.Task]taskState
	jobs  map[*stages.Task]*submission // of those that are, or were, jobs
	subs  []*submission
	done  chan ended

	mu     sync.Mutex // of events
	warned map[string]bool
}

func (x *graphExec) event(e Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.Kind == EventWarning {
		if x.warned[e.Text] {
			return
		}
		x.warned[e.Text] = true
	}
	x.o.Event(e)
}

// run starts what is ready until nothing more can be.
func (x *graphExec) run(ctx context.Context) {
	running, local, stopped := 0, 0, false
	for {
		started := false
		for _, t := range x.g.Tasks {
			if stopped || ctx.Err() != nil {
				break
			}
			if x.state[t] != taskPending {
				continue
			}
			if slices.ContainsFunc(t.Needs, func(n *stages.Task) bool { return x.state[n] == taskFailed }) {
				x.skip(t, "what it needs failed")
				started = true
				continue
			}
			if slices.ContainsFunc(t.Needs, func(n *stages.Task) bool { return x.state[n] == taskDetached }) {
				x.skip(t, "what it needs is a job that is not waited for")
				started = true
				continue
			}
			if !t.Ready() || slices.ContainsFunc(t.Needs, func(n *stages.Task) bool { return x.state[n] != taskDone }) {
				continue
			}
			if t.Cached && !x.o.Exec(t) {
				x.take(ctx, t)
				started = true
				continue
			}
			if x.slurm(t) != nil || local >= max(x.o.Jobs, 1) {
				continue // see submitReady, for the first
			}
			x.state[t] = taskRunning
			running++
			local++
			var slurm *Slurm // of one that is cached: it may be gone by now
			if x.o.Slurm != nil {
				slurm = x.o.Slurm(t)
			}
			x.event(Event{Kind: EventStarted, Task: t}) // here, for their order
			go func() { x.done <- x.one(ctx, t, slurm) }()
		}
		if !stopped && ctx.Err() == nil {
			running += x.submitReady(ctx)
		}
		if running == 0 && !started {
			break
		}
		if running == 0 {
			continue
		}
		e := <-x.done
		running--
		if x.jobs[e.task] == nil {
			local--
		}
		if !x.settle(ctx, e) && !x.o.KeepGoing && !x.cancelled(ctx, e) {
			stopped = true
			x.stopJobs()
		}
		x.allowMore()
	}
	for _, t := range x.g.Tasks {
		if x.state[t] == taskPending {
			x.skip(t, "another failed")
		}
	}
}

func (x *graphExec) skip(t *stages.Task, why string) {
	x.state[t] = taskFailed
	x.res.Skipped++
	if sig := x.sig.caught(); sig != 0 {
		why = "ended by " + signalName(sig)
	}
	x.event(Event{Kind: EventSkipped, Task: t, Text: why})
}

// settle notes how a task ended; false if it failed.
func (x *graphExec) settle(ctx context.Context, e ended) bool {
	if e.err == nil && e.res.Exit == 0 && e.res.Job != "" && len(e.res.Outputs) == 0 && x.detached(e.task) {
		x.state[e.task] = taskDetached
		x.res.Submitted++
		x.event(Event{Kind: EventFinished, Task: e.task, Result: e.res})
		return true
	}
	if e.err == nil && e.res.Exit == 0 {
		e.err = x.finished(ctx, e)
	}
	if e.err == nil && e.res.Exit == 0 {
		x.state[e.task] = taskDone
		if e.res.Cached {
			x.res.Cached++
		} else {
			x.res.Ran++
		}
		x.event(Event{Kind: EventFinished, Task: e.task, Result: e.res})
		return true
	}
	if sub := x.jobs[e.task]; sub != nil && !x.o.KeepGoing && sub.array.wasStopped(context.WithoutCancel(ctx), x.s, e) {
		x.skip(e.task, errStopped.Error())
		return true
	}
	x.state[e.task] = taskFailed
	if x.res.Failed++; x.res.Failed == 1 {
		if x.res.Err = e.err; e.err == nil {
			x.res.Exit = e.res.Exit
		}
	}
	x.event(Event{Kind: EventFailed, Task: e.task, Result: e.res, Err: e.err})
	return false
}

func (x *graphExec) finished(ctx context.Context, e ended) error {
	ctx = context.WithoutCancel(ctx)
	key, err := stages.ParseKey(e.res.Key)
	if err != nil {
		return err
	}
	found, err := stages.FindResult(ctx, x.s, key)
	if err != nil {
		return err
	}
	return e.task.Done(ctx, x.s, found)
}

// take takes the result of a task as [Exec] does, but for the paths.
func (x *graphExec) take(ctx context.Context, t *stages.Task) {
	opts := x.o.Options(t)
	opts.setDefaults()
	e := &execution{s: x.s, p: t.Plan, o: &opts, env: environment(opts.Environ)}
	if _, ok := e.note(ctx, t.Result); !ok {
		t.Cached = false // it was just collected, or withdrawn: it runs
		return
	}
	outputs := map[string]Output{}
	for name, tree := range t.Outputs {
		outputs[name] = Output{Tree: tree}
	}
	if err := e.publishNames(ctx, t.Result.Run, outputs); err != nil {
		x.settle(ctx, ended{task: t, err: err})
		return
	}
	x.state[t] = taskDone
	x.res.Cached++
	x.event(Event{Kind: EventFinished, Task: t, Result: &Result{Run: t.Result.Run, Stage: t.Stage.Name, Key: t.Plan.Key.String(), Cached: true, Outputs: nil}})
}

// one brings a task up to date; as a job where slurm says how.
func (x *graphExec) one(ctx context.Context, t *stages.Task, slurm *Slurm) (e ended) {
	e.task = t
	opts := x.o.Options(t)
	opts.setDefaults()
	if opts.Slurm = slurm; slurm != nil {
		defer slurm.task.leave()
	}
	environ := opts.Environ
	plan, err := t.Bind(ctx, x.g, x.s, environ)
	if err != nil {
		e.err = err
		return e
	}
	defer func() { plan.Release() }()
	needs, err := x.needsSlots(ctx, t, plan, opts)
	if err != nil {
		e.err = err
		return e
	}
	if needs {
		waited := false
		slots, err := takeSlots(ctx, x.s, t.Resources, "stage "+t.Label, environment(opts.Environ), func(text string) {
			waited = true
			x.event(Event{Kind: EventWaiting, Task: t, Text: text})
		})
		if err != nil {
			e.err = err
			return e
		}
		defer slots.release()
		opts.Held = append(opts.Held, slots.files()...)
		if _, given := t.Resources[stages.GPUs]; given { // none, too
			env := environment(slices.Clone(opts.Environ))
			env.set("CUDA_VISIBLE_DEVICES", strings.Join(slots.gpus, ","))
			opts.Environ = env
		}
		if waited { // things may have changed meanwhile
			x.event(Event{Kind: EventStarted, Task: t})
			again, err := t.Bind(ctx, x.g, x.s, environ)
			if err != nil {
				e.err = err
				return e
			}
			plan.Release()
			plan = again
		}
	}
	for _, w := range plan.Warnings {
		x.event(Event{Kind: EventWarning, Task: t, Text: w})
	}
	if x.o.Prepare != nil {
		if e.err = x.o.Prepare(t, plan, &opts); e.err != nil {
			return e
		}
	}
	e.res, e.err = Exec(ctx, x.s, plan, opts)
	if slurm != nil {
		slurm.task.leave()
	}
	if x.o.After != nil {
		if err := x.o.After(context.WithoutCancel(ctx), t, e.res, e.err); e.err == nil {
			e.err = err
		}
	}
	return e
}

// needsSlots says whether the command will probably run, and wants GPUs or CPUs.
func (x *graphExec) needsSlots(ctx context.Context, t *stages.Task, p *stages.Plan, o Options) (bool, error) {
	if len(t.Resources) == 0 || o.Accept != "" || o.Slurm != nil {
		return false, nil
	}
	if o.Force {
		return true, nil
	}
	if _, err := stages.FindResult(ctx, x.s, p.Key); err == nil {
		return false, nil
	}
	if o.There == nil {
		return true, nil
	}
	found, err := o.There(ctx, p.Key)
	return !found, err
}

// ErrGraph words what keeps tasks from being run, before any is.
func ErrGraph(g *stages.Graph) error {
	var first error
	more := 0
	said := map[string]bool{}
	for _, t := range g.Tasks {
		if t.Err == nil || said[t.Err.Error()] {
			continue
		}
		said[t.Err.Error()] = true
		if first == nil {
			first = t.Err
		} else {
			more++
		}
	}
	if more > 0 {
		return fmt.Errorf("%w (and %d more: curi stage status lists them)", first, more)
	}
	return first
}
