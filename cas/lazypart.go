package cas

import (
	"context"
	"errors"
	"fmt"
)

// Part makes what a tree has at name a tree that is here whole, and pins it
// until the result is released: a directory is one by itself, a file or a link
// gets one with that entry alone. Of a lazy tree nothing else comes, and what
// came of it is kept as all that did. Of the result, Bytes and Files are those
// of the part.
func (s *Store) Part(ctx context.Context, tree Digest, name string, progress Progress) (*Added, error) {
	a, err := s.part(ctx, tree, name, progress)
	if err != nil {
		return nil, fmt.Errorf("bring %q of tree %s: %w", name, tree.Short(), err)
	}
	return a, nil
}

func (s *Store) part(ctx context.Context, tree Digest, name string, progress Progress) (*Added, error) {
	of := s.lazyAround(tree)
	e, err := s.Lookup(ctx, tree, name)
	if err != nil {
		return nil, err
	}
	if e.Kind == KindDir {
		if err := noteCame(of, e.Digest); err != nil {
			return nil, err
		}
		release, err := s.wholeTree(ctx, e.Digest, progress)
		if err != nil {
			return nil, err
		}
		defer release()
		return s.addedWhole(ctx, e.Digest)
	}
	if e.IsRegular() && !s.HasWholeBlob(e.Digest, e.Size) {
		if err := s.lazyBlob(ctx, e.Digest, progress); err != nil {
			return nil, err
		}
	}
	t := &Tree{Single: e.IsRegular(), Entries: []Entry{e}}
	d, err := t.Digest()
	if err == nil {
		err = noteCame(of, d)
	}
	if err != nil {
		return nil, err
	}
	return s.AddTree(ctx, t)
}

// closedPart is Part where the rest of the tree is not needed: nil for what is
// all of it, and for a directory or a link that leads out of the part. base is
// the name in the part.
func (s *Store) closedPart(ctx context.Context, tree Digest, name string) (_ *Added, base string, err error) {
	if len(splitPath(name)) == 0 {
		return nil, "", nil
	}
	if _, _, single, err := s.SingleFile(ctx, tree); single || errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	e, err := s.Lookup(ctx, tree, name)
	if err != nil {
		return nil, "", err
	}
	closed := e.IsRegular()
	if e.Kind == KindDir {
		if closed, err = s.isClosed(ctx, e.Digest); err != nil {
			return nil, "", err
		}
	} else {
		base = e.Name
	}
	if !closed {
		return nil, "", nil
	}
	a, err := s.Part(ctx, tree, name, nil)
	return a, base, err
}

// lazyAround lists what is kept of the lazy trees that a tree is, or was met in.
func (s *Store) lazyAround(tree Digest) (of []*Pages) {
	if s.HasTree(tree) {
		return nil
	}
	if s.HasLazyTree(tree) {
		of = append(of, s.pages(tree))
	}
	if spot, ok := s.met(tree); ok {
		of = append(of, spot.tree.pages)
	}
	return of
}

func noteCame(of []*Pages, d Digest) error {
	for _, p := range of {
		if p.tree == d {
			continue
		}
		if err := p.NoteCame(d); err != nil {
			return err
		}
	}
	return nil
}
