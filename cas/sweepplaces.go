package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// forgetResults takes out of the states of places that rest the trees that go
// now, so that a mount does not look for them.
func (c *collector) forgetResults(ctx context.Context) error {
	places, err := c.s.placeInfos(ctx, c.o.PlaceAge)
	if err != nil || c.o.DryRun {
		return err
	}
	for _, p := range places {
		st := p.state
		if p.active || p.old || st.Key == "" { // old ones go whole
			continue
		}
		lost := !st.Result.IsZero() && !c.m.trees[st.Result]
		if lost {
			st.Result = Digest{}
		}
		for name, d := range st.Inputs {
			if !c.m.trees[d] {
				delete(st.Inputs, name)
				lost = true
			}
		}
		if !lost {
			continue
		}
		if err := c.s.rewriteState(p.dir, st); err != nil {
			return err
		}
		c.changed = true
	}
	return nil
}

// rewriteState replaces a state without making the place look used.
func (s *Store) rewriteState(dir string, st PlaceState) error {
	b, err := encodeJSON(st)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "state.json")
	was, err := os.Stat(path)
	if err != nil {
		return err
	}
	whole, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := s.putAnyway(path, b); err != nil {
		return err
	}
	// Only their age is lost if this fails.
	_ = os.Chtimes(path, was.ModTime(), was.ModTime())
	_ = os.Chtimes(dir, whole.ModTime(), whole.ModTime())
	return nil
}

// sweepPlaces removes places that nobody has and that are old; commits may go
// on meanwhile, runs of the key wait.
func (c *collector) sweepPlaces(ctx context.Context) error {
	if c.o.PlaceAge <= 0 {
		return nil
	}
	places, err := c.s.placeInfos(ctx, c.o.PlaceAge)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.active || !p.old {
			continue
		}
		if err := c.removePlace(ctx, p); err != nil {
			if ctx.Err() != nil {
				return err
			}
			// Perhaps what another user's program wrote: no reason to keep the rest.
			c.s.log.Warn("a place could not be removed", "err", err)
		}
	}
	return c.sweepLocks(ctx)
}

func (c *collector) removePlace(ctx context.Context, p placeInfo) error {
	if p.state.Key != "" && !c.o.DryRun {
		lock, err := c.s.Lock(ctx, KeyLock(p.state.Key), "a collection", nil)
		if errors.Is(err, ErrNoSpace) && c.s.spendSpare() {
			lock, err = c.s.Lock(ctx, KeyLock(p.state.Key), "a collection", nil)
		}
		if errors.Is(err, ErrBusy) {
			return nil
		}
		if err != nil {
			return err
		}
		defer lock.Release()
		if changedSince(p.dir, fault.Now().Add(-c.o.PlaceAge)) {
			return nil
		}
	}
	var bytes int64
	filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if fi, err := e.Info(); err == nil {
				bytes += fi.Size()
			}
		}
		return nil
	})
	if !c.o.DryRun {
		// Out of sight first: half of a place must not be offered again.
		gone := filepath.Join(c.s.dir, "staging", "place-"+randomHex(8))
		err := c.s.rename(p.dir, gone)
		if errors.Is(err, unix.EXDEV) { // it lies elsewhere; who makes it again removes the rest
			gone = p.dir + ".gone"
			if err = removeAll(gone); err == nil {
				err = os.Rename(p.dir, gone)
			}
		}
		if err != nil {
			return fmt.Errorf("remove place %s: %w", p.dir, err)
		}
		fault.At(fault.CollectPlace)
		c.changed = true
		if link := filepath.Join(c.s.dir, "at", p.short); link != p.dir {
			if err := os.Remove(link); err != nil && !noFile(err) {
				return fmt.Errorf("remove place %s: %w", link, err)
			}
		}
		if err := removeAll(gone); err != nil {
			return fmt.Errorf("remove place %s: %w", p.dir, err)
		}
	}
	c.r.RemovedPlaces++
	c.r.RemovedBytes += bytes
	return nil
}

// sweepLocks removes the files of key locks that nobody has and that no place
// belongs to any more. It does so with the lock: who waited for a file that is
// gone finds so, and takes a new one.
func (c *collector) sweepLocks(ctx context.Context) error {
	if err := c.sweepLocksBelow(ctx, "node"); err != nil {
		return err
	}
	ents, err := os.ReadDir(c.s.lockPath("key"))
	if err != nil && !noFile(err) {
		return fmt.Errorf("list locks: %w", err)
	}
	for _, e := range ents {
		fi, err := e.Info()
		if err != nil || fault.Now().Sub(fi.ModTime()) < c.o.PlaceAge || c.o.DryRun {
			continue
		}
		key := e.Name()
		if _, err := os.Stat(c.s.Place(key).Dir()); err == nil || badComponent(key) != "" || strings.HasSuffix(key, takeoverSuffix) {
			continue
		}
		lock, err := c.s.Lock(ctx, KeyLock(key), "a collection", nil)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			return err
		}
		err = os.Remove(c.s.lockPath(KeyLock(key)))
		lock.File().Close()
		if err != nil {
			return fmt.Errorf("remove an old lock: %w", err)
		}
	}
	return nil
}

// sweepLocksBelow removes old lock files that nobody has, and that are not
// needed again: those below a directory of the locks of things that end.
func (c *collector) sweepLocksBelow(ctx context.Context, kind string) error {
	if c.o.DryRun {
		return nil
	}
	var dirs []string
	err := filepath.WalkDir(c.s.lockPath(kind), func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return err
		}
		if e.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		fi, err := e.Info()
		if err != nil || fault.Now().Sub(fi.ModTime()) < c.o.PlaceAge || strings.HasSuffix(path, takeoverSuffix) {
			return nil
		}
		name, err := filepath.Rel(filepath.Join(c.s.dir, "locks"), path)
		if err != nil {
			return err
		}
		lock, err := c.s.Lock(ctx, filepath.ToSlash(name), "a collection", nil)
		if errors.Is(err, ErrBusy) {
			return nil
		}
		if err != nil {
			return err
		}
		err = os.Remove(path)
		lock.File().Close()
		return err
	})
	if err != nil && !noFile(err) {
		return fmt.Errorf("remove old locks: %w", err)
	}
	for _, d := range slices.Backward(dirs) {
		_ = os.Remove(d) // if it is empty; who wants a lock there makes it again
	}
	return nil
}
