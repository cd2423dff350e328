package launcher

import (
	"context"
	"slices"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// retryPause is how long the first restart waits; each further one waits twice
// as long, up to maxRetryPause. Only tests change it.
var retryPause = fault.Duration("retry.pause", time.Second)

const maxRetryPause = time.Minute

// usageStatuses say that the command was called wrongly or is not there, which
// no restart changes: 2 of a shell and of Python's argparse, 64 of sysexits.h,
// 126 and 127 of a command that cannot be started.
var usageStatuses = []int{2, 64, 126, 127}

// tries runs the stage, under its key's lock, and again while it fails and the
// caller wants that. Each try is a run of its own.
func (e *execution) tries(ctx context.Context, lock *cas.Lock) (*Result, error) {
	for e.try = 1; ; e.try++ {
		r := &run{execution: e, lock: lock, place: e.s.Place(e.p.Key.String())}
		res, err := r.do(ctx)
		if e.try > e.o.Retries || err != nil || !r.mayPass() {
			return res, err
		}
		if err := e.pauseBefore(ctx, lock); err != nil {
			return nil, err
		}
	}
}

// mayPass reports whether a run failed in a way that another try may not.
func (r *run) mayPass() bool {
	switch r.info.Status {
	case stages.TimedOut:
		return true
	case stages.Failed:
		return !slices.Contains(usageStatuses, r.info.Exit)
	}
	return false
}

// pauseBefore waits for the next try, and makes it the holder of the key.
func (e *execution) pauseBefore(ctx context.Context, lock *cas.Lock) error {
	defer e.keepBeating(lock)()
	pause := maxRetryPause
	if shift := e.try - 1; shift < 10 {
		pause = min(pause, retryPause<<shift)
	}
	e.warn("%s failed; trying again in %s (retry %d of %d)", e.id, pause, e.try, e.o.Retries)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	id, err := stages.NewRunID(ctx, e.s, e.p.Name)
	if err != nil {
		return err
	}
	// Who calls this stage from within it must see whom it would wait for.
	if err := lock.SetHolder(holderPrefix + id); err != nil {
		return err
	}
	if e.batch != nil {
		if err := e.nextOfJob(ctx, id); err != nil {
			return err
		}
	}
	e.id = id
	e.o.Fresh = false // what the last try left is what this one is for
	return nil
}
