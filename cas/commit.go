package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/curi-store/curi/internal/fault"
)

// The one way into the store:
//
//	1. stage     every blob, outboard and tree that the store lacks is written
//	             to staging/<random>/, or is sealed where a program left it
//	2. barrier   all staged bytes are durable
//	3. lock      the commit lock, shared: from here on nothing is collected
//	4. check     what was found in the store while staging is still there;
//	             if not, the lock is dropped and that is staged again
//	5. blobs     outboards, then blobs are renamed into place
//	6. barrier   the names are durable
//	7. trees     are renamed into place, children before parents
//	8. barrier   a stored tree is whole, also after a crash
//	9. pin       the root, until the caller has named it by a ref
//
// A crash in the midst leaves at most blobs and trees that nothing names.

// manyFiles is the number of files from which on one syncfs is cheaper than an
// fsync each. Below it, what others write to the filesystem is not waited for.
const manyFiles = 32

// stagedTree is a tree that a batch is about to publish.
type stagedTree struct {
	digest Digest
	path   string // in staging; "" if the store has it
}

// tree stages t. All that it names must be in the store or in the batch, its
// sub-trees by an earlier call.
func (b *batch) tree(t *Tree) (Digest, error) {
	enc, err := t.Encode()
	if err != nil {
		return Digest{}, err
	}
	d := Sum(enc)
	if b.isTree[d] {
		return d, nil
	}
	b.isTree[d] = true
	st := stagedTree{digest: d}
	if !b.s.HasTree(d) {
		if st.path, err = b.write(enc); err != nil {
			return d, err
		}
	}
	b.trees = append(b.trees, st)
	return d, nil
}

// errMissing: blobs or trees that were in the store when the batch found them
// have been collected. The batch has forgotten them; stage them again.
type errMissing struct{ blobs map[Digest]bool }

func (e *errMissing) Error() string { return "what the store had was collected meanwhile" }

// publish puts everything into the store and pins root; what says for whom.
// It may fail with *errMissing, and be called again.
func (b *batch) publish(ctx context.Context, what string, root Digest) (*Pin, error) {
	fault.At(fault.PublishStaged)
	if b.take != nil {
		if err := b.take.hide(root); err != nil {
			return nil, err
		}
	}
	if err := b.syncStaged(); err != nil {
		return nil, err
	}
	fault.At(fault.PublishDurable)
	release, err := b.s.shareCommit(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := b.checkPresent(); err != nil {
		return nil, err
	}
	if err := b.publishBlobs(); err != nil {
		return nil, err
	}
	fault.At(fault.PublishBlobs)
	if err := b.publishReferences(ctx); err != nil {
		return nil, err
	}
	if err := b.publishTrees(); err != nil {
		return nil, err
	}
	fault.At(fault.PublishTrees)
	return b.s.Pin(ctx, what, root)
}

// syncStaged is the barrier before the renames.
func (b *batch) syncStaged() error {
	var paths []string
	for _, st := range b.blobs {
		if st.path != "" {
			paths = append(paths, st.path)
		}
		if st.outboard != "" {
			paths = append(paths, st.outboard)
		}
	}
	for _, t := range b.trees {
		if t.path != "" {
			paths = append(paths, t.path)
		}
	}
	return syncAll(paths, b.st.dir)
}

// syncAll makes the files or directories, all on dir's filesystem, durable.
func syncAll(paths []string, dir string) error {
	if len(paths) == 0 {
		return nil
	}
	each := syncDir
	if len(paths) >= manyFiles && runtime.GOOS == "linux" && syncFilesystem(dir) == nil {
		each = syncedFile
	}
	return parallel(context.Background(), len(paths), 8, func(_ context.Context, i int) error { return each(paths[i]) })
}

// parallel calls fn for 0 to n-1 from up to workers goroutines. The first error
// ends the context of the others, or the end of ctx does, and is returned.
func parallel(ctx context.Context, n, workers int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// checkPresent looks again for what the store had when it was asked first.
func (b *batch) checkPresent() error {
	missing := &errMissing{map[Digest]bool{}}
	for d, st := range b.blobs {
		if st.path == "" && !b.s.hasWholeBlob(d, st.size) {
			missing.blobs[d] = true
			delete(b.blobs, d)
		}
	}
	lost := false
	for _, t := range b.trees {
		lost = lost || t.path == "" && !b.s.HasTree(t.digest)
	}
	if !lost && len(missing.blobs) == 0 {
		return nil
	}
	b.forgetTrees() // few and quick to stage: all of them again
	return missing
}

// forgetTrees removes what is staged of trees.
func (b *batch) forgetTrees() {
	for _, t := range b.trees {
		if t.path != "" {
			os.Remove(t.path)
		}
	}
	b.trees, b.isTree = nil, map[Digest]bool{}
}

// publishBlobs renames outboards and blobs into place, durably.
func (b *batch) publishBlobs() error {
	dirs := map[string]bool{}
	// In order of names: neighbours share a directory.
	for _, d := range slices.SortedFunc(maps.Keys(b.blobs), func(x, y Digest) int { return bytes.Compare(x[:], y[:]) }) {
		st := b.blobs[d]
		if st.outboard != "" {
			to := b.s.outboardPath(d)
			if err := b.s.rename(st.outboard, to); err != nil {
				return fmt.Errorf("store the outboard of %s: %w", d.Short(), err)
			}
			st.outboard = ""
			dirs[filepath.Dir(to)] = true
		}
		if st.path == "" {
			continue
		}
		to := b.s.blobPath(d)
		if err := b.publishBlob(d, st, to); err != nil {
			return err
		}
		dirs[filepath.Dir(to)] = true
		st.path = ""
	}
	return syncNames(dirs)
}

// errRenameNew: look what is there and rename with more care.
var errRenameNew = errors.New("cannot simply be renamed")

// publishBlob moves one blob to its place, a sealed one only while nobody can
// have it open for writing.
func (b *batch) publishBlob(d Digest, st *staged, to string) error {
	fault.At(fault.PublishBlob)
	if st.sealed == nil {
		if err := renameNew(st.path, to); !errors.Is(err, errRenameNew) {
			return err
		}
	}
	switch {
	case b.s.hasWholeBlob(d, st.size):
		// Another add was faster. Its file may be in use: keep that one.
		if st.sealed == nil {
			os.Remove(st.path)
		}
		return nil
	case st.sealed != nil:
		return st.sealed.publish(b.s, to)
	}
	if err := b.s.rename(st.path, to); err != nil {
		return fmt.Errorf("store blob %s: %w", d.Short(), err)
	}
	return nil
}

// publishTrees renames the trees into place, children first, durably.
func (b *batch) publishTrees() error {
	dirs := map[string]bool{}
	for i := range b.trees {
		t := &b.trees[i]
		if t.path == "" {
			continue
		}
		to := b.s.treePath(t.digest)
		if b.s.HasTree(t.digest) {
			os.Remove(t.path)
		} else if err := b.s.rename(t.path, to); err != nil {
			return fmt.Errorf("store tree %s: %w", t.digest.Short(), err)
		}
		t.path = ""
		dirs[filepath.Dir(to)] = true
	}
	return syncNames(dirs)
}

// syncNames makes the names in dirs durable, and the names of dirs themselves,
// which may be new.
func syncNames(dirs map[string]bool) error {
	all := map[string]bool{}
	for d := range dirs {
		all[d] = true
		all[filepath.Dir(d)] = true
	}
	paths := make([]string, 0, len(all))
	for d := range all {
		paths = append(paths, d)
	}
	if len(paths) == 0 {
		return nil
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) })
	return syncAll(paths, paths[0])
}

// Close removes what is left in staging.
func (b *batch) Close() error { return b.st.Close() }
