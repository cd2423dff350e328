package remote

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/curi-store/curi/cas"
)

// endingBucket fails reads of packs once it has given a number of bytes.
type endingBucket struct {
	Bucket
	left, read atomic.Int64
}

var errLine = errors.New("the line was cut")

func (b *endingBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if strings.HasPrefix(key, "packs/") {
		if b.left.Add(-int64(len(p))) < 0 {
			return 0, errLine
		}
		b.read.Add(int64(len(p)))
	}
	return b.Bucket.ReadAt(ctx, key, p, off)
}

// TestPullResumesInFile cuts pulls of one large file off, again and again: what
// came stays, in sum it comes once.
func TestPullResumesInFile(t *testing.T) {
	t.Parallel()
	const size = 9*segmentSize + 12345
	dir := filepath.Join(t.TempDir(), "bucket")
	a, s := newStore(t), newStore(t)
	tree := addFiles(t, a, map[string][]byte{"large": randomBytes(1, size), "small": []byte("x")})
	publish(t, newRemote(t, OpenDir(dir)), a, "m", tree)
	var read int64
	pull := 1
	for ; ; pull++ {
		b := &endingBucket{Bucket: OpenDir(dir)}
		b.left.Store(size / 2)
		added, err := newRemote(t, b).Pull(t.Context(), s, tree, PullOptions{Progress: func(done, total, _, _ int64) {
			if done > total {
				t.Errorf("%d of %d bytes", done, total)
			}
		}})
		read += b.read.Load()
		if err == nil {
			added.Release()
			if pull < 2 {
				t.Error("nothing was cut off")
			}
			break
		}
		if !errors.Is(err, errLine) || pull == 20 {
			t.Fatalf("pull %d: %v", pull, err)
		}
	}
	sameTree(t, tree, a, s)
	// What was under way when the line was cut comes twice.
	if read > size*5/4+int64(pull-1)*segmentsAtOnce*(segmentSize+1<<20) {
		t.Errorf("%d bytes were read for %d", read, size)
	}
	if _, err := s.OpenBlob(t.Context(), cas.Sum(randomBytes(1, size))); err != nil {
		t.Error(err)
	}
}
