package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// Attach follows the job of a run as who submitted it does, and returns what
// Exec would have. The run may have been followed by others of the same job.
// A signal ends the attachment, not the job.
func Attach(ctx context.Context, s *cas.Store, r stages.Run, o Options) (*Result, error) {
	e, job, err := jobOfRun(ctx, s, r, &o)
	if err != nil {
		return nil, err
	}
	e.sig = catchSignals(ctx)
	defer e.sig.stop()
	return e.follow(ctx, job, following{show: true})
}

// Cancel ends the job of a run as Ctrl-C ends a local one, and returns as soon
// as Slurm was told. Of a job that waits nothing is left.
func Cancel(ctx context.Context, s *cas.Store, r stages.Run, o Options) error {
	e, job, err := jobOfRun(ctx, s, r, &o)
	if err != nil {
		return err
	}
	env := slurmEnv(e.env)
	j, err := askSlurm(ctx, env, job)
	if err != nil {
		return fmt.Errorf("cancel %s: %w", r.ID, err)
	}
	if !j.over() {
		job.ID = j.id
		if err := interruptJob(ctx, env, j.id); err != nil {
			return fmt.Errorf("cancel %s: %w", r.ID, err)
		}
		if j, err = askSlurm(ctx, env, job); err != nil {
			return fmt.Errorf("cancel %s: %w", r.ID, err)
		}
	}
	if j.over() {
		_, err := e.settleJob(ctx, job, j)
		return err
	}
	e.say("SIGINT to the command of job %s; curi attach %s shows its end", j.id, r.ID)
	return nil
}

// jobOfRun finds the job that a run is part of; the run must be of the newest
// job of its key.
func jobOfRun(ctx context.Context, s *cas.Store, r stages.Run, o *Options) (*execution, stages.Job, error) {
	o.setDefaults()
	k, err := stages.ParseKey(r.Key)
	if err != nil {
		return nil, stages.Job{}, err
	}
	plan := &stages.Plan{Stage: stages.Stage{Name: r.Stage}, Key: k}
	e := &execution{s: s, p: plan, o: o, env: environment(o.Environ), began: time.Now(), id: r.ID}
	job, err := stages.FindJob(ctx, s, r.Key)
	switch {
	case err == nil && (job.Run == r.ID || r.Job != "" && job.ID == r.Job):
		return e, job, nil
	case err != nil && !errors.Is(err, cas.ErrNotFound):
		return nil, job, err
	case r.Status == stages.Running:
		return nil, job, fmt.Errorf("%s runs without a batch system: curi log %s shows what it wrote so far: %w", r.ID, r.ID, stages.ErrUsage)
	}
	return nil, job, fmt.Errorf("%s is over (%s, exit status %d): curi log %s shows what it wrote: %w", r.ID, r.Status, r.Exit, r.ID, stages.ErrUsage)
}

// LookAfterJobs asks Slurm for every job of the store, settles those that are
// over, and returns what it says of the others, by run. Where Slurm cannot be
// asked it says nothing.
func LookAfterJobs(ctx context.Context, s *cas.Store, o Options) (map[string]string, error) {
	o.setDefaults()
	e := &execution{s: s, p: &stages.Plan{}, o: &o, env: environment(o.Environ), began: time.Now()}
	said := map[string]string{}
	for job, err := range stages.Jobs(ctx, s) {
		if err != nil {
			return said, err
		}
		j, err := askSlurm(ctx, e.env, job)
		switch {
		case err != nil:
			return said, nil
		case job.ID == "" && j.id == "": // it is just being submitted, or was not
		case !j.over():
			said[job.Run] = j.state
			if j.reason != "" {
				said[job.Run] += " (" + j.reason + ")"
			}
		default:
			if _, err := e.settleJob(ctx, job, j); err != nil {
				return said, err
			}
		}
	}
	return said, nil
}

// KeepJobs makes the places of keys whose jobs wait look used: a collection is
// not to take the directories to which Slurm writes.
func KeepJobs(ctx context.Context, s *cas.Store) error {
	for job, err := range stages.Jobs(ctx, s) {
		if err != nil {
			return err
		}
		now := time.Now()
		_ = os.Chtimes(jobDir(s, job.Key), now, now) // of a job that is over it may be gone
	}
	return nil
}
