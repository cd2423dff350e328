package stages

import (
	"context"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// Lack is an input of which the store does not have all, as it lies on a
// remote: the key needs no more than what the remote says of it.
type Lack struct {
	Input string     // "" for the standard input
	Tree  cas.Digest // what was bound
	Root  cas.Digest // the lazy tree that it lies in

	file *cas.Entry // Tree is of this file alone, and not stored
}

// Lazy reports whether what lacks can stay where it is: Tree is a lazy tree,
// whose files come when they are read.
func (l Lack) Lazy() bool { return l.Tree == l.Root }

// Bring brings what lacks, and keeps it until Release.
func (p *Plan) Bring(ctx context.Context, s *cas.Store, l Lack, progress cas.Progress) error {
	if l.file == nil {
		added, err := s.Complete(ctx, l.Root, progress)
		if err != nil {
			return err
		}
		p.release = append(p.release, added.Release)
		return nil
	}
	b, err := s.OpenBlob(ctx, l.file.Digest)
	if err != nil {
		return err
	}
	defer b.Close()
	return p.addFile(ctx, s, *l.file)
}

// treeOfFile is the root tree that stands for a file inside another tree: the
// file's metadata becomes that of the tree.
func treeOfFile(e cas.Entry) *cas.Tree {
	return &cas.Tree{Single: true, Attrs: e.Attrs, Entries: []cas.Entry{e}}
}

// addFile stores that tree, until Release.
func (p *Plan) addFile(ctx context.Context, s *cas.Store, e cas.Entry) error {
	added, err := s.AddTree(ctx, treeOfFile(e))
	if err == nil {
		p.release = append(p.release, added.Release)
	}
	return err
}

// lazyRoot is the lazy tree that a target lies in; ok is false where the store
// has all of it.
func lazyRoot(s *cas.Store, t Target) (root cas.Digest, ok bool) {
	candidates := []cas.Digest{t.Tree}
	if t.Run != nil {
		candidates = append(candidates, t.Run.Tree)
	}
	for _, d := range candidates {
		if !d.IsZero() && !s.HasTree(d) && s.HasLazyTree(d) {
			return d, true
		}
	}
	return cas.Digest{}, false
}

// root returns a target as a root tree, for an input of that name. One of its
// own is stored, until Release, where the target is a file inside another tree.
func (p *Plan) root(ctx context.Context, s *cas.Store, t Target, input string) (cas.Digest, error) {
	root, lazy := lazyRoot(s, t)
	if t.Path == "" && !t.Tree.IsZero() {
		if lazy && !s.HasTree(t.Tree) {
			p.lack(ctx, s, input, t.Tree, root)
		}
		return t.Tree, nil
	}
	e, err := fileOf(ctx, s, t)
	if err != nil {
		return cas.Digest{}, err
	}
	switch e.Kind {
	case cas.KindDir:
		if lazy && !s.HasTree(e.Digest) {
			p.lack(ctx, s, input, e.Digest, root)
		}
		return e.Digest, nil
	case cas.KindSymlink:
		return cas.Digest{}, usagef("%s is a symbolic link to %q, which leads nowhere: name a file or a directory", t.Ref, e.Target)
	}
	tree := treeOfFile(e)
	d, err := tree.Digest()
	if err != nil {
		return d, fmt.Errorf("%s: %w", t.Ref, err)
	}
	if lazy && !s.HasBlob(e.Digest) {
		if added, err := s.AdoptMade(ctx, tree); err == nil {
			p.release = append(p.release, added.Release)
			p.Lacks = append(p.Lacks, Lack{Input: input, Tree: d, Root: d})
			return d, nil
		}
		p.Lacks = append(p.Lacks, Lack{Input: input, Tree: d, Root: root, file: &e})
		return d, nil
	}
	if err := p.addFile(ctx, s, e); err != nil {
		return d, fmt.Errorf("%s: %w", t.Ref, err)
	}
	return d, nil
}

// lack notes that the store does not have all of a tree, which is root or a
// directory in it. One that can be taken over by itself needs no more of root.
func (p *Plan) lack(ctx context.Context, s *cas.Store, input string, tree, root cas.Digest) {
	if tree != root {
		if added, err := s.AdoptDir(ctx, tree); err == nil {
			p.release = append(p.release, added.Release)
			root = tree
		}
	}
	p.Lacks = append(p.Lacks, Lack{Input: input, Tree: tree, Root: root})
}

// fileOf is the entry that a target means inside its tree, or a bare blob's.
func fileOf(ctx context.Context, s *cas.Store, t Target) (cas.Entry, error) {
	if !t.Tree.IsZero() {
		e, err := s.Lookup(ctx, t.Tree, t.Path)
		if err != nil {
			return e, fmt.Errorf("%s: %w", t.Ref, err)
		}
		return e, nil
	}
	b, err := s.OpenBlob(ctx, t.Blob)
	if err != nil {
		return cas.Entry{}, fmt.Errorf("%s: %w", t.Ref, err)
	}
	defer b.Close()
	return cas.Entry{Name: t.Blob.String(), Kind: cas.KindFile, Size: b.Size(), Digest: t.Blob}, nil
}
