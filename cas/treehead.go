package cas

import (
	"context"
	"errors"
	"fmt"
	"path"
)

// TreeHead is what a tree says of itself as a whole.
type TreeHead struct {
	Attrs Attrs
	// Of a Single tree, the one file: its path and entry. File is "" for any
	// other tree.
	File  string
	Entry Entry
}

// Head reads and verifies a tree as [Store.Tree] does, and parses none of its
// entries but the one of a Single tree: parsing costs ten times as much.
func (s *Store) Head(ctx context.Context, tree Digest) (TreeHead, error) {
	if err := ctx.Err(); err != nil {
		return TreeHead{}, err
	}
	b, err := s.readTree(tree)
	if errors.Is(err, ErrNotFound) {
		return s.lazyHead(ctx, tree)
	}
	if err != nil {
		return TreeHead{}, fmt.Errorf("read tree %s: %w", tree, err)
	}
	single, attrs, err := parseTreeHead(b)
	if err != nil {
		return TreeHead{}, fmt.Errorf("read tree %s: %w", tree, err)
	}
	head := TreeHead{Attrs: attrs}
	if !single {
		return head, nil
	}
	t, err := ParseTree(b)
	if err != nil {
		return TreeHead{}, fmt.Errorf("read tree %s: %w", tree, err)
	}
	head.File, head.Entry, err = s.singleFile(ctx, tree, t)
	return head, err
}

// lazyHead is Head for a tree that is not here whole.
func (s *Store) lazyHead(ctx context.Context, tree Digest) (TreeHead, error) {
	t, err := s.Tree(ctx, tree)
	if err != nil {
		return TreeHead{}, err
	}
	head := TreeHead{Attrs: t.Attrs}
	if t.Single {
		head.File, head.Entry, err = s.singleFile(ctx, tree, t)
	}
	return head, err
}

// SingleFile returns path and entry of the one file of a Single tree; ok is
// false for any other tree.
func (s *Store) SingleFile(ctx context.Context, tree Digest) (name string, e Entry, ok bool, err error) {
	if t, err := s.OpenLazyTree(ctx, tree); err == nil && !s.HasTree(tree) {
		root, err := t.Root(ctx)
		if err != nil {
			return "", Entry{}, false, err
		}
		if large, err := t.Large(ctx, root); large || err != nil {
			return "", Entry{}, false, err // of many entries, and not worth reading
		}
	}
	h, err := s.Head(ctx, tree)
	if err != nil {
		return "", Entry{}, false, err
	}
	return h.File, h.Entry, h.File != "", nil
}

// singleFile follows the only entry of each level of a Single tree.
func (s *Store) singleFile(ctx context.Context, tree Digest, t *Tree) (name string, e Entry, err error) {
	for range maxDepth {
		if len(t.Entries) != 1 || t.Entries[0].Kind == KindSymlink {
			return "", Entry{}, fmt.Errorf("read tree %s: marked as a single file, and is not one: %w", tree, ErrCorrupt)
		}
		e = t.Entries[0]
		name = path.Join(name, e.Name)
		if e.Kind != KindDir {
			return name, e, nil
		}
		if t, err = s.Tree(ctx, e.Digest); err != nil {
			return "", Entry{}, err
		}
	}
	return "", Entry{}, fmt.Errorf("read tree %s: more than %d levels: %w", tree, maxDepth, ErrInvalid)
}
