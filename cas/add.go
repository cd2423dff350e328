package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
)

// AddOptions of the Add functions.
type AddOptions struct {
	Move      bool     // take the files over (rename) instead of copying
	Reference bool     // record files where they are, without copying
	Follow    bool     // store what links that lead out of the path point to
	Exclude   []string // gitignore patterns beside .curiignore
	As        string   // the single file's name inside its tree, parents included; "" is its own
	Attrs     Attrs    // of the root tree; they win over the file's own user.curi.*
	Progress  Progress
}

// Added is a stored tree, pinned until Release. It is for one goroutine.
type Added struct {
	Tree   Digest
	Digest Digest // the file's own for a single file, else Tree
	Single bool   // one file
	Bytes  int64  // of all files, each counted as often as it is named
	Files  int64

	pin  *Pin
	take *taker // of files that were taken away; nil for all others
}

// Release ends the pin that keeps the tree from being collected, and removes
// what is left of files that were sealed or moved; call it once a ref names the
// tree. Calling it again does nothing.
func (a *Added) Release() {
	if a.take != nil {
		a.take.done()
		a.take = nil
	}
	if a.pin != nil {
		// The pin is void without its holder anyway.
		_ = a.pin.Release()
		a.pin = nil
	}
}

// Undo is Release for a caller that could not name the tree: files that were
// sealed or moved are put back first.
func (a *Added) Undo(ctx context.Context) error {
	var err error
	if a.take != nil {
		err = a.take.undo(context.WithoutCancel(ctx))
		a.take = nil
	}
	a.Release()
	return err
}

// AddPath stores the file or directory at path. What .curiignore files and
// o.Exclude name is left out, as is the store itself. A symlink at path is
// followed; one below it that leads out of it is an error unless o.Follow is
// set, as are FIFOs, sockets and devices. The errors that callers test for:
// [ErrNotFound], [ErrInvalid], [ErrChanged] for a file that changes while it
// is read, [ErrNoSpace], and with o.Move [ErrBusy].
//
// Where o.Move is set, the files are gone from path after [Added.Release]; those
// that are hard-linked from elsewhere are copied first. See [Store.Seal] for
// what happens if that never comes.
func (s *Store) AddPath(ctx context.Context, path string, o AddOptions) (*Added, error) {
	if o.Move && o.Reference {
		return nil, fmt.Errorf("add %s: it can be moved or referred to, not both: %w", path, ErrInvalid)
	}
	if o.Move {
		if err := s.PutBack(ctx, path); err != nil {
			return nil, fmt.Errorf("move: %w", err)
		}
	}
	sc := &scanner{ctx: ctx, follow: o.Follow, ignore: true, always: o.Exclude, store: s.dir}
	root, err := sc.scan(path)
	if err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	if rel, err := filepath.Rel(s.dir, root.src); err == nil && (rel == "." || o.Move && filepath.IsLocal(rel)) {
		return nil, fmt.Errorf("add %s: it lies in the store %s itself: %w", path, s.dir, ErrInvalid)
	}
	if o.Move {
		return s.take(ctx, root, takeOptions{verb: "move", as: o.As, attrs: o.Attrs, progress: o.Progress})
	}
	if o.Reference {
		if err := checkReferable(root); err != nil {
			return nil, err
		}
	}
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a := &adder{s: s, b: b, reference: o.Reference, seen: s.openStatCache()}
	a.count(root, o.Progress)
	if err := a.checkSpace(ctx, root, func(*node) bool { return !o.Reference }); err != nil {
		return nil, err
	}
	shape := treeShape{as: o.As, attrs: o.Attrs}
	added, err := a.run(ctx, root, shape, a.addFile)
	if err != nil {
		return nil, noSpace(err, s.dir)
	}
	a.seen.save()
	return added, nil
}

// AddReader stores r as a single file called name, or o.As if that is set.
// Move, Reference, Follow and Exclude do not apply.
func (s *Store) AddReader(ctx context.Context, r io.Reader, name string, o AddOptions) (*Added, error) {
	if o.As == "" {
		o.As = name
	}
	if _, err := splitAs(o.As); err != nil {
		return nil, fmt.Errorf("add from a stream: %w", err)
	}
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a := &adder{s: s, b: b}
	root := &node{name: o.As, kind: KindFile}
	a.count(root, o.Progress)
	root.digest, root.size, err = b.stream(ctx, r, a.meter.bytes)
	if err != nil {
		return nil, fmt.Errorf("add %s from a stream: %w", o.As, noSpace(err, s.dir))
	}
	a.meter.file()
	added, err := a.run(ctx, root, treeShape{as: o.As, attrs: o.Attrs}, func(ctx context.Context, n *node) error {
		if n.digest.IsZero() { // collected before it could be published, and the stream is gone
			return fmt.Errorf("the bytes were collected while they were added; try again: %w", ErrBusy)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("add %s from a stream: %w", o.As, noSpace(err, s.dir))
	}
	return added, nil
}

// adder stores the files of one root.
type adder struct {
	s         *Store
	b         *batch
	reference bool
	seen      *statCache // nil: every file is read
	meter     *meter

	mu    sync.Mutex
	links map[fileID]*linked // files with several names, by device and inode

	hashed map[*node]Digest // files that were read before, because space is tight
}

// linked is a file with several names, read once.
type linked struct {
	once   sync.Once
	digest Digest
	state  fileState
	err    error
}

// count begins to measure the progress of storing root.
func (a *adder) count(root *node, p Progress) {
	a.meter = &meter{fn: p}
	root.files(func(n *node) {
		a.meter.totalFiles++
		a.meter.totalBytes += n.size
	})
}

// run stores every file below root by store, then the trees, and publishes.
func (a *adder) run(ctx context.Context, root *node, shape treeShape, store func(context.Context, *node) error) (*Added, error) {
	var todo []*node
	root.files(func(n *node) { todo = append(todo, n) })
	for round := 0; ; round++ {
		if err := a.all(ctx, todo, store); err != nil {
			return nil, err
		}
		added, err := a.b.root(root, shape)
		if err != nil {
			return nil, err
		}
		added.pin, err = a.b.publish(ctx, "add", added.Tree)
		if err == nil {
			return added, nil
		}
		var missing *errMissing
		if !errors.As(err, &missing) || round == 10 {
			return nil, err
		}
		// A collection was faster: what it took is read again.
		a.links = nil
		todo = todo[:0]
		root.files(func(n *node) {
			if missing.blobs[n.digest] {
				n.digest = Digest{}
				a.seen.forget(n.state)
				todo = append(todo, n)
			}
		})
	}
}

// all calls store for the files, several at once: small files are bound by
// their number, large ones use every core by themselves.
func (a *adder) all(ctx context.Context, files []*node, store func(context.Context, *node) error) error {
	var small, large []*node
	for _, n := range files {
		if n.size > smallFile {
			large = append(large, n)
		} else {
			small = append(small, n)
		}
	}
	if err := parallel(ctx, len(small), addWorkers(), func(ctx context.Context, i int) error { return store(ctx, small[i]) }); err != nil {
		return err
	}
	return parallel(ctx, len(large), 2, func(ctx context.Context, i int) error { return store(ctx, large[i]) })
}

// addWorkers is how many small files are stored at once; each holds smallFile
// bytes.
func addWorkers() int { return max(4, min(2*runtime.GOMAXPROCS(0), 32)) }

// addFile stores one file of the file system, or finds that it is stored.
func (a *adder) addFile(ctx context.Context, n *node) error {
	if d, ok := a.known(n); ok && a.found(n, d) {
		n.digest = d
		a.meter.bytes(n.size)
	} else if n.state.nlink > 1 {
		if err := a.addLinked(ctx, n); err != nil {
			return err
		}
	} else if d, st, err := a.read(ctx, n); err != nil {
		return err
	} else {
		a.record(n, d, st)
	}
	var err error
	if n.attrs, err = metaXattrs(n.path()); err != nil {
		return fmt.Errorf("add %s: %w", n.path(), err)
	}
	a.meter.file()
	return nil
}

// known returns the digest of a file that need not be read.
func (a *adder) known(n *node) (Digest, bool) {
	if d, ok := a.seen.lookup(n); ok {
		return d, true
	}
	d, ok := a.hashed[n]
	if !ok {
		return d, false
	}
	now, err := lstatFile(n.path())
	return d, err == nil && n.state.same(now)
}

// found reports whether the blob of a file that was not read is still stored.
func (a *adder) found(n *node, d Digest) bool {
	if a.reference {
		if a.s.hasWholeBlob(d, n.size) {
			return !a.b.claim(d, n.size)
		}
		a.b.refer(d, n.path(), n.state)
		return true
	}
	if !a.s.hasWholeBlob(d, n.size) {
		return false
	}
	return !a.b.claim(d, n.size)
}

// record fills in what was read of n.
func (a *adder) record(n *node, d Digest, st fileState) {
	n.digest, n.state, n.size, n.kind = d, st, st.size, fileKind(st)
	a.seen.record(n, d)
}

// addLinked reads a file that has several names once.
func (a *adder) addLinked(ctx context.Context, n *node) error {
	key := fileID{n.state.dev, n.state.ino}
	a.mu.Lock()
	l := a.links[key]
	if l == nil {
		if a.links == nil {
			a.links = map[fileID]*linked{}
		}
		l = new(linked)
		a.links[key] = l
	}
	a.mu.Unlock()
	first := false
	l.once.Do(func() {
		first = true
		l.digest, l.state, l.err = a.read(ctx, n)
	})
	if l.err != nil {
		return l.err
	}
	if !first {
		a.meter.bytes(n.size)
	}
	a.record(n, l.digest, l.state)
	return nil
}

// read stores the bytes of n. A file that changes meanwhile is read once more.
func (a *adder) read(ctx context.Context, n *node) (Digest, fileState, error) {
	p, size := n.path(), n.size
	for try := 0; ; try++ {
		d, st, err := a.readOnce(ctx, p, size)
		switch {
		case err == nil:
			return d, st, nil
		case !errors.Is(err, errUnstable):
			return d, st, fmt.Errorf("add %s: %w", p, err)
		case try > 0:
			return d, st, fmt.Errorf("add %s: it changes while it is added; add it when its writer is done: %w", p, ErrChanged)
		}
		if now, err := lstatFile(p); err == nil {
			size = now.size
		}
	}
}

func (a *adder) readOnce(ctx context.Context, p string, size int64) (Digest, fileState, error) {
	if size <= smallFile && !a.reference {
		return a.b.smallFile(p, a.meter.bytes)
	}
	f, err := openSource(p)
	if err != nil {
		return Digest{}, fileState{}, err
	}
	defer f.Close()
	if a.reference {
		return a.b.reference(ctx, f, a.meter.bytes)
	}
	return a.b.file(ctx, f, a.meter.bytes)
}
