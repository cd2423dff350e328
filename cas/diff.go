package cas

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
)

// A Change is one difference between two trees. Old has Kind 0 where the path
// is new, New where it is gone. A path whose kind changed from or to a
// directory is reported as removed and added. A directory in both trees is
// reported only if its attributes differ.
type Change struct {
	Path     string // slash-separated; "" is the root, whose attributes or Single differ
	Old, New Entry
}

// Diff calls fn for every file, link and empty directory that differs between
// trees a and b, parents before children, in order of names, and skips what is
// equal without reading it. It stops at fn's first error and returns it.
func (s *Store) Diff(ctx context.Context, a, b Digest, fn func(Change) error) error {
	if a == b {
		return nil
	}
	old, err := s.Tree(ctx, a)
	if err != nil {
		return fmt.Errorf("comparing trees: %w", err)
	}
	now, err := s.Tree(ctx, b)
	if err != nil {
		return fmt.Errorf("comparing trees: %w", err)
	}
	if !slices.Equal(old.Attrs, now.Attrs) || old.Single != now.Single {
		c := Change{Old: Entry{Kind: KindDir, Digest: a, Attrs: old.Attrs}, New: Entry{Kind: KindDir, Digest: b, Attrs: now.Attrs}}
		if err := fn(c); err != nil {
			return err
		}
	}
	return s.diffEntries(ctx, "", old.Entries, now.Entries, fn)
}

// diffEntries merges two sorted directories.
func (s *Store) diffEntries(ctx context.Context, dir string, old, now []Entry, fn func(Change) error) error {
	for len(old) > 0 || len(now) > 0 {
		var o, n Entry
		order, name := 0, ""
		switch {
		case len(old) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = cmp.Compare(old[0].Name, now[0].Name)
		}
		if order <= 0 {
			o, old = old[0], old[1:]
			name = o.Name
		}
		if order >= 0 {
			n, now = now[0], now[1:]
			name = n.Name
		}
		if err := s.diffEntry(ctx, path.Join(dir, name), o, n, fn); err != nil {
			return err
		}
	}
	return nil
}

// diffEntry compares what two trees have at one path; Kind 0 is nothing.
func (s *Store) diffEntry(ctx context.Context, p string, o, n Entry, fn func(Change) error) error {
	if o.Kind == n.Kind && o.Digest == n.Digest && o.Target == n.Target && slices.Equal(o.Attrs, n.Attrs) {
		return nil
	}
	if o.Kind != KindDir && n.Kind != KindDir {
		return fn(Change{Path: p, Old: o, New: n})
	}
	if o.Kind == n.Kind && !slices.Equal(o.Attrs, n.Attrs) {
		if err := fn(Change{Path: p, Old: o, New: n}); err != nil {
			return err
		}
	}
	if o.Kind != 0 && o.Kind != KindDir {
		if err := fn(Change{Path: p, Old: o}); err != nil {
			return err
		}
	}
	below := func(e Entry) ([]Entry, error) {
		if e.Kind != KindDir {
			return nil, nil
		}
		t, err := s.Tree(ctx, e.Digest)
		if err != nil {
			return nil, fmt.Errorf("comparing %s: %w", p, err)
		}
		return t.Entries, nil
	}
	oldBelow, err := below(o)
	if err != nil {
		return err
	}
	nowBelow, err := below(n)
	if err != nil {
		return err
	}
	// An empty directory has no file that could speak for it.
	if o.Kind != KindDir && len(nowBelow) == 0 || n.Kind != KindDir && len(oldBelow) == 0 {
		c := Change{Path: p}
		if o.Kind == KindDir {
			c.Old = o
		} else {
			c.New = n
		}
		if err := fn(c); err != nil {
			return err
		}
	}
	if err := s.diffEntries(ctx, p, oldBelow, nowBelow, fn); err != nil {
		return err
	}
	if n.Kind != 0 && n.Kind != KindDir {
		return fn(Change{Path: p, New: n})
	}
	return nil
}
