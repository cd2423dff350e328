package remote

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"
)

// linkTo is a connection that is made.
func linkTo(b Bucket) *link {
	l := newLink("team", "", BucketOptions{Logger: slog.New(slog.DiscardHandler)})
	l.b = b
	return l
}

// slowBucket answers when it may.
type slowBucket struct {
	Bucket
	asked chan string
	let   chan error
}

func (b *slowBucket) ReadAt(_ context.Context, key string, p []byte, _ int64) (int, error) {
	b.asked <- key
	return len(p), <-b.let
}

// Of a remote that was away one request finds out whether it is back, and
// others wait for that: were they refused, they would end the one that asks
// where both are for one range, and it would never be back.
func TestLinkBack(t *testing.T) {
	t.Parallel()
	for _, still := range []bool{false, true} {
		b := &slowBucket{asked: make(chan string, 2), let: make(chan error)}
		l := linkTo(b)
		l.away = away{err: ErrAway, wait: time.Second, until: time.Now()}
		read := func(key string) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := l.ReadAt(t.Context(), key, make([]byte, 1), 0)
				done <- err
			}()
			return done
		}
		first := read("a")
		<-b.asked
		second := read("b")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.ReadAt(gone, "c", make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
			t.Errorf("who wants no more: %v", err)
		}
		if still {
			b.let <- ErrAway
			if a, b := <-first, <-second; !errors.Is(a, ErrAway) || !errors.Is(b, ErrAway) {
				t.Errorf("still away: %v, %v", a, b)
			}
			continue
		}
		select {
		case err := <-second:
			t.Fatalf("before it is known: %v", err)
		case b.let <- nil:
		}
		<-b.asked
		b.let <- nil
		if a, b := <-first, <-second; a != nil || b != nil {
			t.Errorf("back: %v, %v", a, b)
		}
	}
}
