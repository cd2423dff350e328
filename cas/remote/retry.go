package remote

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Patience bounds how long requests to a bucket are tried. The zero value is
// what [OpenURL] uses.
type Patience struct {
	// Tries is how often one request is made, at most; 0 means 6.
	Tries int
	// Timeout of one try, for a request without data; 0 means 30 s. One more
	// second is given for every 256 KiB. What comes in pieces has so long for
	// each of them.
	Timeout time.Duration
	// Wait before the second try, doubled for each that follows, up to 8 s and
	// drawn at random from its upper half; 0 means 200 ms.
	Wait time.Duration
}

func (p Patience) filled() Patience {
	if p.Tries == 0 {
		p.Tries = 6
	}
	if p.Timeout == 0 {
		p.Timeout = 30 * time.Second
	}
	if p.Wait == 0 {
		p.Wait = 200 * time.Millisecond
	}
	return p
}

const (
	maxWait   = 8 * time.Second
	slowBytes = 256 << 10 // a second
)

// patient is a bucket whose requests are made again where they may succeed
// then. Before the bucket answered for the first time there is one try: one
// that is away is to cost little.
type patient struct {
	Bucket
	p   Patience
	log *slog.Logger
	met chan struct{} // holds a value until the first answer
}

func newPatient(b Bucket, p Patience, log *slog.Logger) *patient {
	met := make(chan struct{}, 1)
	met <- struct{}{}
	return &patient{b, p.filled(), log, met}
}

// attempt is one try of a request, which ends when its time is up.
type attempt struct {
	context.Context
	limit time.Duration
	timer *time.Timer
	moved bool // a piece came
}

// came hands on a piece. The time that this takes is not the bucket's, and the
// next piece has as much as the first.
func (a *attempt) came(p []byte, got func([]byte) error) error {
	a.moved = true
	a.timer.Stop()
	defer a.timer.Reset(a.limit)
	return got(p)
}

// do makes one request of n bytes until it ends in something final.
func (b *patient) do(ctx context.Context, what, key string, n int, try func(a *attempt) error) error {
	wait := b.p.Wait
	for i := 1; ; i++ {
		limit := b.p.Timeout + time.Duration(n/slowBytes)*time.Second
		one, cancel := context.WithCancel(ctx)
		a := &attempt{Context: one, limit: limit, timer: time.AfterFunc(limit, cancel)}
		err := try(a)
		late := one.Err() != nil && ctx.Err() == nil
		a.timer.Stop()
		cancel()
		if err != nil && late {
			err = fmt.Errorf("%s %s: no answer within %s: %w", what, key, limit, ErrAway)
		}
		if a.moved {
			i, wait = 1, b.p.Wait
		}
		if a.moved || !errors.Is(err, ErrAway) && ctx.Err() == nil {
			select {
			case <-b.met:
			default:
			}
		}
		if !errors.Is(err, ErrAway) {
			return err
		}
		if i >= b.p.Tries {
			return fmt.Errorf("%w (tried %d times)", err, i)
		}
		if len(b.met) > 0 {
			return err
		}
		b.log.Debug("a request to the remote is made again", "what", what, "object", key, "try", i+1, "error", err)
		// Those who were refused together are not to come back together.
		t := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
		wait = min(2*wait, maxWait)
	}
}

func (b *patient) ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, err error) {
	err = b.do(ctx, "read", key, len(p), func(ctx *attempt) error {
		n, err = b.Bucket.ReadAt(ctx, key, p, off)
		return err
	})
	return n, err
}

func (b *patient) lend(ctx context.Context, key string, off int64, n int) (l loan, err error) {
	err = b.do(ctx, "read", key, n, func(ctx *attempt) error {
		l, err = lend(ctx, b.Bucket, key, off, n)
		return err
	})
	return l, err
}

func (b *patient) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	rest := restOf{off, n, got}
	return b.do(ctx, "read", key, int(min(n, pieceSize)), func(a *attempt) error {
		return readPieces(a, b.Bucket, key, rest.off, rest.n, func(p []byte) error { return a.came(p, rest.take) })
	})
}

func (b *patient) Stat(ctx context.Context, key string) (o Object, err error) {
	err = b.do(ctx, "look at", key, 0, func(ctx *attempt) error {
		o, err = b.Bucket.Stat(ctx, key)
		return err
	})
	return o, err
}

func (b *patient) Put(ctx context.Context, key string, data []byte) error {
	return b.do(ctx, "write", key, len(data), func(ctx *attempt) error { return b.Bucket.Put(ctx, key, data) })
}

// PutNew may be told that the object exists by a try that follows its own,
// whose answer was lost: as [Bucket] says, that is for the caller to find out.
func (b *patient) PutNew(ctx context.Context, key string, data []byte) error {
	return b.do(ctx, "write", key, len(data), func(ctx *attempt) error { return b.Bucket.PutNew(ctx, key, data) })
}

func (b *patient) Delete(ctx context.Context, key string) error {
	return b.do(ctx, "remove", key, 0, func(ctx *attempt) error { return b.Bucket.Delete(ctx, key) })
}

// List goes on behind the last object that came. Pages are gathered before
// they are handed out: the time that the caller takes is not the bucket's.
func (b *patient) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for full := true; full; {
			var page []Object
			full = false
			err := b.do(ctx, "list", prefix, 0, func(ctx *attempt) error {
				for o, err := range b.Bucket.List(ctx, prefix, after) {
					if err != nil {
						return err
					}
					page, after = append(page, o), o.Key
					if full = len(page) >= listPage; full {
						return nil
					}
				}
				return nil
			})
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
			}
			if err != nil {
				yield(Object{}, err)
				return
			}
		}
	}
}
