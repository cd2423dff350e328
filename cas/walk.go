package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

const (
	// maxDepth bounds how deep trees nest: a path of it would be longer than any
	// system takes.
	maxDepth = 2048
	// maxRepeated bounds the entries that a walk meets in directories which it
	// was in before. A tree of forty directories, of which each names the next
	// one twice, has 2^40 paths.
	maxRepeated = 1 << 24
	// maxKeptEntries bounds what a walk keeps of them.
	maxKeptEntries = 1 << 20
)

// Walk calls fn for every entry below the tree, parents before children, in
// order of names; path is slash-separated and relative. fs.SkipDir from a
// directory skips what is below it, from another entry the rest of its
// directory; fs.SkipAll ends the walk without an error. A tree with more than
// 16 million entries in directories that it names several times is an error
// that wraps [ErrInvalid].
func (s *Store) Walk(ctx context.Context, tree Digest, fn func(path string, e Entry) error) error {
	w := treeWalk{s: s, fn: fn, seen: map[Digest]*Tree{}}
	err := w.dir(ctx, tree, "", 0)
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

type treeWalk struct {
	s        *Store
	fn       func(path string, e Entry) error
	seen     map[Digest]*Tree // nil: once, and not kept
	repeated int              // entries of directories that were seen before
	kept     int              // entries in seen
}

func (w *treeWalk) dir(ctx context.Context, tree Digest, dir string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("walk tree: more than %d levels at %.100s…: %w", maxDepth, dir, ErrInvalid)
	}
	t, err := w.read(ctx, tree)
	if err != nil {
		return err
	}
	if w.repeated > maxRepeated {
		return fmt.Errorf("walk tree: more than %d entries in directories that it names several times, at %.100s…: %w", maxRepeated, dir, ErrInvalid)
	}
	for _, e := range t.Entries {
		p := e.Name
		if dir != "" {
			p = dir + "/" + p
		}
		err := w.fn(p, e)
		if err == nil && e.Kind == KindDir {
			err = w.dir(ctx, e.Digest, p, depth+1)
		} else if errors.Is(err, fs.SkipDir) {
			if e.Kind != KindDir {
				return nil
			}
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads a directory. One that repeats is kept.
func (w *treeWalk) read(ctx context.Context, d Digest) (*Tree, error) {
	t, before := w.seen[d]
	if t == nil {
		var err error
		if t, err = w.s.Tree(ctx, d); err != nil {
			return nil, err
		}
	} else if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !before {
		w.seen[d] = nil
		return t, nil
	}
	w.repeated += len(t.Entries)
	if w.seen[d] == nil && w.kept+len(t.Entries) <= maxKeptEntries {
		w.seen[d], w.kept = t, w.kept+len(t.Entries)
	}
	return t, nil
}
