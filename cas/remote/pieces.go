package remote

import (
	"context"
	"errors"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// pieceSize is how much of an object comes at once where it comes in pieces, in
// bytes: little enough that what was received on one core is still in the cache
// that all cores share when another one verifies it, and writes it to a file.
const pieceSize = 1 << 20

// pieceReader is a bucket that hands out a part of an object while it comes.
type pieceReader interface {
	// readPieces reads n bytes from off on, all of them, and calls got with one
	// piece after the other, each of pieceSize but the last. A piece is memory of
	// the bucket's and only lent for the call. An error of got ends the reading.
	// Where the object ends before, it is [io.EOF].
	readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error
}

// readPieces is [pieceReader] of any bucket.
func readPieces(ctx context.Context, b Bucket, key string, off, n int64, got func([]byte) error) error {
	if r, ok := b.(pieceReader); ok {
		return r.readPieces(ctx, key, off, n, got)
	}
	return readSegments(ctx, b, key, off, n, got)
}

// objectReader is the part of [Bucket] that reads.
type objectReader interface {
	ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error)
}

// readSegments is readPieces where a piece has to be as large as a segment: each
// is a request.
func readSegments(ctx context.Context, b objectReader, key string, off, n int64, got func([]byte) error) error {
	for n > 0 {
		k := min(n, segmentSize)
		p := getBody(int(k))
		have, err := b.ReadAt(ctx, key, p, off)
		if int64(have) == k {
			err = got(p)
		}
		putBody(p)
		if err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// packPieces is readPieces of a pack, where what lacks is an error of its own.
func packPieces(ctx context.Context, b Bucket, pack cas.Digest, off, n int64, got func([]byte) error) error {
	key := packKey(pack)
	err := readPieces(ctx, b, key, off, n, got)
	if errors.Is(err, cas.ErrNotFound) {
		return fmt.Errorf("%w; it may have been collected: curi remote fsck tells", err)
	}
	return cutOff(key, err)
}

// restOf is what lacks of a read in pieces: who tries again goes on with it.
type restOf struct {
	off, n int64
	got    func([]byte) error
}

func (r *restOf) take(p []byte) error {
	err := r.got(p)
	if err == nil {
		r.off, r.n = r.off+int64(len(p)), r.n-int64(len(p))
	}
	return err
}
