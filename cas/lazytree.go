package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
)

// LazyTree is an open lazy tree. It may be used by several goroutines at once,
// and need not be closed: the store keeps it.
type LazyTree struct {
	s     *Store
	root  Digest
	file  lazyFile
	pages *Pages
	keep  *keeper

	opening chan struct{} // holds a value unless somebody opens src

	mu  sync.Mutex
	src RemoteTree // nil until it is needed
}

// lazyTrees are the lazy trees that a store has open.
type lazyTrees struct {
	mu     sync.Mutex
	open   map[Digest]*LazyTree
	loaded []*LazyTree // those that hold something in memory, the one loaded last last
	index  map[Digest]lazySpot
}

// maxLoaded bounds how many lazy trees hold what a remote said of them in
// memory: each up to some tens of MiB. The others read it again from the disk.
const maxLoaded = 16

// load notes that a tree holds something in memory, which another may have to
// let go. Who reads from that one just then goes on.
func (l *lazyTrees) load(t *LazyTree) {
	l.mu.Lock()
	l.loaded = append(l.loaded, t)
	var old *LazyTree
	if len(l.loaded) > maxLoaded {
		old, l.loaded = l.loaded[0], l.loaded[1:]
	}
	l.mu.Unlock()
	if old != nil {
		old.mu.Lock()
		old.src = nil
		old.mu.Unlock()
	}
}

// lazySpot is where a directory or a file was met.
type lazySpot struct {
	tree  *LazyTree
	entry LazyEntry
}

// OpenLazyTree opens a lazy tree; [ErrNotFound] if the store knows no remote
// that has it. The remote is not asked before something of the tree is.
func (s *Store) OpenLazyTree(ctx context.Context, tree Digest) (*LazyTree, error) {
	s.lazy.mu.Lock()
	t := s.lazy.open[tree]
	s.lazy.mu.Unlock()
	if t != nil {
		return t, ctx.Err()
	}
	file, err := s.readLazy(tree)
	if err != nil {
		return nil, err
	}
	return s.openLazy(ctx, tree, file)
}

// OpenTreeOf is OpenLazyTree for a tree that remote has. What is read of it is
// kept where the store can be written to.
func (s *Store) OpenTreeOf(ctx context.Context, remote string, tree Digest) (*LazyTree, error) {
	if err := s.noteLazy(ctx, remote, tree); err != nil && !cannotWrite(err) {
		return nil, err
	}
	return s.openLazy(ctx, tree, lazyFile{Remotes: []string{remote}})
}

func (s *Store) openLazy(ctx context.Context, tree Digest, file lazyFile) (*LazyTree, error) {
	if s.remotes == nil {
		return nil, fmt.Errorf("tree %s lies on remote %s, and this program reads no remotes: %w", tree, file.Remotes[0], ErrNotFound)
	}
	s.lazy.mu.Lock()
	defer s.lazy.mu.Unlock()
	if s.lazy.open == nil {
		s.lazy.open = map[Digest]*LazyTree{}
	}
	t := s.lazy.open[tree]
	if t == nil {
		t = newLazyTree(s, tree, file)
		s.lazy.open[tree] = t
		s.touchLazy(tree)
	}
	return t, ctx.Err()
}

func newLazyTree(s *Store, tree Digest, file lazyFile) *LazyTree {
	t := &LazyTree{s: s, root: tree, file: file, pages: s.pages(tree), opening: make(chan struct{}, 1)}
	t.keep = &keeper{t: t}
	t.opening <- struct{}{}
	return t
}

// source opens the tree at the first remote that can.
func (t *LazyTree) source(ctx context.Context) (RemoteTree, error) {
	t.mu.Lock()
	src := t.src
	t.mu.Unlock()
	if src != nil {
		return src, nil
	}
	select {
	case <-t.opening:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { t.opening <- struct{}{} }()
	t.mu.Lock()
	src = t.src
	t.mu.Unlock()
	if src != nil {
		return src, nil
	}
	if t.file.Made != nil {
		src, err := t.made()
		if err == nil {
			t.mu.Lock()
			t.src = src
			t.mu.Unlock()
		}
		return src, err
	}
	var errs []error
	for _, remote := range t.file.Remotes {
		src, err := t.s.remotes.Open(ctx, remote, t.whole(), t.pages)
		if err == nil {
			t.mu.Lock()
			t.src = src
			t.mu.Unlock()
			t.s.lazy.load(t)
			return src, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, fmt.Errorf("no remote that should have it does: %w", joinLine(errs))
}

// joinLine is errors.Join on one line.
func joinLine(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// Reach opens the tree, from what is kept of it or at its remote: [ErrNotFound]
// where the remote does not have it.
func (t *LazyTree) Reach(ctx context.Context) error {
	_, err := t.source(ctx)
	return err
}

// Root is the tree's own entry.
func (t *LazyTree) Root(ctx context.Context) (LazyEntry, error) {
	src, err := t.source(ctx)
	if err != nil {
		return LazyEntry{}, t.failed("", err)
	}
	return t.rootOf(src), nil
}

// whole is the tree that the remotes have.
func (t *LazyTree) whole() Digest {
	if t.file.In != nil {
		return t.file.In.Tree
	}
	return t.root
}

// rootOf is the tree's own entry in src, which may hold more.
func (t *LazyTree) rootOf(src RemoteTree) LazyEntry {
	if in := t.file.In; in != nil {
		return LazyEntry{Entry{Kind: KindDir, Digest: t.root, Size: in.Size}, in.Place}
	}
	return src.Root()
}

func dirName(dir LazyEntry) string {
	if dir.Name == "" {
		return ""
	}
	return fmt.Sprintf("directory %q", dir.Name)
}

// Large reports whether a directory is better looked into than read.
func (t *LazyTree) Large(ctx context.Context, dir LazyEntry) (bool, error) {
	src, err := t.source(ctx)
	if err != nil {
		return false, t.failed(dirName(dir), err)
	}
	return src.Large(dir), nil
}

// Tree reads a directory of the tree.
func (t *LazyTree) Tree(ctx context.Context, dir LazyEntry) (*Tree, []LazyEntry, error) {
	src, err := t.source(ctx)
	if err != nil {
		return nil, nil, t.failed(dirName(dir), err)
	}
	tree, entries, err := src.Tree(ctx, dir)
	if err != nil {
		return nil, nil, t.failed(dirName(dir), err)
	}
	return tree, entries, nil
}

// Lookup finds a name in a directory of the tree; [ErrNotFound].
func (t *LazyTree) Lookup(ctx context.Context, dir LazyEntry, name string) (LazyEntry, error) {
	src, err := t.source(ctx)
	if err != nil {
		return LazyEntry{}, t.failed(fmt.Sprintf("%q", name), err)
	}
	return src.Lookup(ctx, dir, name)
}

// errRemote is an error of reading from a remote. That an object is missing
// there must not look like a name that is missing in the tree.
type errRemote struct{ err error }

func (e *errRemote) Error() string { return e.err.Error() }

func (e *errRemote) Is(target error) bool { return target != ErrNotFound && errors.Is(e.err, target) }

// failed words that something of the tree, or all of it, cannot be had.
func (t *LazyTree) failed(what string, err error) error {
	if what != "" {
		what += " of "
	}
	return &errRemote{fmt.Errorf("read %stree %s from remote %s: %w", what, t.root.Short(), t.file.Remotes[0], err)}
}

// maxLazyIndex bounds what a store remembers of lazy trees that are read by
// digest, in entries of about 200 bytes.
const maxLazyIndex = 4 << 20

// lazyTree reads a tree that is not in the store, by its digest: a lazy one, or
// a directory that was met in one. [ErrNotFound].
func (s *Store) lazyTree(ctx context.Context, d Digest) (*Tree, error) {
	spot, ok := s.met(d)
	if !ok {
		t, err := s.OpenLazyTree(ctx, d)
		if err != nil {
			return nil, err
		}
		root, err := t.Root(ctx)
		if err != nil {
			return nil, err
		}
		spot = lazySpot{t, root}
	}
	tree, entries, err := spot.tree.Tree(ctx, spot.entry)
	if err != nil {
		return nil, err
	}
	return tree, s.meet(spot.tree, entries)
}

func (s *Store) met(d Digest) (lazySpot, bool) {
	s.lazy.mu.Lock()
	defer s.lazy.mu.Unlock()
	spot, ok := s.lazy.index[d]
	return spot, ok
}

func (s *Store) meet(t *LazyTree, entries []LazyEntry) error {
	s.lazy.mu.Lock()
	defer s.lazy.mu.Unlock()
	if s.lazy.index == nil {
		s.lazy.index = map[Digest]lazySpot{}
	}
	for _, e := range entries {
		if !e.Digest.IsZero() {
			s.lazy.index[e.Digest] = lazySpot{t, e}
		}
	}
	if len(s.lazy.index) > maxLazyIndex {
		return fmt.Errorf("tree %s on remote %s has too many files to be gone through lazily; bring it first (curi pull --now): %w", t.root.Short(), t.file.Remotes[0], ErrInvalid)
	}
	return nil
}

// lazyLookup is Lookup for a tree that is not in the store: of a large directory
// it reads what it needs. The entry is met.
func (s *Store) lazyLookup(ctx context.Context, tree Digest, parts []string) (Entry, error) {
	t, err := s.OpenLazyTree(ctx, tree)
	if err != nil {
		return Entry{}, err
	}
	e, err := t.Root(ctx)
	for i := 0; i < len(parts) && err == nil; i++ {
		if e.Kind != KindDir {
			return Entry{}, fmt.Errorf("%q is a %s, not a directory: %w", path.Join(parts[:i]...), e.Kind, ErrNotFound)
		}
		e, err = t.Lookup(ctx, e, parts[i])
	}
	if err != nil {
		return Entry{}, err
	}
	return e.Entry, s.meet(t, []LazyEntry{e})
}

// lazyBlob brings a blob that was met in a lazy tree, whole; [ErrNotFound] if
// none was.
func (s *Store) lazyBlob(ctx context.Context, d Digest, progress Progress) error {
	spot, ok := s.met(d)
	if !ok {
		return fmt.Errorf("blob %s: %w", d, ErrNotFound)
	}
	f, err := spot.tree.OpenFile(ctx, spot.entry)
	if err != nil {
		return err
	}
	defer f.Close()
	if f.unkept != nil {
		return f.unkept
	}
	return f.Complete(ctx, progress)
}

// CopyBlob writes the bytes of a blob to w: from the store, else as they come
// from a remote ([Store.OpenBlob]), each verified before it is written.
func (s *Store) CopyBlob(ctx context.Context, w io.Writer, d Digest) error {
	spot, ok := s.met(d)
	if !ok || s.HasBlob(d) {
		b, err := s.OpenBlob(ctx, d)
		if err != nil {
			return err
		}
		defer b.Close()
		_, err = io.Copy(w, b)
		return err
	}
	f, err := spot.tree.OpenFile(ctx, spot.entry)
	if err != nil {
		return err
	}
	defer f.Close()
	r := f.Reader()
	buf := make([]byte, min(spot.entry.Size, 1<<20))
	for off := int64(0); off < spot.entry.Size; {
		n, err := r.ReadAt(ctx, buf, off)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	if err := f.Complete(ctx, nil); !cannotWrite(err) {
		return err
	}
	return nil // it is not kept, and came all the same
}

// LocalBytes is how many bytes of a blob of size bytes are here.
func (s *Store) LocalBytes(d Digest, size int64) int64 {
	if s.HasWholeBlob(d, size) {
		return size
	}
	return s.partialBytes(d, size)
}
