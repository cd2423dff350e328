package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// snapshotLook is how often a run looks whether a checkpoint became complete.
// Only tests change it.
var snapshotLook = 5 * time.Second

// snapshots are those that a run makes of its work directories. Each is a tree
// of what was at rest when a checkpoint was complete: that checkpoint, and
// everything else that was not changed after it. So what was half written is in
// none, and the newest complete checkpoint in it is that one.
type snapshots struct {
	r    *run
	on   bool      // the run makes some
	last time.Time // of the checkpoint that the newest snapshot is for
	made time.Time // when that was made
	told bool      // others know of it, or are not to
}

// keepSnapshots makes snapshots until the returned function is called, which
// waits for one that is being made.
func (r *run) keepSnapshots(ctx context.Context) (stop func()) {
	// Of several nodes the first has them: the work directories are the same.
	if r.snapshots == nil || r.o.Snapshot <= 0 || len(r.p.Work) == 0 {
		return func() {}
	}
	r.snapshots.on, r.snapshots.told = true, true
	if list, err := stages.Snapshots(ctx, r.s, r.p.Key); err == nil && len(list) > 0 {
		r.snapshots.last = list[0].Time
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(snapshotLook)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if time.Since(r.snapshots.made) < r.o.Snapshot {
					continue
				}
				if err := r.snapshots.take(ctx, nil); err != nil && ctx.Err() == nil {
					r.warn("%s; the run goes on", oneLine(err))
					r.snapshots.made = time.Now() // not again at once
				}
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// settle ends what snapshots are for: a run that succeeded needs none, any
// other has one of its last checkpoint.
func (s *snapshots) settle(ctx context.Context, status stages.Status) {
	var err error
	switch {
	case status == stages.Succeeded:
		// Those that others have go when they have the result.
		err = stages.DropSnapshots(ctx, s.r.s, s.r.p.Key)
	case s.on:
		err = s.takeLast(ctx)
	}
	if err != nil {
		s.r.warn("%s", oneLine(err))
	}
}

// takeLast makes the snapshot of a run that has ended, which may be large and
// go far: a signal ends that, and what is lacking then is said.
func (s *snapshots) takeLast(ctx context.Context) error {
	r := s.r
	taking, stop := r.untilSignal(ctx)
	defer stop()
	progress, clear := r.o.Progress("keeping a copy of the work directories of " + r.id)
	err := s.take(taking, progress)
	clear()
	list, lerr := stages.Snapshots(ctx, r.s, r.p.Key)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	if len(list) > 0 {
		r.say("the store has a copy of the work directories, with checkpoint %s", list[0].Checkpoint)
	}
	if taking.Err() == nil || err == nil {
		return err
	}
	switch {
	case len(list) > 0 && list[0].Run == r.id && !s.told:
		r.warn("interrupted: the remotes have not got that checkpoint; only this machine can go on from it")
	case len(list) > 0:
		r.warn("interrupted: there is no copy of what came after that checkpoint; only the next try on this machine finds it, in place")
	default:
		r.warn("interrupted: there is no copy of the work directories; only the next try on this machine finds them, in place")
	}
	return nil
}

// tell tells others of the newest snapshot, if they do not know it.
func (s *snapshots) tell(ctx context.Context) error {
	r := s.r
	if s.told || r.o.Snapshotted == nil {
		return nil
	}
	list, err := stages.Snapshots(ctx, r.s, r.p.Key)
	if err != nil || len(list) == 0 {
		return err
	}
	if err := r.o.Snapshotted(ctx, r.p.Key, list[0]); err != nil {
		return err
	}
	s.told = true
	return nil
}

// take makes a snapshot if there is a complete checkpoint that none is for.
// progress may be nil.
func (s *snapshots) take(ctx context.Context, progress cas.Progress) error {
	r := s.r
	work := filepath.Join(r.place.Dir(), "work")
	search := stages.CheckpointSearch{Dir: work, Work: r.p.Work, Rule: r.p.Resume, After: s.last, BeingWritten: func(path string) bool {
		busy, err := hasWriter(path)
		return busy || err != nil
	}}
	found, err := search.Newest()
	if err != nil || found.Path == "" {
		return errors.Join(err, s.tell(ctx))
	}
	skip := func(path string, mtime time.Time) bool {
		if path == found.Path || strings.HasPrefix(path, found.Path+string(filepath.Separator)) {
			return false
		}
		return mtime.After(found.Time) || search.BeingWritten(path)
	}
	added, err := r.s.Snapshot(ctx, work, skip, progress)
	if err != nil {
		return err
	}
	defer added.Release()
	// Files are whole one by one; that the checkpoint is, too, is known when
	// nothing of it changed meanwhile.
	again, err := search.Newest()
	if err != nil {
		return err
	}
	if again.Path == found.Path && !again.Time.Equal(found.Time) || !found.Unchanged() {
		return nil // the next look finds it complete again, or another
	}
	rel, err := filepath.Rel(work, found.Path)
	if err != nil {
		return err
	}
	if _, err := r.s.Lookup(ctx, added.Tree, filepath.ToSlash(rel)); err != nil {
		return nil // it was removed
	}
	fault.At(fault.SnapshotStored)
	snap, err := stages.PutSnapshot(ctx, r.s, r.p.Key, stages.Snapshot{
		Run: r.id, Attempt: r.attempt.number, Checkpoint: filepath.ToSlash(rel), Time: found.Time, Tree: added.Tree})
	if err != nil {
		return err
	}
	s.last, s.made, s.told = found.Time, time.Now(), false
	r.o.Log.Info("work directories have a snapshot", "run", r.id, "checkpoint", snap.Checkpoint, "n", snap.N)
	return s.tell(ctx)
}

// fromSnapshot fills the work directories with the newest snapshot of the key,
// where they hold no newer checkpoint. It reports whether it did.
func (r *run) fromSnapshot(ctx context.Context, work, copied, kept string) (bool, error) {
	list, err := stages.Snapshots(ctx, r.s, r.p.Key)
	if err != nil || len(list) == 0 || len(r.p.Work) == 0 {
		return false, err
	}
	if holds(work) {
		local, err := stages.CheckpointSearch{Dir: work, Work: r.p.Work, Rule: r.p.Resume}.Newest()
		if err != nil || !list[0].Time.After(local.Time) {
			return false, err
		}
	}
	for _, snap := range list {
		if err := r.checkSnapshot(ctx, snap.Tree, r.p.Work); err != nil {
			r.warn("the snapshot of the work directories of %s cannot be taken: %s", snap.Run, oneLine(err))
			continue
		}
		progress, clear := r.o.Progress("taking the work directories of " + snap.Run)
		err := r.s.Checkout(ctx, snap.Tree, copied, cas.CheckoutOptions{Progress: progress})
		clear()
		if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
			r.warn("the snapshot of the work directories of %s cannot be taken: %s", snap.Run, oneLine(err))
			continue
		}
		if err != nil {
			return false, err
		}
		if err := moveAside(work, kept); err != nil {
			return false, err
		}
		if err := os.Rename(copied, work); err != nil {
			return false, fmt.Errorf("put the snapshot of the work directories in place: %w", err)
		}
		r.attempt.snapshot = snap
		return true, nil
	}
	return false, nil
}

// checkSnapshot refuses one that no run with these work directories could have
// made: it may come from a remote. What its links led to would be written to.
func (r *run) checkSnapshot(ctx context.Context, tree cas.Digest, dirs []string) error {
	return r.s.Walk(ctx, tree, func(name string, e cas.Entry) error {
		switch {
		case !strings.Contains(name, "/") && (e.Kind != cas.KindDir || !slices.Contains(dirs, name)):
			return fmt.Errorf("%s is no work directory of the stage: %w", name, cas.ErrCorrupt)
		case e.Kind == cas.KindSymlink && !staysBelow(path.Dir(name), e.Target):
			return fmt.Errorf("the link %s leads out, to %s: %w", name, e.Target, cas.ErrCorrupt)
		}
		return nil
	})
}

// staysBelow reports whether a link in the directory dir, a path of real
// directories, stays among the work directories, whatever else is a link.
func staysBelow(dir, target string) bool {
	depth := strings.Count(dir, "/") + 1 // ".." that stay among the work directories
	down := false
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "..":
			if depth--; down || depth < 0 {
				return false
			}
		case part != "" && part != ".":
			down = true
		}
	}
	return !strings.HasPrefix(target, "/")
}
