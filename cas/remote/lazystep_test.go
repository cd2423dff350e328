package remote

import (
	"bytes"
	"context"
	"io"
	"testing"
)

// stepBucket reads large parts as a helper does, in pieces: the first comes when
// it may be told, the rest when it is let go.
type stepBucket struct {
	Bucket
	asked chan struct{}
	tell  chan struct{} // closed when the first piece may come
	let   chan struct{} // closed when the rest may come
	flip  bool          // what comes first is damaged
}

func (b *stepBucket) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	p := make([]byte, n)
	if _, err := b.ReadAt(ctx, key, p, off); err != nil && err != io.EOF {
		return err
	}
	if n < 2*pieceSize {
		return got(p)
	}
	if b.flip {
		b.flip = false
		p[1] ^= 1
	}
	b.asked <- struct{}{}
	<-b.tell
	if err := got(p[:pieceSize]); err != nil {
		return err
	}
	<-b.let
	for p = p[pieceSize:]; len(p) > 0; p = p[min(len(p), pieceSize):] {
		if err := got(p[:min(len(p), pieceSize)]); err != nil {
			return err
		}
	}
	return nil
}

// awaited is a context that tells when somebody begins to wait with it.
type awaited struct {
	context.Context
	waits chan struct{}
}

func (c awaited) Done() <-chan struct{} {
	select {
	case c.waits <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

// TestLazyStep: who waits for bytes has them when they are here, while the rest
// of what was asked for with them is on its way.
func TestLazyStep(t *testing.T) {
	t.Parallel()
	data := randomBytes(9, 20<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data})
	for _, flip := range []bool{false, true} {
		s := newStore(t)
		counted := readerOf(t, s, dir)
		steps := &stepBucket{Bucket: counted, asked: make(chan struct{}, 100), tell: make(chan struct{}), let: make(chan struct{}), flip: flip}
		r := NewReader(s, BucketOptions{})
		r.open = func(context.Context, string, BucketOptions) (Bucket, error) { return steps, nil }
		s.UseRemotes(r)
		defer r.Close()
		f := openLazy(t, s, tree, "f")
		all := make(chan error, 1)
		large := make([]byte, 6<<20)
		go func() { _, err := f.Reader().ReadAt(t.Context(), large, 0); all <- err }()
		<-steps.asked
		first, got := make([]byte, 100_000), make(chan error, 1)
		ctx := awaited{t.Context(), make(chan struct{}, 1)}
		go func() { _, err := f.Reader().ReadAt(ctx, first, 900_000); got <- err }()
		<-ctx.waits
		close(steps.tell)
		if err := <-got; err != nil || !bytes.Equal(first, data[900_000:1_000_000]) {
			t.Errorf("what is here: %v", err)
		}
		if !flip { // else all of it came once more, in another way
			select {
			case err := <-all:
				t.Errorf("all of it is here before it came: %v", err)
			default:
			}
			if n := f.Local(); n != pieceSize {
				t.Errorf("%d bytes are here", n)
			}
		}
		close(steps.let)
		if err := <-all; err != nil || !bytes.Equal(large, data[:len(large)]) {
			t.Errorf("all of it: %v", err)
		}
		f.Close()
	}
}
