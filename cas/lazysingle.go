package cas

import (
	"context"
	"fmt"
)

// AdoptFile is AdoptDir for a file that was met in a lazy tree: t, which has
// that one entry and is nowhere yet, then is a lazy tree by itself;
// [ErrNotFound] for others.
func (s *Store) AdoptFile(ctx context.Context, t *Tree) (*Added, error) {
	a, err := s.adoptFile(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("take over a file: %w", err)
	}
	return a, nil
}

func (s *Store) adoptFile(ctx context.Context, t *Tree) (*Added, error) {
	b, err := t.Encode()
	if err != nil {
		return nil, err
	}
	d := Sum(b)
	e, ok := t.onlyFile()
	if !ok {
		return nil, fmt.Errorf("tree %s has more: %w", d.Short(), ErrInvalid)
	}
	if s.HasTree(d) {
		return s.addedWhole(ctx, d)
	}
	if spot, ok := s.met(e.Digest); ok && !s.HasLazyTree(d) {
		if !spot.entry.IsRegular() || spot.entry.Size != e.Size {
			return nil, fmt.Errorf("%s is a %s of %d bytes: %w", e.Digest, spot.entry.Kind, spot.entry.Size, ErrInvalid)
		}
		in := lazyInside{Tree: spot.tree.whole(), Place: spot.entry.Place, Size: e.Size, Single: b}
		if err := s.adoptInside(ctx, d, spot.tree, in); err != nil {
			return nil, err
		}
	}
	return s.pinFar(ctx, "a file on a remote", d)
}

// onlyFile is the file of a tree that has nothing else.
func (t *Tree) onlyFile() (e Entry, ok bool) {
	if !t.Single || len(t.Entries) != 1 {
		return e, false
	}
	return t.Entries[0], t.Entries[0].IsRegular()
}

// lazySingle is a tree that no remote has, of a file in one that a remote has.
type lazySingle struct {
	RemoteTree
	t    *LazyTree
	tree *Tree
	file LazyEntry
}

// single makes the tree that the file of a lazy tree says out of the one that
// it lies in.
func (t *LazyTree) single(src RemoteTree) (RemoteTree, error) {
	in := t.file.In
	if in == nil || in.Single == nil {
		return src, nil
	}
	tree, err := ParseTree(in.Single)
	if err != nil {
		return nil, err
	}
	e, ok := tree.onlyFile()
	if !ok || Sum(in.Single) != t.root {
		return nil, fmt.Errorf("what is kept of tree %s is of another: %w", t.root, ErrCorrupt)
	}
	return &lazySingle{src, t, tree, LazyEntry{e, in.Place}}, nil
}

func (f *lazySingle) Files() int64 { return 1 }

func (f *lazySingle) Large(LazyEntry) bool { return false }

func (f *lazySingle) Tree(ctx context.Context, _ LazyEntry) (*Tree, []LazyEntry, error) {
	tree := *f.tree
	tree.Entries = []Entry{f.file.Entry} // the caller's
	return &tree, []LazyEntry{f.file}, ctx.Err()
}

func (f *lazySingle) Lookup(ctx context.Context, _ LazyEntry, name string) (LazyEntry, error) {
	if name != f.file.Name {
		return LazyEntry{}, fmt.Errorf("no %q in tree %s: %w", name, f.t.root.Short(), ErrNotFound)
	}
	return f.file, ctx.Err()
}

func (f *lazySingle) Pull(ctx context.Context, _ LazyEntry, progress Progress) (*Added, error) {
	file, err := f.t.OpenFile(ctx, f.file)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Complete(ctx, progress); err != nil {
		return nil, err
	}
	return f.t.s.AddTree(ctx, f.tree)
}
