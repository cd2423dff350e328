package cas

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Snapshot stores what lies in the directory dir, where programs may still
// write, with modification times: for each regular file skip says, by its path
// and modification time, whether it is left out. Left out too is what changes
// or goes while it is read, symbolic links that lead out of dir, FIFOs, sockets
// and devices. Hard links become entries of the same digest. No blob shares an
// inode with a file in dir: files are copied, as reflinks where the filesystem
// has them, and what is stored already is not read again.
//
// Files are whole, each by itself; whether they belong together is for the
// caller to know.
func (s *Store) Snapshot(ctx context.Context, dir string, skip func(path string, mtime time.Time) bool, progress Progress) (*Added, error) {
	added, err := s.snapshot(ctx, dir, skip, progress)
	if err != nil {
		return nil, fmt.Errorf("snapshot of %s: %w", dir, noSpace(err, s.dir))
	}
	return added, nil
}

func (s *Store) snapshot(ctx context.Context, dir string, skip func(string, time.Time) bool, progress Progress) (*Added, error) {
	sc := &scanner{ctx: ctx, store: s.dir, pick: &picker{skip}}
	root, err := sc.scan(dir)
	if err != nil {
		return nil, err
	}
	if root.kind != KindDir {
		return nil, fmt.Errorf("it is no directory: %w", ErrInvalid)
	}
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a := &adder{s: s, b: b, seen: s.openStatCache()}
	a.count(root, progress)
	if err := a.checkSpace(ctx, root, func(*node) bool { return true }); err != nil {
		return nil, err
	}
	var files []*node
	root.files(func(n *node) { files = append(files, n) })
	var mu sync.Mutex
	changed := map[*node]bool{}
	err = a.all(ctx, files, func(ctx context.Context, n *node) error {
		err := a.addFile(ctx, n)
		if errors.Is(err, ErrChanged) || noFile(err) {
			mu.Lock()
			changed[n] = true
			mu.Unlock()
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	root.prune(changed)
	added, err := a.run(ctx, root, treeShape{mtimes: true}, func(ctx context.Context, n *node) error {
		if !n.digest.IsZero() {
			return nil
		}
		return a.addFile(ctx, n) // a collection took it
	})
	if err == nil {
		a.seen.save()
	}
	return added, err
}

// prune takes files out of what lies below n.
func (n *node) prune(files map[*node]bool) {
	n.kids = slices.DeleteFunc(n.kids, func(k *node) bool {
		if k.kind == KindDir {
			k.prune(files)
		}
		return files[k]
	})
}

// picker says what a snapshot takes.
type picker struct {
	skip func(path string, mtime time.Time) bool
}

func (p *picker) takes(n *node) bool {
	switch {
	case n.state.isRegular():
		return !p.skip(n.path(), time.Unix(0, n.state.mtime))
	case n.state.special() != "":
		return false
	}
	return true
}
