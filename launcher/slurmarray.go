package launcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

const (
	// maxArray is how many tasks an array of Curi's has at most: what Slurm takes
	// where a site sets nothing else (MaxArraySize=1001).
	maxArray = 1000
	// arrayPatience is how long tasks that are ready wait for those that bring
	// their inputs from afar, or ask other machines: later ones go alone.
	arrayPatience = time.Minute
)

// errStopped: another task failed before this one was submitted.
var errStopped = errors.New("another failed")

// jobArray is where parameter sets of one stage meet, to be submitted together:
// each becomes a task of one job array, with a run, a key and a log of its own.
// The last of them to come, or to turn out to need no job, submits all that came.
type jobArray struct {
	name   string // what Slurm calls it; not used twice
	say    func(text string)
	closed chan struct{} // when it was submitted, or will not be

	mu      sync.Mutex
	limit   int // of tasks that run at once; 0: Slurm's own
	open    int // tasks of which it is not known yet whether they need a job
	jobs    []stages.Job
	by      *execution // the first that came
	shut    bool       // who comes now comes late
	stopped bool       // after a failure no other task is to begin
	id      string     // Slurm's number of it
	err     error
	level   int       // how often it was interrupted
	changed time.Time // when this process last did something to it

	asking sync.Mutex
	asked  time.Time
	said   string // by Slurm then
}

// arrayTask is one set's part of an array. A nil one is of none.
type arrayTask struct {
	*jobArray
	index int
	known bool // it came, or left
}

func newJobArray(name string, limit, tasks int, say func(string)) *jobArray {
	return &jobArray{name: name, limit: limit, open: tasks, say: say, closed: make(chan struct{})}
}

// leave says that the others are not to wait for this one any more: it needs
// no job, or waits for somebody else.
func (t *arrayTask) leave() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known {
		t.known = true
		t.one()
	}
}

// one notes that one more task is known; the caller holds mu.
func (a *jobArray) one() {
	if a.open--; a.open == 0 && !a.shut {
		a.shut = true
		go a.submit()
	}
}

// late reports whether the task has to go alone.
func (t *arrayTask) late() bool {
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known || t.shut
}

// join adds the job of a task, waits until all are submitted and returns the
// task's number.
func (t *arrayTask) join(e *execution, job stages.Job) (id string, err error) {
	t.mu.Lock()
	if t.shut {
		t.mu.Unlock()
		return "", fmt.Errorf("%w: the other sets of the stage were submitted without this one: run it again", ErrRefused)
	}
	t.known = true
	t.jobs = append(t.jobs, job)
	if t.by == nil {
		t.by = e
	}
	t.one()
	t.mu.Unlock()
	patience := time.NewTimer(arrayPatience)
	defer patience.Stop()
	select {
	case <-t.closed:
	case <-patience.C:
		t.mu.Lock()
		if !t.shut {
			t.shut = true
			go t.submit()
		}
		t.mu.Unlock()
		<-t.closed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return "", t.err
	}
	return taskID(t.id, t.index), nil
}

// submit submits those that came; shut is set.
func (a *jobArray) submit() {
	defer close(a.closed)
	a.mu.Lock()
	jobs, e, limit, stopped := a.jobs, a.by, a.limit, a.stopped
	a.mu.Unlock()
	var id string
	var err error
	switch {
	case len(jobs) == 0:
		return
	case e.sig.caught() != 0:
		err = context.Canceled
	case stopped:
		err = errStopped
	default:
		id, err = e.sbatch(context.Background(), jobs, limit)
	}
	a.mu.Lock()
	a.id, a.err = id, err
	stopped = a.stopped
	a.mu.Unlock()
	if err != nil {
		return
	}
	if stopped { // meanwhile
		a.cancelWaiting()
	}
	if len(jobs) == 1 {
		return
	}
	most := ""
	if limit > 0 && limit < len(jobs) {
		most = fmt.Sprintf(", at most %d at a time", limit)
	}
	a.say(fmt.Sprintf("%d sets are job array %s of Slurm%s", len(jobs), id, most))
}

// ask tells of a task's job what Slurm said at most age ago: one question is
// for all of them.
func (a *jobArray) ask(ctx context.Context, env environment, job stages.Job, age time.Duration) (slurmJob, error) {
	a.mu.Lock()
	id, changed := a.id, a.changed
	a.mu.Unlock()
	a.asking.Lock()
	if a.said == "" || time.Since(a.asked) > age || changed.After(a.asked) {
		at := time.Now()
		text, err := slurmctl(ctx, env, "", "scontrol", "--oneliner", "show", "job", id)
		if err != nil {
			text = ""
		}
		a.said, a.asked = text, at
	}
	text := a.said
	a.asking.Unlock()
	if line := slurmRecord(text, job); line != "" {
		if j, name := parseSlurmJob(line); name == a.name {
			j.id = job.ID
			return j, nil
		}
	}
	return askSlurm(ctx, env, job) // forgotten, or Slurm does not answer
}

// changedSince reports whether this process did something to the array after t.
func (a *jobArray) changedSince(t time.Time) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed.After(t)
}

// interrupt does to the whole array what the level-th Ctrl-C does to a job. It
// reports false where another task did so already.
func (a *jobArray) interrupt(ctx context.Context, env environment, level int) (did bool, err error) {
	a.mu.Lock()
	if a.level >= level {
		a.mu.Unlock()
		return false, nil
	}
	a.level = level
	a.mu.Unlock()
	if level == 1 {
		err = interruptJob(ctx, env, a.id)
	} else {
		_, err = slurmctl(ctx, env, "", "scancel", a.id)
	}
	a.touched()
	return true, err
}

// touched makes those who follow tasks ask anew.
func (a *jobArray) touched() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed = time.Now()
}

// stop keeps the tasks from beginning that did not yet, because another failed.
func (a *jobArray) stop() {
	a.mu.Lock()
	was, id := a.stopped, a.id
	a.stopped = true
	a.mu.Unlock()
	if !was && id != "" {
		a.cancelWaiting()
	}
}

// wasStopped reports whether a result is that of a task that never began,
// because another failed: this process took it out of the queue, or the other one did.
func (a *jobArray) wasStopped(ctx context.Context, s *cas.Store, e ended) bool {
	if a == nil {
		return false
	}
	if errors.Is(e.err, errStopped) {
		return true
	}
	if e.err != nil || e.res.Exit != 128+int(syscall.SIGTERM) {
		return false
	}
	if r, err := stages.FindRun(ctx, s, e.res.Run); err != nil || !r.Tree.IsZero() {
		return false
	}
	a.mu.Lock()
	stopped, jobs := a.stopped, a.jobs
	a.mu.Unlock()
	for _, job := range jobs {
		if r, err := stages.FindRun(ctx, s, job.Run); err == nil && r.Status == stages.Failed {
			stopped = true
		}
	}
	return stopped
}

func (a *jobArray) cancelWaiting() {
	_ = cancelWaiting(context.Background(), slurmEnv(a.by.env), a.id)
	a.touched()
}

// allow raises how many tasks run at once, as others have ended.
func (a *jobArray) allow(limit int) {
	a.mu.Lock()
	a.limit = limit
	id := a.id
	a.mu.Unlock()
	if id != "" {
		_, _ = slurmctl(context.Background(), slurmEnv(a.by.env), "", "scontrol", "update", "JobId="+id, fmt.Sprint("ArrayTaskThrottle=", limit))
	}
}

// unsubmit takes back what was noted of a job that was not submitted.
func (e *execution) unsubmit(ctx context.Context, job stages.Job, err error) error {
	status, exit := stages.Failed, exitRefused
	if errors.Is(err, context.Canceled) || errors.Is(err, errStopped) {
		status, exit = stages.Interrupted, 128+int(syscall.SIGTERM)
	}
	e.endQueued(ctx, job.Run, status, exit)
	if derr := stages.DropJob(ctx, e.s, job.Key); derr != nil && !errors.Is(derr, cas.ErrNotFound) {
		err = fmt.Errorf("%w; and then: %w", err, derr)
	}
	return err
}
