package cas

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
)

// Adopt notes that remote has the tree, and pins it until the result is
// released: a ref may then name it, a place have it as an input, before any
// byte of it is here. Nothing is asked of the remote but what the tree itself
// says, one or two small reads, which also tell whether the remote has it
// ([ErrNotFound]). Of the result, Files is as the remote says, and Bytes is for
// large directories. A tree that is here whole is only pinned.
func (s *Store) Adopt(ctx context.Context, remote string, tree Digest) (*Added, error) {
	a, err := s.adopt(ctx, remote, tree)
	if err != nil {
		return nil, fmt.Errorf("take over tree %s of remote %s: %w", tree.Short(), remote, err)
	}
	return a, nil
}

func (s *Store) adopt(ctx context.Context, remote string, tree Digest) (*Added, error) {
	if s.HasTree(tree) {
		if a, err := s.addedWhole(ctx, tree); !errors.Is(err, ErrNotFound) {
			return a, err
		}
	}
	known := s.HasLazyTree(tree)
	if err := s.noteLazy(ctx, remote, tree); err != nil {
		return nil, err
	}
	// Pinned first: a collection may run.
	pin, err := s.Pin(ctx, "a tree on "+remote, tree)
	if err != nil {
		return nil, err
	}
	a := &Added{Tree: tree, Digest: tree, pin: pin}
	if err = a.lookFar(ctx, s); err != nil {
		a.Release()
		if !known && errors.Is(err, ErrNotFound) {
			_ = os.Remove(filepath.Join(s.lazyPath(tree), lazyTreeFile)) // it is not so
		}
		return nil, err
	}
	return a, nil
}

// lookFar is look for a tree of which nothing may be here.
func (a *Added) lookFar(ctx context.Context, s *Store) error {
	t, err := s.OpenLazyTree(ctx, a.Tree)
	if err != nil {
		return err
	}
	src, err := t.source(ctx) // whose error tells whether the remote has it
	if err != nil {
		return err
	}
	root := t.rootOf(src)
	if src.Large(root) {
		a.Bytes = root.Size // reading all of it is not worth more
	} else if err := a.look(ctx, s); err != nil {
		return err
	}
	if t.file.In == nil {
		a.Files = src.Files() // those at its top, of one that is made of others
	}
	return nil
}

// look fills in what the tree says of itself.
func (a *Added) look(ctx context.Context, s *Store) error {
	t, err := s.Tree(ctx, a.Tree)
	if err != nil {
		return err
	}
	a.Single, a.Bytes = t.Single, t.Bytes()
	if t.Single {
		_, e, err := s.singleFile(ctx, a.Tree, t)
		if err != nil {
			return err
		}
		a.Digest = e.Digest
	}
	return nil
}

// addedWhole pins a tree that the store has.
func (s *Store) addedWhole(ctx context.Context, tree Digest) (*Added, error) {
	pin, err := s.Pin(ctx, "a tree", tree)
	if err != nil {
		return nil, err
	}
	a := &Added{Tree: tree, Digest: tree, pin: pin}
	err = a.look(ctx, s)
	if err == nil {
		a.Files, err = s.countFiles(ctx, tree)
	}
	if err != nil {
		a.Release()
		return nil, err
	}
	return a, nil
}

// AdoptDir is Adopt for a directory in a lazy tree, which was met when that was
// read ([Store.Lookup], [Store.Walk]); [ErrNotFound] for others. It then is a
// lazy tree by itself.
func (s *Store) AdoptDir(ctx context.Context, dir Digest) (*Added, error) {
	a, err := s.adoptDir(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("take over directory %s: %w", dir.Short(), err)
	}
	return a, nil
}

func (s *Store) adoptDir(ctx context.Context, dir Digest) (*Added, error) {
	if s.HasTree(dir) {
		if a, err := s.addedWhole(ctx, dir); !errors.Is(err, ErrNotFound) {
			return a, err
		}
	}
	if spot, ok := s.met(dir); ok && !s.HasLazyTree(dir) {
		if spot.entry.Kind != KindDir {
			return nil, fmt.Errorf("it is a %s: %w", spot.entry.Kind, ErrInvalid)
		}
		p := spot.part("")
		if err := s.writeLazy(ctx, dir, lazyFile{Remotes: p.Remotes, In: &p.In}); err != nil {
			return nil, err
		}
		around := spot.tree.pages
		if spot.tree.file.Made != nil {
			around = s.pages(p.In.Tree)
		}
		if b := around.Read(0); b != nil {
			s.pages(dir).Write(0, b) // what is known of the recipe need not be asked again
		}
	}
	return s.pinFar(ctx, "a directory on a remote", dir)
}

// pinFar pins a lazy tree, and asks the remote what it is.
func (s *Store) pinFar(ctx context.Context, what string, tree Digest) (*Added, error) {
	pin, err := s.Pin(ctx, what, tree)
	if err != nil {
		return nil, err
	}
	a := &Added{Tree: tree, Digest: tree, pin: pin}
	if err = a.lookFar(ctx, s); err != nil {
		a.Release()
		return nil, err
	}
	return a, nil
}

// countFiles counts the files of a tree that is here, as often as they are named.
func (s *Store) countFiles(ctx context.Context, tree Digest) (n int64, err error) {
	return s.countBelow(ctx, tree, map[Digest]int64{}, 0)
}

func (s *Store) countBelow(ctx context.Context, dir Digest, known map[Digest]int64, depth int) (int64, error) {
	if n, ok := known[dir]; ok {
		return n, nil
	}
	t, err := s.Tree(ctx, dir)
	if err == nil && depth > maxDepth {
		err = fmt.Errorf("tree %s: more than %d levels: %w", dir, maxDepth, ErrInvalid)
	}
	if err != nil {
		return 0, err
	}
	n := t.Files()
	for _, e := range t.Entries {
		if e.Kind != KindDir {
			continue
		}
		below, err := s.countBelow(ctx, e.Digest, known, depth+1)
		if err != nil {
			return 0, err
		}
		n += min(below, math.MaxInt64-n)
	}
	known[dir] = n
	return n, nil
}
