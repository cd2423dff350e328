package launcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// holderPrefix and the run's id are what the holder of a key's lock does.
const holderPrefix = "run "

// silence is how long a holder may give no sign of life before a waiter stops.
// Only tests change it.
var silence = 60 * time.Second

// sayAgain is how often a waiter says that it still waits.
const sayAgain = time.Minute

// takeKey takes the lock of the key for the run e.id. holders are the runs
// that were waited for, none if the key was free.
func (e *execution) takeKey(ctx context.Context) (lock *cas.Lock, holders []string, err error) {
	var (
		beat  time.Time // the holder's last sign of life,
		since time.Time // and when this process saw it, by its own clock
		said  time.Time
		began = time.Now()
		asked bool
	)
	before := e.lastRun(ctx)
	lock, err = e.s.Lock(ctx, cas.KeyLock(e.p.Key.String()), holderPrefix+e.id, func(h cas.Holder) error {
		asked = true
		if e.o.Slurm != nil {
			e.o.Slurm.task.leave() // nobody else is to wait for this as well
		}
		if outer, ok := e.env.get("CURI_RUN"); ok && h.What == holderPrefix+outer {
			return fmt.Errorf("%w: this call is part of %s, which holds stage %s: it would wait for itself; let a stage call another one", ErrRefused, h.What, e.p.Name)
		}
		if id, ok := strings.CutPrefix(h.What, holderPrefix); ok && !slices.Contains(holders, id) {
			holders, said = append(holders, id), time.Time{}
		}
		if now := time.Now(); !h.Beat.Equal(beat) {
			beat, since = h.Beat, now
		} else if now.Sub(since) > silence {
			return fmt.Errorf("%w: %s holds stage %s and gave no sign of life for %s: see whether process %d on %s still works, end it if not, and run this again",
				ErrRefused, h.What, e.p.Name, silence, h.PID, h.Host)
		}
		if time.Since(said) >= sayAgain {
			e.sayWaiting(h, time.Since(began))
			said = time.Now()
		}
		return nil
	})
	if err == nil && asked && len(holders) == 0 {
		// Who held the lock so shortly that it had not said so when this call
		// looked. No clock tells: it may have been another machine's.
		if last := e.lastRun(ctx); last != before && last.ended {
			holders = []string{last.id}
		}
	}
	return lock, holders, err
}

// placeRun is the run that a key's place is, or was, of.
type placeRun struct {
	id    string
	ended bool
}

// lastRun reads it; zero if there is none.
func (e *execution) lastRun(ctx context.Context) placeRun {
	st, err := e.s.Place(e.p.Key.String()).State(ctx)
	if err != nil || st.Run == "" {
		return placeRun{}
	}
	r, err := stages.FindRun(ctx, e.s, st.Run)
	return placeRun{st.Run, err == nil && !r.Ended.IsZero()}
}

func (e *execution) sayWaiting(h cas.Holder, waited time.Duration) {
	if e.batch != nil && h.What == holderPrefix+e.id {
		return // for the end of its own submission
	}
	what := h.What
	if what == "" {
		what = "another call"
	}
	who := fmt.Sprintf("process %d on %s", h.PID, h.Host)
	if waited < time.Second {
		e.say("waiting for %s (%s), which runs this very stage; its result will be taken", what, who)
		return
	}
	e.say("still waiting for %s (%s), %s so far", what, who, waited.Round(time.Second))
}

// holderFailed is the result of a waiter whose holder ended without success:
// the holder's status. It is nil where the holder's curi died, or nothing was
// run: then this call is the next try.
func (e *execution) holderFailed(ctx context.Context, holders []string) *Result {
	if e.batch != nil {
		return nil // those were who submitted the job, or looked after it
	}
	// The last ones may have been waiters too, who ran nothing.
	for _, holder := range slices.Backward(holders) {
		r, err := stages.FindRun(ctx, e.s, holder)
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			e.o.Log.Warn("read the run that was waited for", "run", holder, "error", err)
			return nil
		}
		switch r.Status {
		case stages.Failed, stages.Interrupted, stages.TimedOut:
			e.id = r.ID
			e.say("%s %s with exit status %d, and so does this call", r.ID, r.Status, r.Exit)
			return e.result(r.Exit)
		}
		return nil
	}
	return nil
}
