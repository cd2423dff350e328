package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// findCheckpoint returns {resume}: the newest complete checkpoint in the work
// directories below base, as a path below {root}; "" if there is none.
func (r *run) findCheckpoint(base string) (string, error) {
	// takeWork has seen that nobody writes any more.
	found, err := stages.CheckpointSearch{Dir: base, Work: r.p.Work, Rule: r.p.Resume}.Newest()
	if err != nil || found.Path == "" {
		return "", err
	}
	rel, err := filepath.Rel(base, found.Path)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", found.Path, err)
	}
	return filepath.Join(r.places.Root, "work", rel), nil
}

// resumedFrom names the record of the run whose work directories this one
// goes on with, and the checkpoint.
func (r *run) resumedFrom(ctx context.Context, last lastTry) *stages.RecordLink {
	id := last.state.Run
	switch {
	case r.attempt.snapshot.Run != "":
		id = r.attempt.snapshot.Run
	case r.attempt.from != "":
		id = r.attempt.from
	}
	if !r.attempt.resumed || id == "" {
		return nil
	}
	link := &stages.RecordLink{Run: id, Snapshot: r.attempt.snapshot.Tree}
	if r.attempt.copied.Run != "" {
		link.Run, link.Snapshot = r.attempt.copied.Run, r.attempt.copied.Tree
		id = link.Run
	}
	if rel, err := filepath.Rel(filepath.Join(r.places.Root, "work"), r.places.Resume); err == nil && r.places.Resume != "" {
		link.Checkpoint = filepath.ToSlash(rel)
	}
	info, err := stages.FindRun(ctx, r.s, id)
	if err != nil || info.Tree.IsZero() {
		return link // a lost run has no record
	}
	entry, err := r.s.Lookup(ctx, info.Tree, "record.json")
	if err != nil {
		if !errors.Is(err, cas.ErrNotFound) {
			r.o.Log.Warn("read the record of the last run", "run", info.ID, "error", err)
		}
		return link
	}
	link.Record = entry.Digest
	return link
}

// copiedWork is where a copy of work directories grows until it is whole.
const copiedWork = "work-copied"

// beginFrom fills the work directories with the key's snapshot, where they are
// gone or older; without one those of a first try with a copy of those of the
// run that the stage names. All other tries go on with their own. kept is where
// work directories go that are older than the snapshot.
func (r *run) beginFrom(ctx context.Context, kept string) error {
	work := filepath.Join(r.place.Dir(), "work")
	copied := filepath.Join(r.place.Dir(), copiedWork)
	if err := removeAll(copied); err != nil { // of a try that was killed
		return err
	}
	if !r.o.Fresh {
		if r.o.BringSnapshot != nil && len(r.p.Work) > 0 {
			if err := r.o.BringSnapshot(ctx, r.p.Key); err != nil {
				return err
			}
		}
		if taken, err := r.fromSnapshot(ctx, work, copied, kept); taken || err != nil {
			return err
		}
	}
	if holds(work) {
		return nil
	}
	from := r.p.ResumeRun
	if from.ID == "" {
		return r.offerWork(ctx)
	}
	lock, err := r.s.Lock(ctx, cas.KeyLock(from.Key), "copying the work directories of "+from.ID, nil)
	if errors.Is(err, cas.ErrBusy) {
		return fmt.Errorf("%w: the work directories of %s cannot be copied while somebody has them: %w", ErrRefused, from.ID, err)
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	defer r.keepBeating(lock)()
	err = r.copyWork(ctx, from, copied)
	if errors.Is(err, errNoWork) {
		var taken bool
		if taken, err = r.copySnapshot(ctx, from, copied); err == nil && !taken {
			err = fmt.Errorf("nothing is left in the work directories of %s (%s), and there is no snapshot of them: %w: leave --resume-from out, or name another run",
				from.ID, filepath.Join(r.s.Place(from.Key).Dir(), "work"), cas.ErrNotFound)
		}
	}
	if err != nil {
		return err
	}
	// All of them appear at once: half of what a run left is not what it left.
	if err := removeAll(work); err != nil {
		return err
	}
	if err := os.Rename(copied, work); err != nil {
		return fmt.Errorf("put the copied work directories in place: %w", err)
	}
	r.attempt.from = from.ID
	return nil
}

// errNoWork: nothing is left that could be copied.
var errNoWork = errors.New("nothing is left")

// copySnapshot copies those of the newest snapshot of a run's key to dst, from
// wherever there is one. It reports whether it did. The caller has the key's lock.
func (r *run) copySnapshot(ctx context.Context, from stages.Run, dst string) (bool, error) {
	k, err := stages.ParseKey(from.Key)
	if err != nil {
		return false, err
	}
	if r.o.BringSnapshot != nil {
		if err := r.o.BringSnapshot(ctx, k); err != nil {
			return false, err
		}
	}
	list, err := stages.Snapshots(ctx, r.s, k)
	if err != nil {
		return false, err
	}
	progress, clear := r.o.Progress("copying the snapshot of the work directories of " + from.ID)
	defer clear()
	for _, snap := range list {
		err := r.checkSnapshot(ctx, snap.Tree, from.Work)
		any := false
		for _, w := range r.p.Work {
			if err != nil {
				break
			}
			var e cas.Entry
			if e, err = r.s.Lookup(ctx, snap.Tree, w); errors.Is(err, cas.ErrNotFound) {
				err = nil
				continue
			}
			if err == nil {
				any = true
				err = r.s.Checkout(ctx, e.Digest, filepath.Join(dst, w), cas.CheckoutOptions{Progress: progress})
			}
		}
		switch {
		case errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt):
			r.warn("the snapshot of the work directories of %s cannot be taken: %s", snap.Run, oneLine(err))
			if err := errors.Join(removeAll(dst), makeDir(dst)); err != nil {
				return false, err
			}
		case err != nil:
			return false, err
		case any:
			r.attempt.copied = snap
			return true, nil
		}
	}
	return false, nil
}

// copyWork copies the work directories that this stage has too to dst.
func (r *run) copyWork(ctx context.Context, from stages.Run, dst string) error {
	src := filepath.Join(r.s.Place(from.Key).Dir(), "work")
	if err := makeDir(dst); err != nil {
		return err
	}
	progress, clear := r.o.Progress("copying the work directories of " + from.ID)
	defer clear()
	any := false
	for _, w := range r.p.Work {
		dir := filepath.Join(src, w)
		if !slices.Contains(from.Work, w) || !holds(dir) {
			continue
		}
		open, err := firstOpenForWriting(ctx, dir)
		if err != nil {
			return err
		}
		if open != "" {
			return fmt.Errorf("%w: %s is still open for writing by %s: end it first", ErrRefused, open, r.s.Writers(open))
		}
		if err := cas.CopyDir(ctx, dir, filepath.Join(dst, w), progress); err != nil {
			return err
		}
		any = true
	}
	if !any {
		return errNoWork
	}
	return nil
}

// offerWork tells a person whose new key begins with empty work directories
// how to go on with those of an earlier run.
func (r *run) offerWork(ctx context.Context) error {
	if r.o.Fresh || len(r.p.Work) == 0 {
		return nil
	}
	run, ok, err := stages.LeftWork(ctx, r.s, r.p, func(run stages.Run) bool {
		dir := filepath.Join(r.s.Place(run.Key).Dir(), "work")
		return slices.ContainsFunc(r.p.Work, func(w string) bool {
			return slices.Contains(run.Work, w) && holds(filepath.Join(dir, w))
		})
	})
	if err != nil || !ok {
		return err
	}
	r.say("the work directories are empty; %s left some, and --resume-from %s begins with a copy of them", run.ID, run.ID)
	return nil
}
