package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// How often who follows a job looks: at its output, at the store, and at
// Slurm, which is asked less and less often while nothing changes.
const (
	lookOutput = 200 * time.Millisecond
	lookStore  = 500 * time.Millisecond
	askFirst   = 500 * time.Millisecond
	askMost    = 15 * time.Second
)

// following says how a job is followed.
type following struct {
	show  bool      // what it writes
	owns  bool      // Ctrl-C here is meant for the job
	array *jobArray // of which it is a task, if this process submitted it
}

// follower waits for the end of a job, whoever submitted it.
type follower struct {
	*execution
	following
	job stages.Job
	env environment

	out, errs  *tail
	state      string // of Slurm, when it was last asked
	askEvery   time.Duration
	asked      time.Time
	told       bool // that Slurm cannot be asked
	interrupts int  // Ctrl-C so far
	lastInt    time.Time
}

// follow waits for the end of a job and returns its run's result.
func (e *execution) follow(ctx context.Context, job stages.Job, how following) (*Result, error) {
	f := &follower{execution: e, following: how, job: job, env: slurmEnv(e.env), askEvery: askFirst}
	f.id = job.Run
	if how.show {
		f.out = &tail{path: jobOutput(e.s, job), to: e.o.Stdout}
		f.errs = &tail{path: jobErrors(e.s, job), to: e.o.Stderr}
		defer f.out.close()
		defer f.errs.close()
	}
	return f.loop(context.WithoutCancel(ctx))
}

func (f *follower) loop(ctx context.Context) (*Result, error) {
	t := time.NewTicker(lookOutput)
	defer t.Stop()
	var looked time.Time
	for {
		select {
		case sig := <-f.sig.more:
			if res := f.signal(ctx, sig); res != nil {
				return res, nil
			}
		case <-t.C:
		}
		f.showOutput()
		if time.Since(looked) < lookStore {
			continue
		}
		looked = time.Now()
		over, err := f.look(ctx)
		if err != nil {
			return nil, err
		}
		if !over && (time.Since(f.asked) >= f.askEvery || f.array.changedSince(f.asked)) {
			if over, err = f.ask(ctx); err != nil {
				return nil, err
			}
		}
		if over {
			f.showOutput()
			return f.ended(ctx)
		}
	}
}

func (f *follower) showOutput() {
	if f.show {
		f.errs.copy()
		f.out.copy()
	}
}

// look reads the store: the job may be over, or have gone on to another run.
func (f *follower) look(ctx context.Context) (over bool, err error) {
	job, err := stages.FindJob(ctx, f.s, f.job.Key)
	if errors.Is(err, cas.ErrNotFound) || err == nil && job.Name != f.job.Name {
		return true, f.findLast(ctx)
	}
	if err != nil {
		return false, err
	}
	f.sayNext(job.Run)
	f.job, f.id = job, job.Run
	return false, nil
}

func (f *follower) sayNext(run string) {
	if run != f.job.Run {
		f.say("%s goes on as %s, in the same job", f.job.Run, run)
	}
}

// findLast finds the last run of a job that is over.
func (f *follower) findLast(ctx context.Context) error {
	last, err := stages.FindRun(ctx, f.s, f.job.Run)
	if err != nil {
		return fmt.Errorf("look how job %s ended: %w", f.job.ID, err)
	}
	for r, err := range stages.Runs(ctx, f.s) {
		if err == nil && r.Key == f.job.Key && r.Job != "" && r.Job == f.job.ID && r.Started.After(last.Started) {
			last = r
		}
	}
	f.sayNext(last.ID)
	f.job.Run, f.id = last.ID, last.ID
	return nil
}

// ask asks Slurm for the job, and settles a run that it says is over.
func (f *follower) ask(ctx context.Context) (over bool, err error) {
	began := time.Now()
	j, err := f.askJob(ctx)
	f.asked = began
	f.askEvery = min(f.askEvery*3/2, askMost)
	if err != nil {
		if !f.told {
			f.told = true
			f.warn("%s; going on to look at the store for the end of %s (if job %s is over already, call this where Slurm can be asked)", oneLine(err), f.id, f.job.ID)
		}
		return false, nil
	}
	f.told = false
	if j.state != f.state {
		f.askEvery = askFirst
		f.sayState(j)
		f.state = j.state
	}
	if !j.over() {
		return false, nil
	}
	return f.settleJob(ctx, f.job, j)
}

// askJob asks Slurm for the job. Tasks of one array share the answers.
func (f *follower) askJob(ctx context.Context) (slurmJob, error) {
	if f.array != nil {
		return f.array.ask(ctx, f.env, f.job, f.askEvery/2)
	}
	return askSlurm(ctx, f.env, f.job)
}

func (f *follower) sayState(j slurmJob) {
	switch {
	case j.state == "PENDING" && f.state != "":
		f.say("job %s waits to run again%s", j.id, because(j.reason))
	case j.state == "PENDING":
		f.say("job %s waits in the queue%s", j.id, because(j.reason))
	case j.state == "RUNNING":
		f.say("job %s runs on %s", j.id, j.nodes)
	}
}

// because is the reason that Slurm gives, if it gives one.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// settleJob ends what a job that is over left: its run, and the ref that kept
// the key for it. It reports false where another does so, or the job's own
// curi still lives.
func (e *execution) settleJob(ctx context.Context, job stages.Job, j slurmJob) (bool, error) {
	lock, err := e.s.Lock(ctx, cas.KeyLock(job.Key), "look after "+job.Run, nil)
	if errors.Is(err, cas.ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look after job %s: %w", job.ID, err)
	}
	defer lock.Release()
	return true, e.settleLocked(ctx, job, j)
}

// settleLocked is settleJob for who holds the key's lock.
func (e *execution) settleLocked(ctx context.Context, job stages.Job, j slurmJob) error {
	now, err := stages.FindJob(ctx, e.s, job.Key)
	if errors.Is(err, cas.ErrNotFound) || err == nil && now.Name != job.Name {
		return nil // it ended by itself
	}
	if err != nil {
		return err
	}
	if err := markLost(ctx, e.s, now.Run); err != nil {
		return err
	}
	r, err := stages.FindRun(ctx, e.s, now.Run)
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	// What the run itself said counts, but for a signal: Slurm knows why.
	switch {
	case err != nil:
	case r.Status == stages.Queued, r.Status == stages.Lost, r.Status == stages.Interrupted && j.state != "FAILED" && j.state != "COMPLETED" && j.state != "":
		status, exit, why := j.verdict()
		if r.Ended.IsZero() {
			r.Ended = time.Now().UTC()
		}
		r.Status, r.Exit = status, exit
		if err := stages.PutRun(ctx, e.s, r, r.Tree); err != nil {
			return err
		}
		e.warn("job %s of %s %s", j.id, r.ID, why)
	}
	return stages.DropJob(ctx, e.s, job.Key)
}

// ended is what a caller gets of a job that is over.
func (f *follower) ended(ctx context.Context) (*Result, error) {
	r, err := stages.FindRun(ctx, f.s, f.job.Run)
	if err != nil {
		return nil, err
	}
	f.id = r.ID
	res := f.result(r.Exit)
	res.Job = f.job.ID
	if !r.Status.HasResult() {
		if f.interrupts > 0 && r.Exit == 128+int(syscall.SIGTERM) {
			res.Exit = 128 + int(syscall.SIGINT) // it was Ctrl-C here, before it began
		}
		if !f.show {
			f.say("%s %s with exit status %d, and so does this call", r.ID, r.Status, r.Exit)
		}
		if r.Status == stages.Failed && r.Exit == 128+int(syscall.SIGKILL) {
			f.explainKill(ctx)
		}
		return res, nil
	}
	if r.SameAs != "" {
		res.Run, res.Cached = r.SameAs, true
	} else if !f.show {
		res.Cached = true
	}
	if res.Outputs, err = f.outputsOf(ctx, r.Tree); err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", r.ID, err)
	}
	return res, nil
}

// explainKill tells where Slurm knows why a command was killed.
func (f *follower) explainKill(ctx context.Context) {
	for range 20 {
		j, err := askSlurm(ctx, f.env, f.job)
		if err != nil {
			return
		}
		if j.state == "OUT_OF_MEMORY" {
			_, _, why := j.verdict()
			f.warn("job %s %s", j.id, why)
		}
		if j.over() {
			return
		}
		time.Sleep(lookStore) // it is about to end
	}
}

// tail copies a file that grows.
type tail struct {
	path string
	to   io.Writer
	f    *os.File
}

// copy copies what is new. A file that is not there yet has nothing.
func (t *tail) copy() {
	if t.f == nil {
		f, err := os.Open(t.path)
		if err != nil {
			return
		}
		t.f = f
	}
	// A caller that went away does not matter: the job goes on.
	_, _ = io.Copy(t.to, t.f)
}

func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
	}
}
