package cas

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"unicode/utf8"
)

// pendingReference is a file that a batch is about to record where it lies.
type pendingReference struct {
	digest Digest
	path   string // absolute
	state  fileState
}

// checkReferable refuses what a record of references, which is JSON, cannot
// hold: a path that is no text would lead nowhere afterwards.
func checkReferable(root *node) (err error) {
	root.files(func(n *node) {
		if err == nil && !utf8.ValidString(n.path()) {
			err = fmt.Errorf("add %q: a file whose path is no UTF-8 cannot be referred to: rename it, or store a copy (without --reference): %w", n.path(), ErrInvalid)
		}
	})
	return err
}

// refer makes the batch record that the file at path holds the blob d.
func (b *batch) refer(d Digest, path string, st fileState) {
	b.mu.Lock()
	b.references = append(b.references, pendingReference{d, path, st})
	b.mu.Unlock()
}

// reference hashes the open file f and makes the batch record it, unless the
// store has the bytes itself.
func (b *batch) reference(ctx context.Context, f *os.File, progress func(int64)) (Digest, fileState, error) {
	before, err := fstatFile(f)
	if err != nil {
		return Digest{}, before, err
	}
	d, err := hashFile(ctx, &meteredReader{sparseSource(f, before), progress}, before.size, nil)
	if err == nil {
		err = unchanged(f, before)
	}
	if err != nil {
		return d, before, err
	}
	if b.s.hasWholeBlob(d, before.size) && !b.claim(d, before.size) {
		return d, before, nil
	}
	b.refer(d, f.Name(), before)
	return d, before, nil
}

// publishReferences records the files; the commit lock is held.
func (b *batch) publishReferences(ctx context.Context) error {
	if len(b.references) == 0 {
		return nil
	}
	// Each record is read and written anew: one at a time for each blob, or
	// files would be forgotten.
	release, err := b.s.lockAlone(ctx, "references")
	if err != nil {
		return err
	}
	defer release()
	same := map[Digest][]*pendingReference{}
	for i := range b.references {
		r := &b.references[i]
		same[r.digest] = append(same[r.digest], r)
	}
	all := slices.Collect(maps.Values(same))
	return parallel(ctx, len(all), 8, func(_ context.Context, i int) error {
		for _, r := range all[i] {
			if err := b.s.putReference(r.digest, r.path, r.state); err != nil {
				return fmt.Errorf("refer to %s: %w", r.path, err)
			}
		}
		return nil
	})
}
