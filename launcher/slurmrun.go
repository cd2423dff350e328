package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// batch is the part of a call that is a job.
type batch struct {
	job  stages.Job
	opts jobOptions
}

// RunJob runs the stage of a key in the job of the batch system that was
// submitted for it under a name. It returns what Exec would. A job that was
// withdrawn meanwhile is refused. over says that the
// job is, and that the caller is to call [EndJob] as the last thing it does: who
// follows the job looks no further. It is false where Slurm has the last word,
// and for every node of several but the first.
//
// Slurm says with SIGUSR1 that the time limit is near: the command gets SIGTERM
// to save what it has, and if something new lies in its work directories then,
// the job is requeued, to go on from there.
func RunJob(ctx context.Context, s *cas.Store, key, name string, o Options) (res *Result, over bool, err error) {
	o.setDefaults()
	// First of all: by default it would end the job.
	warned := make(chan os.Signal, 1)
	signal.Notify(warned, syscall.SIGUSR1)
	job, err := stages.FindJob(ctx, s, key)
	if errors.Is(err, cas.ErrNotFound) || err == nil && job.Name != name {
		if rank, ok := environment(o.Environ).get("SLURM_PROCID"); ok && rank != "0" {
			return nil, false, fmt.Errorf("%w: node 0 ended before node %s came", ErrRefused, rank)
		}
		return nil, true, fmt.Errorf("%w: job %s was withdrawn, or is over: nothing waits for it any more", ErrRefused, name)
	}
	if err != nil {
		return nil, true, err
	}
	b := &batch{job: job}
	plan, err := stages.ReadPlan(ctx, s, job.Tree, &b.opts)
	if err != nil {
		return nil, true, err
	}
	if b.opts.PerNode {
		if o.Nodes, err = FindNodes(o.Environ, plan, ""); err != nil {
			return nil, true, err
		}
		b.opts.NoMount, b.opts.Retries = true, 0
	}
	plan.Environ = o.Environ
	o.Force, o.Fresh, o.NoMount, o.Timeout, o.Grace = b.opts.Force, b.opts.Fresh, b.opts.NoMount, b.opts.Timeout, b.opts.Grace
	o.Retries, o.Snapshot, o.Places = b.opts.Retries, b.opts.Snapshot, b.opts.Places
	o.NoMount = o.NoMount || o.Places != ""
	e := &execution{s: s, p: plan, o: &o, env: environment(o.Environ), began: time.Now(), batch: b}
	e.sig = catchSignals(ctx)
	defer e.sig.stop()
	e.sig.standFor(warned, syscall.SIGTERM)
	switch {
	case o.Nodes == nil:
		res, over, err = e.runJob(ctx)
	case o.Nodes.Rank == 0:
		res, err = e.execLeader(ctx, func() (res *Result, err error) {
			res, over, err = e.runJob(ctx)
			return res, err
		})
	default:
		res, err = e.execFollower(e.sig.ctx)
		if sig := e.sig.caught(); sig != 0 && errors.Is(err, context.Canceled) {
			res, err = e.result(128+int(sig)), nil
		}
		return res, false, err
	}
	return res, over, err
}

// runJob runs the stage and says whether the job is over then.
func (e *execution) runJob(ctx context.Context) (res *Result, over bool, err error) {
	if !e.o.Force {
		res, err = e.hit(ctx)
	}
	if res == nil && err == nil {
		res, err = e.miss(e.sig.ctx)
	}
	ctx = context.WithoutCancel(ctx)
	sig := e.sig.caught()
	if sig != 0 && res == nil && errors.Is(err, context.Canceled) {
		// Nothing ran: a job that Slurm ended may begin anew.
		return e.result(128 + int(sig)), false, nil
	}
	if err != nil {
		e.stopArray(ctx)
		return nil, true, err
	}
	if sig == 0 && res.Exit != 0 {
		e.stopArray(ctx)
	}
	if sig == syscall.SIGTERM {
		if !e.sig.stoodFor.Load() {
			return res, false, nil // Slurm ends the job, or runs it again: it will say
		}
		requeued, err := e.requeue(ctx)
		return res, !requeued, err
	}
	return res, true, nil
}

// stopArray takes the other tasks of a failed job's array out of the queue
// before this one ends: then the next would begin.
func (e *execution) stopArray(ctx context.Context) {
	if e.batch.job.Array == "" || !e.batch.opts.Stop {
		return
	}
	array, _, _ := strings.Cut(ownSlurmID(e.env), "_")
	if err := cancelWaiting(ctx, slurmEnv(e.env), array); err != nil {
		e.warn("keep the other sets from beginning: %s", oneLine(err))
	}
}

// EndJob notes that a job is over. A run that it never began is marked as
// failed with the exit status, or as having taken a cached result.
func EndJob(ctx context.Context, s *cas.Store, key, name string, exit int) error {
	job, err := stages.FindJob(ctx, s, key)
	if errors.Is(err, cas.ErrNotFound) || err == nil && job.Name != name {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := stages.FindRun(ctx, s, job.Run)
	if err == nil && r.Status == stages.Queued {
		r.Status, r.Exit, r.Ended = stages.Failed, exit, time.Now().UTC()
		if k, kerr := stages.ParseKey(key); exit == 0 && kerr == nil {
			res, ferr := stages.FindResult(ctx, s, k)
			if ferr != nil {
				return ferr
			}
			r.Status, r.SameAs, r.Tree = stages.Succeeded, res.Run, res.Tree
		}
		err = stages.PutRun(ctx, s, r, r.Tree)
	}
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	return stages.DropJob(ctx, s, key)
}

// takeJob finds the run that this start of the job makes, under the key's
// lock: the one that was submitted, or a new one where that began before.
func (e *execution) takeJob(ctx context.Context, lock *cas.Lock) error {
	now, err := stages.FindJob(ctx, e.s, e.batch.job.Key)
	if errors.Is(err, cas.ErrNotFound) || err == nil && now.Name != e.batch.job.Name {
		return fmt.Errorf("%w: job %s was withdrawn: nothing waits for it any more", ErrRefused, e.batch.job.Name)
	}
	if err != nil {
		return err
	}
	if id := ownSlurmID(e.env); id != "" {
		now.ID = id // whoever submitted it may not have lived to note it
	}
	if err := markLost(ctx, e.s, now.Run); err != nil {
		return err
	}
	r, err := stages.FindRun(ctx, e.s, now.Run)
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if err != nil || r.Status != stages.Queued {
		if now.Run, err = stages.NewRunID(ctx, e.s, e.p.Name); err != nil {
			return err
		}
		// Who follows the job finds it from here.
		r = stages.NewRun(e.p, now.Run, 1)
		r.Status, r.Job = stages.Queued, now.ID
		if err := stages.PutRun(ctx, e.s, r, cas.Digest{}); err != nil {
			return err
		}
	}
	e.batch.job, e.id = now, now.Run
	if err := stages.PutJob(ctx, e.s, now); err != nil {
		return err
	}
	return lock.SetHolder(holderPrefix + e.id)
}

// nextOfJob makes another run the one that the job makes; whoever follows the
// job finds it from here. The caller holds the key's lock.
func (e *execution) nextOfJob(ctx context.Context, id string) error {
	r := stages.NewRun(e.p, id, 1)
	r.Status, r.Job = stages.Queued, e.batch.job.ID
	if err := stages.PutRun(ctx, e.s, r, cas.Digest{}); err != nil {
		return err
	}
	e.batch.job.Run = id
	return stages.PutJob(ctx, e.s, e.batch.job)
}

// requeue puts the job back into the queue, if there is a reason to: a try
// that saved nothing would come as far as this one did.
func (e *execution) requeue(ctx context.Context) (bool, error) {
	job := e.batch.job
	r, err := stages.FindRun(ctx, e.s, job.Run)
	if err != nil {
		return false, err
	}
	end := func() error {
		r.Status = stages.TimedOut
		return stages.PutRun(ctx, e.s, r, r.Tree)
	}
	if !e.batch.opts.Requeue {
		e.warn("Slurm's time limit is near, and the job is not to be requeued")
		return false, end()
	}
	if !savedSince(filepath.Join(e.s.Place(job.Key).Dir(), "work"), r.Started) {
		e.warn("Slurm's time limit is near, and nothing new lies in a work directory: another try would come no further; give the job more time (--slurm time=…), or let the command save into a work directory (--work)")
		return false, end()
	}
	lock, err := e.s.Lock(ctx, cas.KeyLock(job.Key), holderPrefix+job.Run, func(cas.Holder) error { return nil })
	if err != nil {
		return false, err
	}
	defer lock.Release()
	if job.Run, err = stages.NewRunID(ctx, e.s, e.p.Name); err != nil {
		return false, err
	}
	next := stages.NewRun(e.p, job.Run, r.Attempt+1)
	next.Status, next.Job = stages.Queued, job.ID
	if err := stages.PutRun(ctx, e.s, next, cas.Digest{}); err != nil {
		return false, err
	}
	if err := stages.PutJob(ctx, e.s, job); err != nil {
		return false, err
	}
	e.warn("Slurm's time limit is near: job %s goes back into the queue, and on from its work directories as %s", job.ID, job.Run)
	if _, err := slurmctl(ctx, e.env, "", "scontrol", "requeue", job.ID); err != nil {
		return false, fmt.Errorf("%w: job %s cannot be requeued: %w", ErrRefused, job.ID, err)
	}
	return true, nil
}

// savedSince reports whether a file below dir is newer than t.
func savedSince(dir string, t time.Time) bool {
	found := false
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if fi, err := d.Info(); err == nil && fi.ModTime().After(t) {
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

// jobOfKey is the job that is to run, or runs, this call's stage; nil if there
// is none but this call itself. One that is over is settled, if the caller
// holds the key's lock.
func (e *execution) jobOfKey(ctx context.Context, locked bool) (*stages.Job, error) {
	if e.batch != nil {
		return nil, nil
	}
	job, err := stages.FindJob(ctx, e.s, e.p.Key.String())
	if errors.Is(err, cas.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if job.ID == "" && !locked {
		return nil, nil // who submits it holds the lock, or died: that shows under it
	}
	j, err := askSlurm(ctx, e.env, job)
	if err != nil {
		e.warn("%s", oneLine(err))
		return &job, nil // it may run: what it does counts
	}
	if !j.over() {
		if job.ID == "" {
			if job.ID = j.id; locked {
				err = e.noteJobID(ctx, job)
			}
		}
		return &job, err
	}
	if !locked {
		return nil, nil
	}
	return nil, e.settleLocked(ctx, job, j)
}

// followOther waits for the job of this call's stage, whoever submitted it.
func (e *execution) followOther(ctx context.Context, job stages.Job) (*Result, error) {
	if e.submitted == job.Name {
		how := following{show: true, owns: true}
		if job.Array != "" {
			how.array = e.o.Slurm.task.jobArray
		}
		return e.follow(ctx, job, how)
	}
	if e.o.Slurm != nil {
		e.o.Slurm.task.leave()
	}
	e.say("waiting for run %s (job %s of Slurm, submitted by %s on %s), which is this very stage; its result will be taken", job.Run, job.ID, job.User, job.Host)
	return e.follow(ctx, job, following{show: e.o.Slurm != nil})
}
