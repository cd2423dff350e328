package launcher

import (
	"context"
	"maps"

	"github.com/curi-store/curi/stages"
)

// submission is what was submitted together: some sets of one stage, as an
// array, or one as a job.
type submission struct {
	tasks []*stages.Task
	limit int       // how many of them run at once; 0: as Slurm likes
	array *jobArray // nil for one
}

// slurm tells how a task is run as a job; nil if it runs here, or is cached.
func (x *graphExec) slurm(t *stages.Task) *Slurm {
	if x.o.Slurm == nil || t.Cached {
		return nil
	}
	return x.o.Slurm(t)
}

func (x *graphExec) detached(t *stages.Task) bool {
	sl := x.slurm(t)
	return sl != nil && sl.Detach
}

// submitReady submits the sets of each stage that are ready, and returns how
// many.
func (x *graphExec) submitReady(ctx context.Context) int {
	n := 0
	for _, sub := range x.readyJobs() {
		if sub.limit = x.freeJobs(); sub.limit == 0 && x.o.SlurmJobs > 0 {
			break
		}
		x.subs = append(x.subs, sub)
		if len(sub.tasks) > 1 {
			id, err := stages.NewRunID(ctx, x.s, sub.tasks[0].Stage.Name)
			if err != nil { // who has a name for none of its runs says so
				id = sub.tasks[0].Stage.Name
			}
			first := sub.tasks[0]
			sub.array = newJobArray("curi-sets-"+id, sub.limit, len(sub.tasks), func(text string) {
				x.event(Event{Kind: EventArray, Task: first, Text: text})
			})
		}
		for i, t := range sub.tasks {
			sl := *x.slurm(t)
			sl.stop = !x.o.KeepGoing
			if sub.array != nil {
				sl.task = &arrayTask{jobArray: sub.array, index: i}
			}
			x.state[t], x.jobs[t] = taskRunning, sub
			n++
			x.event(Event{Kind: EventStarted, Task: t})
			go func() { x.done <- x.one(ctx, t, &sl) }()
		}
	}
	return n
}

// readyJobs are the tasks that can be submitted now, those together that can
// be one array. A set that waits for something that runs here is waited for:
// one array is what people look at, and what --jobs limits. One that waits for
// another job is not.
func (x *graphExec) readyJobs() []*submission {
	var subs []*submission
	if x.o.Slurm == nil {
		return nil
	}
	waits := map[*stages.FileStage]bool{}
	here := map[*stages.Task]bool{}
	for _, t := range x.g.Tasks {
		if x.state[t] == taskPending && x.slurm(t) != nil && x.waitsForHere(t, here) {
			waits[t.Stage] = true
		}
	}
next:
	for _, t := range x.g.Tasks {
		if x.state[t] != taskPending || waits[t.Stage] || !x.ready(t) {
			continue
		}
		sl := x.slurm(t)
		if sl == nil {
			continue
		}
		for _, sub := range subs {
			if first := sub.tasks[0]; first.Stage == t.Stage && len(sub.tasks) < maxArray && maps.Equal(x.slurm(first).Options, sl.Options) {
				sub.tasks = append(sub.tasks, t)
				continue next
			}
		}
		subs = append(subs, &submission{tasks: []*stages.Task{t}})
	}
	return subs
}

// ready reports whether all that a task needs is there.
func (x *graphExec) ready(t *stages.Task) bool {
	if !t.Ready() {
		return false
	}
	for _, n := range t.Needs {
		if x.state[n] != taskDone {
			return false
		}
	}
	return true
}

// waitsForHere reports whether a task needs something that runs here, or is to.
func (x *graphExec) waitsForHere(t *stages.Task, seen map[*stages.Task]bool) bool {
	if waits, ok := seen[t]; ok {
		return waits
	}
	waits := false
	for _, n := range t.Needs {
		if s := x.state[n]; s != taskPending && s != taskRunning {
			continue
		}
		if x.jobs[n] == nil && x.slurm(n) == nil || x.waitsForHere(n, seen) {
			waits = true
		}
	}
	seen[t] = waits
	return waits
}

// left is how many tasks of a submission are not over.
func (x *graphExec) left(sub *submission) int {
	n := 0
	for _, t := range sub.tasks {
		if x.state[t] == taskRunning {
			n++
		}
	}
	return n
}

// freeJobs is how many more tasks may run as jobs; 0 without a limit too.
func (x *graphExec) freeJobs() int {
	free := x.o.SlurmJobs
	for _, sub := range x.subs {
		free -= min(sub.limit, x.left(sub))
	}
	return max(free, 0)
}

// allowMore gives to arrays what others use no more.
func (x *graphExec) allowMore() {
	if x.o.SlurmJobs == 0 {
		return
	}
	for _, sub := range x.subs {
		free := min(x.freeJobs(), x.left(sub)-sub.limit)
		if sub.array == nil || free <= 0 {
			continue
		}
		sub.limit += free
		sub.array.allow(sub.limit)
	}
}

// stopJobs keeps tasks of arrays from beginning, after a failure.
func (x *graphExec) stopJobs() {
	for _, sub := range x.subs {
		if sub.array != nil && x.left(sub) > 0 {
			sub.array.stop()
		}
	}
}

// cancelled reports whether somebody ended this one task of an array, which
// says nothing of the others.
func (x *graphExec) cancelled(ctx context.Context, e ended) bool {
	sub := x.jobs[e.task]
	if sub == nil || sub.array == nil || e.err != nil || x.sig.caught() != 0 {
		return false
	}
	r, err := stages.FindRun(context.WithoutCancel(ctx), x.s, e.res.Run)
	return err == nil && r.Status == stages.Interrupted
}
