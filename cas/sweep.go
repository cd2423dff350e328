package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// sweep removes what is not marked: first what names, then what is named, so
// that a collection that is cut off leaves no tree that is not whole.
func (c *collector) sweep(ctx context.Context) error {
	for _, path := range c.void {
		if err := c.remove(path, nil); err != nil {
			return err
		}
	}
	if err := c.forgetResults(ctx); err != nil {
		return err
	}
	if err := c.thinMarks(); err != nil {
		return err
	}
	if err := c.sweepViews(ctx); err != nil {
		return err
	}
	if err := c.sweepLazy(ctx); err != nil {
		return err
	}
	if err := c.sweepTrees(ctx); err != nil {
		return err
	}
	fault.At(fault.CollectTrees)
	return c.sweepBlobs(ctx)
}

// remove removes one file, counting its bytes into n.
func (c *collector) remove(path string, n *int64) error {
	fi, err := os.Lstat(path)
	if noFile(err) {
		return nil
	}
	if err == nil && !c.o.DryRun {
		err = os.Remove(path)
	}
	if err != nil && !noFile(err) {
		return fmt.Errorf("remove %s: %w", path, storeError(err))
	}
	if n != nil {
		*n++
	}
	c.r.RemovedBytes += fi.Size()
	return nil
}

// sweepTrees removes unmarked trees, each before those that it names: whoever
// finds a tree in the store may rely on what is below it.
func (c *collector) sweepTrees(ctx context.Context) error {
	all, err := c.s.digestsIn(ctx, "trees")
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(d Digest) bool { return c.m.trees[d] })
	below := map[Digest][]Digest{}
	named := map[Digest]int{} // how many that are still there name it
	for _, d := range all {
		t, err := c.s.storedTree(ctx, d)
		if err != nil {
			continue // nobody can rely on it
		}
		for _, e := range t.Entries {
			if e.Kind == KindDir && !c.m.trees[e.Digest] {
				below[d] = append(below[d], e.Digest)
				named[e.Digest]++
			}
		}
	}
	next := slices.DeleteFunc(all, func(d Digest) bool { return named[d] > 0 })
	removed := len(next)
	for len(next) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d := next[len(next)-1]
		next = next[:len(next)-1]
		if err := c.remove(c.s.treePath(d), &c.r.RemovedTrees); err != nil {
			return err
		}
		for _, sub := range below[d] {
			if named[sub]--; named[sub] == 0 {
				next = append(next, sub)
				removed++
			}
		}
	}
	if removed > 0 && !c.o.DryRun {
		return syncFilesystem(c.s.dir)
	}
	return nil
}

// sweepBlobs removes unmarked blobs, and the outboards and records of
// references that belong to none. The files that are referred to are not
// touched.
func (c *collector) sweepBlobs(ctx context.Context) error {
	blobs, err := c.s.digestsIn(ctx, "blobs")
	if err != nil {
		return err
	}
	for i, d := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.m.blobs[d] {
			c.r.KeptBlobs++
		} else if err := c.remove(c.s.blobPath(d), &c.r.RemovedBlobs); err != nil {
			return err
		}
		if c.o.Progress != nil && (i%1000 == 999 || i == len(blobs)-1) {
			c.o.Progress(c.r.RemovedBytes, c.r.RemovedBytes, int64(i+1), int64(len(blobs)))
		}
	}
	for _, room := range []string{"outboards", "references"} {
		ds, err := c.s.digestsIn(ctx, room)
		if err != nil {
			return err
		}
		for _, d := range ds {
			if !c.m.blobs[d] {
				if err := c.remove(c.s.path(room, d), nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// tempViewAge is when a view that was never finished is abandoned.
const tempViewAge = 24 * time.Hour

func (c *collector) sweepViews(ctx context.Context) error {
	dir := filepath.Join(c.s.dir, "views")
	ents, err := os.ReadDir(dir)
	if noFile(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list views: %w", err)
	}
	for _, e := range ents {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), tempView) {
			if fi, err := e.Info(); err == nil && fault.Now().Sub(fi.ModTime()) >= tempViewAge {
				removeUnlocked(path, c.o.DryRun, removeAll)
			}
			continue
		}
		if d, err := ParseDigest(e.Name()); err != nil || c.m.trees[d] || c.o.DryRun {
			continue
		}
		// By another name first: what is cut off must not pass for a view of a tree
		// that is stored again.
		gone := filepath.Join(dir, tempView+randomHex(8))
		err := os.Rename(path, gone)
		if err == nil {
			err = removeAll(gone)
		}
		if err != nil {
			// Derived, and perhaps another user's: no reason to keep the rest.
			c.s.log.Warn("a view could not be removed", "err", err)
		}
	}
	return nil
}

// thinMarks removes the marks of removed versions but the highest of each
// artifact, which is enough while no publish is under way.
func (c *collector) thinMarks() error {
	names, err := c.s.artifactNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		ns, err := c.s.numbers(name)
		if err != nil {
			return err
		}
		for i, n := range ns {
			_, err := c.s.readVersion(name, n)
			if i == len(ns)-1 || !errors.Is(err, ErrNotFound) || c.o.DryRun {
				continue
			}
			if err := os.Remove(c.s.versionPath(name, n)); err != nil && !noFile(err) {
				return err
			}
		}
	}
	return nil
}
