package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

const leaseKey = "00000000000000000000000000000000000000000000000000000000000000aa"

// quick are leases with the patience of a test.
func quick(silence time.Duration, wait func(context.Context, LeaseState) (bool, error)) LeaseOptions {
	return LeaseOptions{Beat: silence / 20, Silence: silence, Poll: 20 * time.Millisecond, Wait: wait}
}

// machines start one stage at once: one at a time has the lease, and those who
// find the result when that ends do not run.
func TestLeaseIsHeldByOne(t *testing.T) {
	for kind, open := range buckets(t) {
		t.Run(kind, func(t *testing.T) {
			b := open(t)
			defer b.Close()
			r := newRemote(t, b)
			var running, ran atomic.Int32
			var result atomic.Bool
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					l, err := r.Lease(t.Context(), leaseKey, LeaseHolder{Run: fmt.Sprint("train-", i)}, quick(time.Minute, func(_ context.Context, st LeaseState) (bool, error) {
						if st.Dead || !strings.HasPrefix(st.Run, "train-") {
							t.Errorf("a waiter sees %+v", st)
						}
						return st.Ended && result.Load(), nil
					}))
					if err != nil {
						t.Error(err)
					}
					if l == nil {
						return
					}
					if n := running.Add(1); n != 1 {
						t.Errorf("%d hold the lease", n)
					}
					// The first run fails: the next machine does it.
					result.Store(ran.Add(1) == 2)
					running.Add(-1)
					if lost, err := l.End(t.Context(), 1); lost || err != nil {
						t.Errorf("end: lost %v, %v", lost, err)
					}
				})
			}
			wg.Wait()
			if n := ran.Load(); n != 2 {
				t.Errorf("%d ran, want the one that failed and one more", n)
			}
		})
	}
}

// lineBucket can be cut off from what others see: writes fail, reads too.
type lineBucket struct {
	Bucket
	cut    atomic.Bool
	writes atomic.Int32
}

func (b *lineBucket) err() error {
	if b.cut.Load() {
		return fmt.Errorf("the line is cut: %w", ErrAway)
	}
	return nil
}

func (b *lineBucket) Put(ctx context.Context, key string, data []byte) error {
	if err := b.err(); err != nil {
		return err
	}
	b.writes.Add(1)
	return b.Bucket.Put(ctx, key, data)
}

func (b *lineBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := b.err(); err != nil {
		return 0, err
	}
	return b.Bucket.ReadAt(ctx, key, p, off)
}

func (b *lineBucket) Stat(ctx context.Context, key string) (Object, error) {
	if err := b.err(); err != nil {
		return Object{}, err
	}
	return b.Bucket.Stat(ctx, key)
}

func never(_ context.Context, st LeaseState) (bool, error) {
	return false, fmt.Errorf("unexpected: %+v", st)
}

func TestLeaseOfTheSilentIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	line := &lineBucket{Bucket: OpenDir(dir)}
	first, err := newRemote(t, line).Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-1", By: "ada@node7"}, quick(time.Second, never))
	if err != nil {
		t.Fatal(err)
	}
	// It lives: however long another waits, he waits.
	other := newRemote(t, OpenDir(dir))
	var cut time.Time
	began, dead := time.Now(), false
	second, err := other.Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-2"}, quick(time.Second, func(_ context.Context, st LeaseState) (bool, error) {
		switch {
		case cut.IsZero() && st.Dead:
			t.Errorf("the living is dead: %+v", st)
		case cut.IsZero() && time.Since(began) > 2500*time.Millisecond && line.writes.Load() > 5:
			cut = time.Now()
			line.cut.Store(true)
		}
		dead = dead || st.Dead && st.Run == "train-1" && st.By == "ada@node7"
		return false, nil
	}))
	if err != nil || second == nil || !dead {
		t.Fatalf("the dead is not taken over: %v, seen dead: %v", err, dead)
	}
	line.cut.Store(false)
	if lost, err := first.End(t.Context(), 0); !lost || err != nil {
		t.Errorf("the end of a lease that another took: lost %v, %v", lost, err)
	}
	// What the first does then does not end the second's.
	_, err = other.Lease(t.Context(), leaseKey, LeaseHolder{}, quick(time.Minute, func(_ context.Context, st LeaseState) (bool, error) {
		if st.Run != "train-2" || st.Ended {
			t.Errorf("a third sees %+v", st)
		}
		return true, nil
	}))
	if err != nil {
		t.Error(err)
	}
	if lost, err := second.End(t.Context(), 7); lost || err != nil {
		t.Errorf("end: lost %v, %v", lost, err)
	}
	third, err := other.Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-3"}, quick(time.Minute, func(_ context.Context, st LeaseState) (bool, error) {
		if st.Run != "train-2" || !st.Ended || st.Exit != 7 {
			t.Errorf("a fourth sees %+v", st)
		}
		return false, nil
	}))
	if err != nil || third == nil {
		t.Fatalf("after the end: %v", err)
	}
	third.End(t.Context(), 0)
}

// A remote that stops answering is nobody's silence, and ends the waiting.
func TestLeaseWaitEndsWhenTheRemoteIsAway(t *testing.T) {
	dir := t.TempDir()
	l, err := newRemote(t, OpenDir(dir)).Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-1"}, quick(time.Second, never))
	if err != nil {
		t.Fatal(err)
	}
	defer l.End(t.Context(), 0)
	line := &lineBucket{Bucket: OpenDir(dir)}
	got, err := newRemote(t, line).Lease(t.Context(), leaseKey, LeaseHolder{}, quick(time.Second, func(_ context.Context, st LeaseState) (bool, error) {
		line.cut.Store(true)
		if st.Dead {
			t.Errorf("dead, for a waiter who is cut off: %+v", st)
		}
		return false, nil
	}))
	if got != nil || !errors.Is(err, ErrAway) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = newRemote(t, OpenDir(dir)).Lease(ctx, leaseKey, LeaseHolder{}, quick(time.Minute, func(context.Context, LeaseState) (bool, error) {
		cancel()
		return false, nil
	}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("of a waiter who was ended: %v", err)
	}
}

// deafBucket does not hear the answer to its first creation.
type deafBucket struct {
	Bucket
	done bool
}

func (b *deafBucket) PutNew(ctx context.Context, key string, data []byte) error {
	err := b.Bucket.PutNew(ctx, key, data)
	if err == nil && !b.done && strings.HasPrefix(key, leaseRoom) {
		b.done = true
		return b.Bucket.PutNew(ctx, key, data)
	}
	return err
}

func TestLeaseKnowsItsOwn(t *testing.T) {
	dir := t.TempDir()
	l, err := newRemote(t, &deafBucket{Bucket: OpenDir(dir)}).Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-1"}, quick(time.Minute, never))
	if err != nil || l == nil {
		t.Fatalf("the answer was lost: %v", err)
	}
	if lost, err := l.End(t.Context(), 0); lost || err != nil {
		t.Errorf("end: lost %v, %v", lost, err)
	}
}

// A collection leaves leases that live, and takes those nobody speaks for.
func TestLeasesAreCollected(t *testing.T) {
	dir := t.TempDir()
	r := newRemote(t, OpenDir(dir))
	l, err := r.Lease(t.Context(), leaseKey, LeaseHolder{Run: "train-1"}, quick(time.Minute, never))
	if err != nil {
		t.Fatal(err)
	}
	left := func(now time.Time) (n int) {
		var done Collected
		if err := r.sweepLeases(t.Context(), now, 0, &done); err != nil {
			t.Fatal(err)
		}
		for range r.b.List(t.Context(), leaseRoom, "") {
			n++
		}
		return n
	}
	if n := left(time.Now()); n != 1 {
		t.Errorf("%d leases are left beside a holder, want his", n)
	}
	if n := left(time.Now().Add(25 * time.Hour)); n != 0 {
		t.Errorf("%d leases are left after a day without a sign of life", n)
	}
	if _, err := l.End(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if _, err := r.Lease(t.Context(), "x", LeaseHolder{}, LeaseOptions{}); !errors.Is(err, cas.ErrInvalid) {
		t.Errorf("of no key: %v", err)
	}
}

// Who knows a lease for his own takes it over at once; who had it has not lost
// it, and says nothing of his end.
func TestLeaseIsHandedOver(t *testing.T) {
	r := newRemote(t, OpenDir(t.TempDir()))
	mine := quick(time.Hour, never)
	mine.Mine = func(h LeaseHolder) bool { return strings.HasPrefix(h.Run, "mine-") }
	first, err := r.Lease(t.Context(), leaseKey, LeaseHolder{Run: "mine-1"}, mine)
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Lease(t.Context(), leaseKey, LeaseHolder{Run: "mine-2"}, mine)
	if err != nil {
		t.Fatal(err)
	}
	if lost, err := first.End(t.Context(), 1); lost || err != nil {
		t.Errorf("the first ends: lost %v, %v", lost, err)
	}
	second.Leave()
	met := 0
	third, err := r.Lease(t.Context(), leaseKey, LeaseHolder{Run: "other"}, quick(100*time.Millisecond, func(_ context.Context, st LeaseState) (bool, error) {
		met++
		if st.Run != "mine-2" || st.Ended {
			t.Errorf("another sees %+v", st)
		}
		return false, nil
	}))
	if err != nil || met == 0 {
		t.Fatalf("another met it %d times: %v", met, err)
	}
	third.Leave()
	if lost, err := second.End(t.Context(), 0); !lost || err != nil {
		t.Errorf("after another took it over: lost %v, %v", lost, err)
	}
}
