package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// CollectOptions of [Store.Collect].
type CollectOptions struct {
	DryRun bool
	// Expire picks refs to remove; the time is that of the last use. nil: none.
	// It may be called for a ref that is kept in the end, as it was used just then.
	Expire     func(Ref, time.Time) bool
	PlaceAge   time.Duration // inactive places in which nothing changed for this long go with their work directories; 0: none
	StagingAge time.Duration // abandoned staging older than this goes
	PartialAge time.Duration // partial blobs, and lazy trees that nothing names, that nobody opened for this long go; 0: none but those that are stored whole
	Progress   Progress      // files are blobs
}

// CollectReport says what was, or with DryRun would be, removed.
type CollectReport struct {
	RemovedBlobs int64 `json:"removed_blobs"`
	RemovedBytes int64 `json:"removed_bytes"` // of blobs, outboards, trees, places and staging
	KeptBlobs    int64 `json:"kept_blobs"`
	RemovedRefs  int64 `json:"removed_refs"`
	RemovedTrees int64 `json:"removed_trees"`
	// RemovedPlaces counts working areas, with the work directories in them.
	RemovedPlaces int64 `json:"removed_places"`
}

// Collect removes what no ref, version, pin or active place needs. Safe beside
// everything, in any process: commits wait while it sweeps. If a name or a tree
// that is needed cannot be read, nothing is removed and the error has its path.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (CollectReport, error) {
	r, err := s.collect(ctx, o)
	if err != nil {
		return r, fmt.Errorf("collect in %s: %w", s.dir, err)
	}
	return r, nil
}

func (s *Store) collect(ctx context.Context, o CollectOptions) (r CollectReport, err error) {
	c := &collector{s: s, o: o, m: s.newMarker(), r: &r}
	expired, err := c.pickExpired(ctx)
	if err != nil {
		return r, err
	}
	// Once while others go on, so that the second time, while they wait, there
	// is little left to read. What fails here may just have changed.
	if roots, err := c.roots(ctx, expired); err != nil || c.m.mark(ctx, roots) != nil {
		c.m = s.newMarker()
	}
	if err := c.sweepAlone(ctx, expired); err != nil {
		return r, err
	}
	if err := c.sweepPlaces(ctx); err != nil {
		return r, err
	}
	if err := s.makeDirs(filepath.Join(s.dir, "staging")); err != nil && !o.DryRun {
		return r, err
	}
	_, n, err := s.sweepStaging(ctx, o.StagingAge, o.DryRun, func(d Digest) bool { return c.m.trees[d] })
	if err != nil {
		return r, err
	}
	r.RemovedBytes += n
	if err := c.sweepPartial(ctx); err != nil {
		return r, err
	}
	if !o.DryRun {
		s.keepSpare()
	}
	if c.changed || !o.DryRun && r.RemovedRefs > 0 {
		return r, s.Refresh(ctx)
	}
	return r, nil
}

type collector struct {
	s    *Store
	o    CollectOptions
	m    *marker
	r    *CollectReport
	void []string // pins

	changed bool // what mounts show
}

// sweepAlone marks and sweeps while no commit is under way. A dry run only
// keeps other collections out.
func (c *collector) sweepAlone(ctx context.Context, expired map[string]expiry) error {
	lock := c.s.stopCommits
	if c.o.DryRun {
		lock = c.s.shareCommit
	}
	release, err := lock(ctx)
	if c.o.DryRun && cannotWrite(err) {
		release, err = func() {}, nil // nobody who could write has made the lock's file
	}
	if err != nil {
		return err
	}
	defer release()
	for name, e := range expired {
		if !e.stillSo(c.s, name) {
			delete(expired, name)
		}
	}
	c.void = nil
	roots, err := c.roots(ctx, expired)
	if err != nil {
		return err
	}
	if err := c.m.mark(ctx, roots); err != nil {
		return err
	}
	if err := c.s.takenBlobs(func(d Digest) { c.m.blobs[d] = true }); err != nil {
		return err
	}
	fault.At(fault.CollectMarked)
	if err := c.dropRefs(ctx, expired); err != nil {
		return err
	}
	fault.At(fault.CollectRefs)
	return c.sweep(ctx)
}

// roots lists all that is needed once the expired refs are gone.
func (c *collector) roots(ctx context.Context, expired map[string]expiry) ([]root, error) {
	named, err := c.s.namedRoots(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: nothing was removed; repair that name or remove it", err)
	}
	held, err := c.s.heldRoots(ctx, c.o.PlaceAge, func(path string) { c.void = append(c.void, path) })
	if err != nil {
		return nil, err
	}
	lazy, err := c.recentLazy(ctx)
	if err != nil {
		return nil, err
	}
	held = append(held, lazy...)
	for _, r := range named {
		if _, gone := expired[r.by]; !gone {
			held = append(held, r)
		}
	}
	return held, nil
}

// expiry is a ref as it was when it was picked.
type expiry struct {
	tree Digest
	used time.Time
}

func (e expiry) stillSo(s *Store, name string) bool {
	r, err := s.readRef(name)
	if err != nil || r.Tree != e.tree {
		return false
	}
	fi, err := os.Stat(s.refPath(name))
	return err == nil && fi.ModTime().Equal(e.used)
}

// pickExpired asks for each ref; not under a lock, as the caller's function
// may do what it likes.
func (c *collector) pickExpired(ctx context.Context) (map[string]expiry, error) {
	expired := map[string]expiry{}
	if c.o.Expire == nil {
		return expired, nil
	}
	for r, err := range c.s.Refs(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("%w: nothing was removed; repair that ref or remove it", err)
		}
		fi, err := os.Stat(c.s.refPath(r.Name))
		if noFile(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.o.Expire(r, fi.ModTime()) {
			expired[r.Name] = expiry{r.Tree, fi.ModTime()}
		}
	}
	return expired, nil
}

func (c *collector) dropRefs(ctx context.Context, expired map[string]expiry) error {
	for name := range expired {
		if !c.o.DryRun {
			if err := c.s.DeleteRef(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		c.r.RemovedRefs++
	}
	return nil
}
