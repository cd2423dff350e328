package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Bucket is a flat set of objects, each written whole and read in parts. All
// methods may be called by several goroutines and machines at once. Keys are
// clean slash-separated paths ([CheckKey]).
//
// Only PutNew decides between writers who race: exactly one of those that
// write one key succeeds, whatever the bucket is.
type Bucket interface {
	// ReadAt fills p from offset off of the object and returns how much was
	// there: less than len(p) only with an error, which is [io.EOF] where the
	// object ends. Missing: [cas.ErrNotFound].
	ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error)
	// Stat describes an object; [cas.ErrNotFound].
	Stat(ctx context.Context, key string) (Object, error)
	// Put creates or replaces an object. Readers see the old or the new bytes.
	// It is durable when Put returns.
	Put(ctx context.Context, key string, data []byte) error
	// PutNew creates an object, durably; [cas.ErrExists] if there is one. Where
	// an answer was lost, ErrExists may mean the caller's own object.
	PutNew(ctx context.Context, key string, data []byte) error
	// List yields the objects whose keys begin with prefix and come after
	// after, in ascending order of keys.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, key string) error
	// Close ends the connections.
	Close() error
}

// Object describes an object of a bucket.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time // by the bucket's clock
}

// maxKey bounds keys, in bytes; every object store takes as much.
const maxKey = 900

// CheckKey reports why key cannot be one; the error wraps [cas.ErrInvalid].
func CheckKey(key string) error {
	bad := key == "" || len(key) > maxKey
	for part := range strings.SplitSeq(key, "/") {
		bad = bad || part == "" || part[0] == '.' || len(part) > 255
		for i := range len(part) {
			bad = bad || part[i] < 0x21 || part[i] > 0x7e || part[i] == '\\'
		}
	}
	if bad {
		return fmt.Errorf("object key %q: %w", key, cas.ErrInvalid)
	}
	return nil
}

// readAll returns a whole object of at most limit bytes.
func readAll(ctx context.Context, b Bucket, key string, limit int64) ([]byte, error) {
	// Most objects are small: the first read nearly always has all.
	p := make([]byte, min(limit+1, 64<<10))
	n, err := b.ReadAt(ctx, key, p, 0)
	if errors.Is(err, io.EOF) {
		return p[:n], nil
	}
	if err != nil {
		return nil, err
	}
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if o.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d can be right: %w", key, o.Size, limit, cas.ErrCorrupt)
	}
	if o.Size < int64(n) {
		return nil, fmt.Errorf("%s became shorter while it was read: %w", key, cas.ErrCorrupt)
	}
	all := make([]byte, o.Size)
	copy(all, p[:n])
	if m, err := b.ReadAt(ctx, key, all[n:], int64(n)); err != nil && !(errors.Is(err, io.EOF) && n+m == len(all)) {
		return nil, cutOff(key, err)
	}
	return all, nil
}

// cutOff words the end of an object that came too early.
func cutOff(key string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s is cut off: %w", key, cas.ErrCorrupt)
	}
	return err
}
