package remote

import (
	"context"
	"errors"
	"io"
)

// Opener is a bucket that reads a part of an object as it comes.
type Opener interface {
	// Open begins to read n bytes of an object from off on, or as many as there
	// are; all of them where n is negative. An answer that was cut off is an
	// error that is not [io.EOF].
	Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
}

// openPart opens a part of an object of any bucket.
func openPart(ctx context.Context, b Bucket, key string, off, n int64) (io.ReadCloser, error) {
	if o, ok := b.(Opener); ok {
		if off <= wholeSlack && off+n >= packSize-wholeSlack {
			return openWhole(ctx, o, key, off, n)
		}
		return o.Open(ctx, key, off, n)
	}
	return io.NopCloser(io.NewSectionReader(readerAt(func(p []byte, off int64) (int, error) { return b.ReadAt(ctx, key, p, off) }), off, n)), nil
}

// wholeSlack is how many bytes may lack at each end of what is wanted of a pack
// that is asked for whole. Nothing has to be sought then: servers send a whole
// object straight from the file.
const wholeSlack = 64 << 10

// openWhole is Open of most of a pack.
func openWhole(ctx context.Context, o Opener, key string, off, n int64) (io.ReadCloser, error) {
	r, err := o.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, off); err != nil && !errors.Is(err, io.EOF) {
		r.Close()
		return nil, err
	}
	return &wholePack{io.LimitReader(r, n), r}, nil
}

type wholePack struct {
	io.Reader
	r io.ReadCloser
}

// Close takes the little that is left, if it is little, so that the connection
// can be used again.
func (w *wholePack) Close() error {
	_, _ = io.CopyN(io.Discard, w.r, 2*(wholeSlack+maxChunk))
	return w.r.Close()
}

type readerAt func(p []byte, off int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }
