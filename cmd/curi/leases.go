package main

import (
	"context"
	"time"

	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// sayAgain is how often a waiter says that it still waits.
const sayAgain = time.Minute

// await takes the lease of a key on the first remote that results go to and
// that answers, or waits for the result of the machine that has it. Leases save
// work: what is wrong with them is said and makes no run fail.
func (e *elsewhere) await(ctx context.Context, k stages.Key, run string) (*found, error) {
	if e.lease != nil {
		return nil, nil
	}
	c, err := e.leaseRemote(ctx, k)
	if c == nil {
		return nil, err
	}
	var (
		f     *found
		met   string // the run that is waited for
		began = time.Now()
		said  time.Time
	)
	o := remote.LeaseOptions{
		Beat:    fault.Duration("lease.beat", 0),
		Silence: fault.Duration("lease.silence", 0),
		Poll:    fault.Duration("lease.poll", 0),
		Mine:    func(h remote.LeaseHolder) bool { return e.ours(ctx, k, h.Run) },
		Wait: func(ctx context.Context, st remote.LeaseState) (_ bool, err error) {
			st.Run, st.By = visible(st.Run), visible(st.By)
			if st.Ended || st.Dead {
				if f, err = e.findOn(ctx, c, k); f != nil || err != nil {
					return true, err
				}
				e.sayEnded(c, st, met == st.Run)
				return false, nil
			}
			switch {
			case st.Run != met:
				e.a.say("remote %s: %s of %s runs this very stage, since %s; waiting for its result", c.Name, st.Run, st.By, st.Since.Local().Format("15:04:05"))
				met, said = st.Run, time.Now()
			case time.Since(said) > sayAgain:
				e.a.say("still waiting for %s of %s, %s so far", st.Run, st.By, time.Since(began).Round(time.Second))
				said = time.Now()
			}
			return false, nil
		},
	}
	l, err := c.r.Lease(ctx, k.String(), remote.LeaseHolder{Run: run, By: publisher(), Since: time.Now().UTC().Truncate(time.Second)}, o)
	if l != nil {
		e.lease, e.leaseOn = l, c.Name
	}
	if err != nil && ctx.Err() == nil {
		e.a.warn("remote %s: %s; other machines may run this stage too", c.Name, oneLine(err.Error()))
		err = nil
	}
	return f, err
}

// ours reports whether a run of the key is one of this store. This call has the
// key's lock, so that such a run is over, or waits for this one, as who submits
// a job does.
func (e *elsewhere) ours(ctx context.Context, k stages.Key, run string) bool {
	r, err := stages.FindRun(context.WithoutCancel(ctx), e.s, run)
	return err == nil && r.Key == k.String()
}

// sayEnded says why the result of another machine's run is not waited for. A
// run that failed there may succeed here, and its log is not here.
func (e *elsewhere) sayEnded(c *contact, st remote.LeaseState, waited bool) {
	switch {
	case st.Dead:
		e.a.say("remote %s: %s of %s gave no sign of life for %s; taking the stage over", c.Name, st.Run, st.By, st.Silent.Round(time.Second))
	case !waited: // it is of an earlier day
	case st.Exit == 0:
		e.a.say("remote %s: %s of %s succeeded, but its result is not on the remote; this machine runs the stage", c.Name, st.Run, st.By)
	default:
		e.a.say("remote %s: %s of %s ended with exit status %d; this machine runs the stage", c.Name, st.Run, st.By, st.Exit)
	}
}

// leaseRemote is where machines meet, nil if nowhere. A bucket that is no
// remote yet becomes one.
func (e *elsewhere) leaseRemote(ctx context.Context, k stages.Key) (*contact, error) {
	all, err := remote.Configs(ctx, e.s)
	if err != nil {
		return nil, err
	}
	for _, cfg := range all {
		if cfg.Policy != remote.Publish {
			continue
		}
		c := e.contact(ctx, cfg, k)
		if c.bucket {
			err := within(ctx, contactTime(), func(ctx context.Context) (func(), error) {
				r, err := e.a.openRemote(ctx, cfg, true)
				return func() { c.r = r }, err
			})
			c.bucket = false
			if err != nil && ctx.Err() == nil {
				e.a.warn("%s; going on without it", oneLine(err.Error()))
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if c.r != nil {
			return c, nil
		}
	}
	return nil, nil
}

// leave lets the job that this call submitted take the lease of its key over.
func (e *elsewhere) leave() {
	if e.lease != nil {
		e.lease.Leave()
	}
	e.lease = nil
}

// end tells others that this call is over, and says so if another machine
// took the stage over meanwhile.
func (e *elsewhere) end(ctx context.Context, exit int) {
	if e.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), contactTime())
	defer cancel()
	lost, err := e.lease.End(ctx, exit)
	switch {
	case lost:
		e.a.say("remote %s: another machine took this stage over, as this one gave no sign of life; the first result that was published stays there", e.leaseOn)
	case err != nil:
		e.a.logger().Debug("the end of the run was not told", "remote", e.leaseOn, "error", err)
	}
	e.lease = nil
}
