package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
)

// loan is memory that holds a part of an object. Whoever has it gives it back
// once, when nobody looks at it any more.
type loan struct {
	b    []byte
	back func()
}

// lender is a bucket that has the bytes of a part in memory of its own by the
// time it could hand them out: to lend that saves a copy.
type lender interface {
	// lend is [Bucket.ReadAt] of n bytes; of an object that ends before them
	// what is there, with [io.EOF].
	lend(ctx context.Context, key string, off int64, n int) (loan, error)
}

// lend borrows a part of an object from any bucket.
func lend(ctx context.Context, b Bucket, key string, off int64, n int) (loan, error) {
	if l, ok := b.(lender); ok {
		return l.lend(ctx, key, off, n)
	}
	p := getBody(n)
	k, err := b.ReadAt(ctx, key, p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		putBody(p)
		return loan{}, err
	}
	return loan{p[:k], func() { putBody(p) }}, err
}

// borrowPart borrows a part of a pack, all of it.
func borrowPart(ctx context.Context, b Bucket, pack cas.Digest, off int64, n int) (loan, error) {
	key := packKey(pack)
	l, err := lend(ctx, b, key, off, n)
	switch {
	case len(l.b) == n && (err == nil || errors.Is(err, io.EOF)):
		return l, nil
	case errors.Is(err, cas.ErrNotFound):
		err = fmt.Errorf("%w; it may have been collected: curi remote fsck tells", err)
	case err == nil:
		err = io.EOF
	}
	if l.back != nil {
		l.back()
	}
	return loan{}, cutOff(key, err)
}
