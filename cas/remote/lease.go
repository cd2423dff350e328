package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// A lease tells other machines that the stage of a key runs, so that they wait
// for its result. It saves work and decides nothing: where two run one key all
// the same, the first result that is published stays.
//
// lease/<key>/<n> is the n-th lease of a key; the highest counts. Its holder
// rewrites it as a sign of life. Whoever saw no such sign for long enough, by
// his own clock, creates the next one.
const leaseRoom = "lease/"

// LeaseHolder is who holds a lease, as he says.
type LeaseHolder struct {
	Run   string    `json:"run"`
	By    string    `json:"by"`    // "ada@node7"
	Since time.Time `json:"since"` // by his clock: for people
}

// LeaseState is a lease of another machine, as a waiter sees it.
type LeaseState struct {
	LeaseHolder
	Ended  bool          // the run has ended
	Exit   int           // then: its exit status
	Silent time.Duration // how long it gave no sign of life
	Dead   bool          // that is too long
}

// LeaseOptions of [Remote.Lease].
type LeaseOptions struct {
	Beat    time.Duration // between a holder's signs of life; 0: 15 s
	Silence time.Duration // after which a waiter takes over, several Beats; 0: 90 s
	Poll    time.Duration // between the looks of a waiter, at most; 0: 5 s

	// Mine, if it is set, reports whether a lease that has not ended is of the
	// caller's own: whoever took it runs no more, or leaves the run to the caller.
	// Such a one is taken over at once, and one that goes so is not lost.
	Mine func(LeaseHolder) bool

	// Wait is told what another machine's lease looks like: once when it is
	// met, then at every look. Where it has ended or is dead, Wait has to look
	// for the result. The waiting ends, without a lease, where Wait says so or
	// fails.
	Wait func(context.Context, LeaseState) (stop bool, err error)
}

func (o *LeaseOptions) fill() {
	if o.Beat == 0 {
		o.Beat = 15 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 90 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 5 * time.Second
	}
}

type leaseJSON struct {
	LeaseHolder
	Beats int    `json:"beats"`
	Ended bool   `json:"ended,omitempty"`
	Exit  int    `json:"exit_status,omitempty"`
	Token string `json:"token"`
}

// Lease is a lease that is held: it shows that this process lives, from a
// goroutine of its own, until [Lease.End].
type Lease struct {
	s    series
	n    int
	o    LeaseOptions
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{} // closed when no more signs of life are given

	// Of the goroutine, and after it of End.
	me     leaseJSON
	taken  bool // by another
	handed bool // to one of the holder's own
}

// Lease takes the lease of a key for me, as soon as no living machine has it.
// It is nil where o.Wait ended the waiting. An error that wraps [ErrAway] means
// that the remote stopped answering: then there is nobody to wait for.
func (r *Remote) Lease(ctx context.Context, key string, me LeaseHolder, o LeaseOptions) (*Lease, error) {
	if _, err := cas.ParseDigest(key); err != nil {
		return nil, fmt.Errorf("key %q: %w", key, cas.ErrInvalid)
	}
	o.fill()
	l, err := r.lease(ctx, series{r.b, leaseRoom + key}, me, o)
	if err != nil {
		return nil, fmt.Errorf("take the lease of key %.8s: %w", key, err)
	}
	return l, nil
}

func (r *Remote) lease(ctx context.Context, s series, me LeaseHolder, o LeaseOptions) (*Lease, error) {
	mine := leaseJSON{LeaseHolder: me, Token: newToken()}
	line, err := json.Marshal(mine)
	if err != nil {
		return nil, err
	}
	for {
		ns, err := s.numbers(ctx)
		if err != nil {
			return nil, err
		}
		n := 0 // the newest that is known
		if len(ns) > 0 {
			n = ns[len(ns)-1]
		}
		for ; ; n++ {
			if n > 0 {
				stop, err := watchLease(ctx, s, n, o)
				if errors.Is(err, cas.ErrNotFound) {
					break // a collection took it: look again
				}
				if stop || err != nil {
					return nil, err
				}
			}
			err := s.create(ctx, n+1, line)
			if err == nil {
				return r.hold(ctx, s, n+1, mine, o), nil
			}
			if !errors.Is(err, cas.ErrExists) {
				return nil, err
			}
		}
	}
}

// watchLease waits until lease n has ended or gives no sign of life.
func watchLease(ctx context.Context, s series, n int, o LeaseOptions) (stop bool, err error) {
	var (
		last   string // what the object was
		st     LeaseState
		answer = time.Now() // of the bucket, the last
		pause  = min(o.Poll, 250*time.Millisecond)
	)
	for {
		b, err := s.read(ctx, n)
		if errors.Is(err, cas.ErrCorrupt) {
			b, err = []byte(err.Error()), nil // somebody's, who may mend it
		}
		switch {
		case err == nil:
			// Only time counts in which the bucket answered: while it does
			// not, nobody can give a sign to it.
			silent := min(time.Since(answer), 2*pause)
			answer = time.Now()
			if string(b) != last {
				last, st.Silent = string(b), 0
			} else {
				st.Silent += silent
			}
			var l leaseJSON
			if json.Unmarshal(b, &l) == nil {
				st.LeaseHolder, st.Ended, st.Exit = l.LeaseHolder, l.Ended, l.Exit
			}
			if !st.Ended && o.Mine != nil && o.Mine(st.LeaseHolder) {
				return false, nil
			}
			st.Dead = !st.Ended && st.Silent > o.Silence
			if stop, err := o.Wait(ctx, st); stop || err != nil || st.Ended || st.Dead {
				return stop, err
			}
		case !errors.Is(err, ErrAway) || time.Since(answer) > o.Silence:
			return false, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		}
		pause = min(pause*3/2, o.Poll)
	}
}

// hold begins to give signs of life.
func (r *Remote) hold(ctx context.Context, s series, n int, me leaseJSON, o LeaseOptions) *Lease {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &Lease{s: s, n: n, o: o, log: r.log, me: me, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		t := time.NewTicker(o.Beat)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				l.beat(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

// beat gives one sign of life, unless another took the lease over.
func (l *Lease) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Silence)
	defer cancel()
	if l.look(ctx) {
		return
	}
	l.me.Beats++
	fault.At(fault.LeaseBeat)
	if err := l.write(ctx); err != nil && ctx.Err() == nil {
		l.log.Debug("no sign of life could be given to the remote", "lease", l.s.key(l.n), "error", err)
	}
	fault.At(fault.LeaseBeaten)
}

// look finds out whether another took the lease over.
func (l *Lease) look(ctx context.Context) bool {
	if l.taken {
		return true
	}
	if _, err := l.s.b.Stat(ctx, l.s.key(l.n+1)); err != nil {
		return false
	}
	l.taken = true
	var by leaseJSON
	if b, err := l.s.read(ctx, l.n+1); err == nil && l.o.Mine != nil && json.Unmarshal(b, &by) == nil {
		l.handed = l.o.Mine(by.LeaseHolder)
	}
	return true
}

func (l *Lease) write(ctx context.Context) error {
	b, err := json.Marshal(l.me)
	if err != nil {
		return err
	}
	return l.s.b.Put(ctx, l.s.key(l.n), seal(b))
}

// End tells those who wait how the run ended. Without it they wait until they
// miss the signs of life. It reports whether another machine took the lease
// over before, as this one gave none for too long.
func (l *Lease) End(ctx context.Context, exit int) (lost bool, err error) {
	l.stop()
	<-l.done
	if l.look(ctx) {
		return !l.handed, nil
	}
	l.me.Ended, l.me.Exit = true, exit
	if err := l.write(ctx); err != nil {
		return false, fmt.Errorf("end the lease %s: %w", l.s.key(l.n), err)
	}
	return false, nil
}

// Leave ends the signs of life, for another to take the lease over: as Mine
// of [LeaseOptions] says at once, else when he misses them.
func (l *Lease) Leave() {
	l.stop()
	<-l.done
}

// sweepLeases removes the leases that nobody gave a sign of life to for a
// grace, by the bucket's clock.
func (r *Remote) sweepLeases(ctx context.Context, now time.Time, grace time.Duration, done *Collected) error {
	old := now.Add(-max(grace, time.Hour)) // a holder may be about to
	for o, err := range r.b.List(ctx, leaseRoom, "") {
		if err != nil {
			return err
		}
		i := strings.LastIndexByte(o.Key, '/')
		if seriesNumber(o.Key[i+1:]) == 0 || !o.ModTime.Before(old) {
			continue
		}
		if err := r.b.Delete(ctx, o.Key); err != nil {
			return err
		}
		done.Removed++
		done.RemovedBytes += o.Size
	}
	return nil
}
