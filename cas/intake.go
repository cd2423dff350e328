package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Intake brings blobs and trees into the store whose digests are known before
// their bytes are: those of another store. Nothing enters that does not match
// its digest. Bytes and Reader may be called by several goroutines at once, the
// others only while none of them runs.
type Intake struct {
	b      *batch
	staged atomic.Int64
}

// NewIntake begins one; Close it.
func (s *Store) NewIntake() (*Intake, error) {
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	return &Intake{b: b}, nil
}

// Bytes stages a small blob. The bytes are not kept.
func (in *Intake) Bytes(d Digest, p []byte) error {
	if Sum(p) != d {
		return fmt.Errorf("%d bytes do not match the digest %s: %w", len(p), d, ErrCorrupt)
	}
	in.staged.Add(int64(len(p)))
	_, err := in.b.bytes(p)
	return err
}

// Reader stages the blob d, whose size bytes r yields.
func (in *Intake) Reader(ctx context.Context, d Digest, size int64, r io.Reader) error {
	if size <= smallFile {
		p := make([]byte, size)
		if _, err := io.ReadFull(r, p); err != nil {
			return err
		}
		return in.Bytes(d, p)
	}
	st, have, err := in.b.copyStream(ctx, io.LimitReader(r, size), func(n int64) { in.staged.Add(n) })
	if err == nil && (have != d || st.size != size) {
		err = fmt.Errorf("%d bytes do not match the digest %s: %w", st.size, d, ErrCorrupt)
	}
	if err == nil && in.b.claim(d, size) {
		in.b.put(d, st)
		return nil
	}
	if st != nil {
		os.Remove(st.path)
		os.Remove(st.outboard)
	}
	return err
}

// Staged is how many bytes came in since the last Flush or Publish.
func (in *Intake) Staged() int64 { return in.staged.Load() }

// Flush puts the blobs that are staged into the store, durably: what comes
// after may fail or be killed, they are there. Nothing names them yet, so that
// a collection may take them; Publish notices.
func (in *Intake) Flush(ctx context.Context) error {
	in.staged.Store(0)
	if err := in.b.syncStaged(); err != nil {
		return err
	}
	release, err := in.b.s.shareCommit(ctx)
	if err != nil {
		return err
	}
	defer release()
	return in.b.publishBlobs()
}

// Publish stores what is staged and the trees, each the encoding of one,
// children before parents, and pins the last. All that they name must be
// stored or staged. It may return missing blobs that were found in the store
// before and collected meanwhile: stage them and call it again.
func (in *Intake) Publish(ctx context.Context, trees [][]byte) (added *Added, missing []Digest, err error) {
	in.staged.Store(0)
	var root *Tree
	var d Digest
	for _, enc := range trees {
		if root, err = ParseTree(enc); err != nil {
			return nil, nil, err
		}
		for _, e := range root.Entries {
			if e.IsRegular() && !in.b.has(e.Digest, e.Size) {
				missing = append(missing, e.Digest)
			}
		}
		if d, err = in.b.tree(root); err != nil {
			return nil, nil, err
		}
	}
	if len(missing) == 0 {
		var gone *errMissing
		added = &Added{Tree: d, Digest: d, Single: root.Single, Bytes: root.Bytes()}
		added.pin, err = in.b.publish(ctx, "pull", d)
		if !errors.As(err, &gone) {
			return added, nil, err
		}
		for d := range gone.blobs {
			missing = append(missing, d)
		}
	}
	in.b.forgetTrees()
	return nil, missing, nil
}

// Close removes what is staged and was not published.
func (in *Intake) Close() error { return in.b.Close() }
