package cas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// recentLazy lists the lazy trees that somebody read not long ago: what came of
// them is kept, though nothing names them.
func (c *collector) recentLazy(ctx context.Context) ([]root, error) {
	ds, err := c.s.digestsIn(ctx, "lazy")
	if err != nil {
		return nil, err
	}
	var roots []root
	for _, d := range ds {
		if !c.s.HasTree(d) && c.s.HasLazyTree(d) && !c.oldLazy(d) {
			roots = append(roots, root{d, "a tree that is read from a remote"})
		}
	}
	return roots, nil
}

func (c *collector) oldLazy(d Digest) bool {
	if c.o.PartialAge <= 0 {
		return false
	}
	fi, err := os.Lstat(filepath.Join(c.s.lazyPath(d), lazyTreeFile))
	return err == nil && time.Since(fi.ModTime()) > c.o.PartialAge
}

// sweepLazy removes what is kept of lazy trees that nothing needs, and of those
// that are here whole by now. While commits wait, as one may be about to name
// such a tree.
func (c *collector) sweepLazy(ctx context.Context) error {
	ds, err := c.s.digestsIn(ctx, "lazy")
	if err != nil {
		return err
	}
	for _, d := range ds {
		if c.m.lazy[d] && !c.s.HasTree(d) {
			continue
		}
		if err := c.removeLazy(d); err != nil {
			return fmt.Errorf("remove what is kept of lazy tree %s: %w", d.Short(), storeError(err))
		}
	}
	return nil
}

// removeLazy removes the file that says what it is first.
func (c *collector) removeLazy(d Digest) error {
	dir := c.s.lazyPath(d)
	ents, err := os.ReadDir(dir)
	if err != nil && !noFile(err) {
		return err
	}
	for _, e := range ents {
		if fi, err := e.Info(); err == nil {
			c.r.RemovedBytes += fi.Size()
		}
	}
	if c.o.DryRun {
		return nil
	}
	if err := os.Remove(filepath.Join(dir, lazyTreeFile)); err != nil && !noFile(err) {
		return err
	}
	return os.RemoveAll(dir)
}
