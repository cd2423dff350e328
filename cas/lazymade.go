package cas

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// lazyMade is a lazy tree that no remote has: its own entries are known, and
// what they name lies in trees that remotes have, or is stored. A file of a
// larger tree is one, as an artifact of its own; so is a directory in which
// results are gathered.
type lazyMade struct {
	Tree []byte     `json:"tree"` // its encoding
	Of   []lazyPart `json:"of"`
}

// lazyPart is where an entry lies that is not stored.
type lazyPart struct {
	Name    string     `json:"name"`
	Remotes []string   `json:"remotes"`
	In      lazyInside `json:"in"`
}

// AdoptMade is Adopt for a tree of the caller's, whose entries are stored or
// were met in lazy trees; [ErrNotFound] for others. If all are stored, it is, too.
func (s *Store) AdoptMade(ctx context.Context, t *Tree) (*Added, error) {
	a, err := s.adoptMade(ctx, t)
	if err != nil {
		return nil, fmt.Errorf("take over what a tree is made of: %w", err)
	}
	return a, nil
}

func (s *Store) adoptMade(ctx context.Context, t *Tree) (*Added, error) {
	b, err := t.Encode()
	if err != nil {
		return nil, err
	}
	f := lazyFile{Made: &lazyMade{Tree: b}}
	var stored []Digest
	for _, e := range t.Entries {
		if e.Kind == KindDir && s.HasTree(e.Digest) || e.IsRegular() && s.HasWholeBlob(e.Digest, e.Size) || e.Kind == KindSymlink {
			stored = append(stored, e.Digest)
			continue
		}
		spot, ok := s.met(e.Digest)
		if !ok || spot.entry.IsRegular() != e.IsRegular() || spot.entry.Size != e.Size {
			return nil, fmt.Errorf("%q names %s: %w", e.Name, e.Digest, ErrNotFound)
		}
		p := spot.part(e.Name)
		f.Made.Of = append(f.Made.Of, p)
		for _, r := range p.Remotes {
			if !slices.Contains(f.Remotes, r) {
				f.Remotes = append(f.Remotes, r)
			}
		}
	}
	if len(f.Made.Of) == 0 {
		return s.AddTree(ctx, t)
	}
	d := Sum(b)
	if !s.HasLazyTree(d) {
		if err := s.writeLazy(ctx, d, f); err != nil {
			return nil, err
		}
	}
	// They are needed as long as it is.
	if err := s.pages(d).NoteCame(stored...); err != nil {
		return nil, err
	}
	return s.pinFar(ctx, "a tree of what is on remotes", d)
}

// part is where what was met lies in what a remote has.
func (spot lazySpot) part(name string) lazyPart {
	t := spot.tree
	in := lazyInside{Tree: t.whole(), Place: spot.entry.Place, Size: spot.entry.Size}
	remotes := t.file.Remotes
	if m := t.file.Made; m != nil {
		i, place := uncode(in.Place)
		if i >= 0 && i < len(m.Of) {
			in.Tree, in.Place, remotes = m.Of[i].In.Tree, place, m.Of[i].Remotes
		}
	}
	return lazyPart{name, remotes, in}
}

// Places of a made tree say in which part they are: from bit 48 on, counted
// from 1. No part is what is stored.
const partShift = 48

func code(i int, place [2]int64) [2]int64 {
	place[0] |= int64(i+1) << partShift
	return place
}

func uncode(place [2]int64) (i int, _ [2]int64) {
	i = int(place[0]>>partShift) - 1
	place[0] &= 1<<partShift - 1
	return i, place
}

// madeTree is a lazyMade, open.
type madeTree struct {
	t       *LazyTree
	tree    *Tree
	entries []LazyEntry
	parts   []*LazyTree // that the entries lie in
}

// made opens a lazy tree that is made of others. No remote is asked.
func (t *LazyTree) made() (RemoteTree, error) {
	bad := func(err error) (RemoteTree, error) {
		return nil, fmt.Errorf("what is kept of tree %s: %w", t.root, err)
	}
	made := t.file.Made
	tree, err := ParseTree(made.Tree)
	if err != nil {
		return bad(err)
	}
	if Sum(made.Tree) != t.root || len(made.Of) > 1<<14 {
		return bad(ErrCorrupt)
	}
	m := &madeTree{t: t, tree: tree}
	for _, e := range tree.Entries {
		m.entries = append(m.entries, LazyEntry{Entry: e})
	}
	for i, p := range made.Of {
		at := slices.IndexFunc(tree.Entries, func(e Entry) bool { return e.Name == p.Name })
		if at < 0 || len(p.Remotes) == 0 || p.In.Place[0]>>partShift != 0 {
			return bad(ErrCorrupt)
		}
		m.entries[at].Place = code(i, p.In.Place)
		m.parts = append(m.parts, newLazyTree(t.s, p.In.Tree, lazyFile{Remotes: p.Remotes}))
	}
	return m, nil
}

// part is the tree that an entry lies in, and the entry as that has it; nil for
// what is stored.
func (m *madeTree) part(ctx context.Context, e LazyEntry) (RemoteTree, LazyEntry, error) {
	i, place := uncode(e.Place)
	if i < 0 || i >= len(m.parts) {
		return nil, e, nil
	}
	e.Place = place
	src, err := m.parts[i].source(ctx)
	return src, e, err
}

// again gives entries of a part places in this tree.
func (m *madeTree) again(of LazyEntry, entries ...LazyEntry) []LazyEntry {
	i, _ := uncode(of.Place)
	for k := range entries {
		entries[k].Place = code(i, entries[k].Place)
	}
	return entries
}

func (m *madeTree) isRoot(dir LazyEntry) bool { return dir.Digest == m.t.root }

func (m *madeTree) Root() LazyEntry {
	return LazyEntry{Entry: Entry{Kind: KindDir, Digest: m.t.root, Size: m.tree.Bytes()}}
}

func (m *madeTree) Files() int64 { return m.tree.Files() }

func (m *madeTree) Large(dir LazyEntry) bool {
	src, inner, err := m.part(context.Background(), dir)
	return err == nil && src != nil && !m.isRoot(dir) && src.Large(inner)
}

func (m *madeTree) Tree(ctx context.Context, dir LazyEntry) (*Tree, []LazyEntry, error) {
	if m.isRoot(dir) {
		tree := *m.tree
		tree.Entries = slices.Clone(m.tree.Entries) // the caller's
		return &tree, slices.Clone(m.entries), ctx.Err()
	}
	src, inner, err := m.part(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	if src != nil {
		tree, entries, err := src.Tree(ctx, inner)
		return tree, m.again(dir, entries...), err
	}
	tree, err := m.t.s.storedTree(ctx, dir.Digest)
	if err != nil {
		return nil, nil, err
	}
	var entries []LazyEntry
	for _, e := range tree.Entries {
		entries = append(entries, LazyEntry{Entry: e})
	}
	return tree, entries, nil
}

func (m *madeTree) Lookup(ctx context.Context, dir LazyEntry, name string) (LazyEntry, error) {
	src, inner, err := m.part(ctx, dir)
	if err == nil && src != nil && !m.isRoot(dir) {
		e, err := src.Lookup(ctx, inner, name)
		return m.again(dir, e)[0], err
	}
	_, entries, err := m.Tree(ctx, dir)
	if err != nil {
		return LazyEntry{}, err
	}
	i := slices.IndexFunc(entries, func(e LazyEntry) bool { return e.Name == name })
	if i < 0 {
		return LazyEntry{}, fmt.Errorf("no %q in tree %s: %w", name, dir.Digest.Short(), ErrNotFound)
	}
	return entries[i], nil
}

func (m *madeTree) Small(ctx context.Context, e LazyEntry) ([]byte, error) {
	src, inner, err := m.part(ctx, e)
	if err != nil {
		return nil, err
	}
	if src == nil {
		return nil, m.missing(e)
	}
	return src.Small(ctx, inner)
}

func (m *madeTree) Range(ctx context.Context, e LazyEntry, p *Partial, lo, hi int64) error {
	src, inner, err := m.part(ctx, e)
	if err != nil {
		return err
	}
	if src == nil {
		return m.missing(e)
	}
	return src.Range(ctx, inner, p, lo, hi)
}

func (m *madeTree) Stretch(ctx context.Context, e LazyEntry, at int64) (int64, error) {
	src, inner, err := m.part(ctx, e)
	if err != nil || src == nil {
		return at, err
	}
	return src.Stretch(ctx, inner, at)
}

func (m *madeTree) missing(e LazyEntry) error {
	return fmt.Errorf("%s was stored, and is not any more: %w", e.Digest, ErrCorrupt)
}

func (m *madeTree) Pull(ctx context.Context, dir LazyEntry, progress Progress) (*Added, error) {
	src, inner, err := m.part(ctx, dir)
	if err != nil {
		return nil, err
	}
	if !m.isRoot(dir) {
		if src == nil {
			return m.t.s.addedWhole(ctx, dir.Digest)
		}
		return src.Pull(ctx, inner, progress)
	}
	for _, e := range m.entries {
		switch {
		case e.Kind == KindDir:
			a, err := m.Pull(ctx, e, progress)
			if err != nil {
				return nil, err
			}
			defer a.Release()
		case e.IsRegular() && !m.t.s.HasWholeBlob(e.Digest, e.Size):
			f, err := m.t.OpenFile(ctx, e)
			if err != nil {
				return nil, err
			}
			if err := errors.Join(f.Complete(ctx, progress), f.Close()); err != nil {
				return nil, err
			}
		}
	}
	return m.t.s.AddTree(ctx, m.tree)
}
