package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// maxTmp is how long TMPDIR may be: Unix sockets that multiprocessing makes
// below it must stay within their limit of about 108 bytes.
const maxTmp = 60

// rootFile keeps the {root} of the last try, so that the next one has the
// same: what a program wrote about its paths into its checkpoints stays true.
const rootFile = "root"

// writeRoot replaces that file, which may be another user's.
func writeRoot(path, root string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(root), 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644) // whatever the umask: the next try may be another user's
}

// preparePlace empties what each try makes anew and keeps what the next try
// of the key is offered. The mounts still show it closed.
func (r *run) preparePlace(ctx context.Context, last lastTry) error {
	dir := r.place.Dir()
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := r.place.SetSealing(ctx, true); err != nil {
		return err
	}
	// Before it is moved aside: half of an output that was being sealed is none.
	if err := r.s.PutBack(ctx, r.dir()); err != nil {
		return err
	}
	kept := filepath.Join(dir, "old", "unnamed")
	if last.state.Run != "" {
		kept = filepath.Join(dir, "old", last.state.Run)
	}
	// What a failed run wrote may be all that somebody has of it (--accept):
	// it is moved away, and goes when the place goes or two runs later.
	aside := []string{"out", "logs", "leftover"}
	if r.o.Fresh {
		aside = append(aside, "work")
	}
	if err := removeNodeDirs(dir, kept); err != nil {
		return err
	}
	for _, d := range aside {
		if err := moveAside(filepath.Join(dir, d), filepath.Join(kept, d)); err != nil {
			return err
		}
	}
	pruneOld(filepath.Join(dir, "old"), last.state.Run)
	for _, d := range []string{"in", "in-rw", "tmp"} {
		err := removeAll(filepath.Join(dir, d))
		if errors.Is(err, fs.ErrPermission) { // another user's, who kept others out
			err = moveAside(filepath.Join(dir, d), filepath.Join(kept, d))
		}
		if err != nil {
			return err
		}
	}
	if err := r.makePlaces(dir, "out", "logs", "tmp", "work"); err != nil {
		return err
	}
	if err := r.beginFrom(ctx, filepath.Join(kept, "work")); err != nil {
		return err
	}
	for _, w := range r.p.Work {
		if err := makeDir(filepath.Join(dir, "work", w)); err != nil {
			return err
		}
	}
	return r.takeWork(ctx, last, filepath.Join(kept, "work"))
}

// takeWork looks at the work directories: whether they hold something of an
// earlier try, and that nobody still writes there. One that holds what another
// user kept to himself, and was killed before that could be shared, is moved
// to kept, and this try begins without.
func (r *run) takeWork(ctx context.Context, last lastTry, kept string) error {
	r.attempt.number = 1
	for _, w := range r.p.Work {
		dir := filepath.Join(r.place.Dir(), "work", w)
		open := ""
		found, err := holdsFiles(dir)
		if found && err == nil {
			open, err = firstOpenForWriting(ctx, dir)
		}
		switch {
		case errors.Is(err, fs.ErrPermission):
			to := filepath.Join(kept, w)
			r.warn("work directory %s holds what only another user may read (%s): it begins empty; that is kept in %s", w, oneLine(err), to)
			if err := errors.Join(moveAside(dir, to), makeDir(dir)); err != nil {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("look at work directory %s: %w", w, err)
		case open != "":
			return fmt.Errorf("%w: %s is still open for writing by %s, which is not of this run: end it, or start with empty work directories (--fresh)", ErrRefused, open, r.s.Writers(open))
		case found:
			r.attempt.resumed = true
			switch {
			case r.attempt.snapshot.Run != "":
				r.attempt.number = max(last.state.Attempt, r.attempt.snapshot.Attempt) + 1
			case r.attempt.from == "":
				r.attempt.number = last.state.Attempt + 1
			}
		}
	}
	r.attempt.number = max(r.attempt.number, r.try)
	return nil
}

// fillInputs makes the copies that inputs need: all of them without a mount,
// the private writable ones always.
func (r *run) fillInputs(ctx context.Context) error {
	for _, in := range r.p.In {
		sub := "in"
		if in.Writable {
			sub = "in-rw"
		} else if r.mount != nil {
			continue
		}
		// The real path: if there is no space, it tells where.
		dst := filepath.Join(realDir(r.place), sub, in.Name)
		if err := makeDir(filepath.Dir(dst)); err != nil {
			return err
		}
		if err := r.copyInput(ctx, in, dst); err != nil {
			return err
		}
		if in.Writable && r.mount == nil {
			// {in.N} is the same path with and without a mount.
			if err := makeDir(filepath.Join(r.place.Dir(), "in")); err != nil {
				return err
			}
			if err := os.Rename(dst, filepath.Join(r.place.Dir(), "in", in.Name)); err != nil {
				return fmt.Errorf("make the copy of input %s: %w", in.Name, err)
			}
		}
	}
	return nil
}

// copyInput makes a copy of an input at dst.
func (r *run) copyInput(ctx context.Context, in stages.BoundInput, dst string) error {
	progress, clear := r.o.Progress("copying input " + in.Name)
	defer clear()
	if err := r.s.Checkout(ctx, in.Tree, dst, cas.CheckoutOptions{ReadOnly: !in.Writable, Progress: progress}); err != nil {
		return fmt.Errorf("make the copy of input %s: %w", in.Name, err)
	}
	return nil
}

// state is what the mounts are to show while the run lasts.
func (r *run) state() cas.PlaceState {
	st := cas.PlaceState{Key: r.p.Key.String(), Run: r.id, Attempt: r.attempt.number, Active: true, Inputs: map[string]cas.Digest{}}
	if r.mount != nil {
		st.Mount = r.mount.ID
	}
	for _, in := range r.p.In {
		st.Inputs[in.Name] = in.Tree
		if in.Writable {
			st.Rw = append(st.Rw, in.Name)
		}
	}
	return st
}

// open makes the place writable and tells the mounts.
func (r *run) open(ctx context.Context) error {
	if err := r.place.SetState(ctx, r.state()); err != nil {
		return err
	}
	if err := r.place.SetSealing(ctx, false); err != nil {
		return err
	}
	if r.mount != nil {
		if err := r.s.Refresh(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrMount, err)
		}
	}
	return nil
}

// paths are the absolute paths below root, for the command.
func (r *run) paths(root string) stages.Places {
	pl := stages.Places{Root: root, Logs: filepath.Join(root, "logs"), Tmp: filepath.Join(root, "tmp"), Run: r.id,
		In: map[string]string{}, Out: map[string]string{}, Work: map[string]string{}}
	for _, in := range r.p.In {
		pl.In[in.Name] = filepath.Join(root, "in", in.Name, filepath.FromSlash(in.Single))
	}
	for _, out := range r.p.Outputs {
		pl.Out[out.Name] = outPath(filepath.Join(root, "out"), out)
	}
	for _, w := range r.p.Work {
		pl.Work[w] = filepath.Join(root, "work", w)
	}
	return pl
}

// makeDir makes a directory with the mode of the directory above it, so that
// the places of a store that is shared by a group are too. Parents are made.
func makeDir(dir string) error {
	if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	fi, err := os.Stat(parent)
	if err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	// The user's own bits always; the group's where the store has them.
	mode := fi.Mode().Perm()&0o075 | 0o700 | fi.Mode()&fs.ModeSetgid
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}

// moveAside moves what dir holds to kept; an empty dir goes.
func moveAside(dir, kept string) error {
	found, err := holdsFiles(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		found = true // another user's, and as good as full
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("move %s away: %w", dir, err)
	}
	if !found {
		return removeAll(dir)
	}
	if err := makeDir(filepath.Dir(kept)); err != nil {
		return err
	}
	if err := removeAll(kept); err != nil {
		return err
	}
	if err := os.Rename(dir, kept); err != nil {
		return fmt.Errorf("move %s away: %w", dir, err)
	}
	return nil
}

// pruneOld keeps what earlier tries left for the newest two only; work
// directories that --fresh moved away stay with the place.
func pruneOld(old, newest string) {
	entries, _ := os.ReadDir(old)
	type try struct {
		name string
		time time.Time
	}
	var tries []try
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && e.Name() != newest {
			tries = append(tries, try{e.Name(), fi.ModTime()})
		}
	}
	slices.SortFunc(tries, func(a, b try) int { return b.time.Compare(a.time) })
	for i, t := range tries {
		if i < 1 {
			continue
		}
		for _, d := range []string{"out", "logs", "leftover", "in", "in-rw", "tmp"} {
			_ = removeAll(filepath.Join(old, t.name, d))
		}
		_ = os.Remove(filepath.Join(old, t.name)) // if nothing else is in it
	}
}

// removeAll removes a tree, read-only directories included.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if errors.Is(err, fs.ErrPermission) {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		// Directories below an unreadable one are seen only now.
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// holdsFiles reports whether anything but directories lies below dir.
func holdsFiles(dir string) (bool, error) {
	found := false
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found, err
}

// makePlaces makes directories of a run below dir, and those that its outputs
// are written to.
func (r *run) makePlaces(dir string, names ...string) error {
	for _, d := range names {
		if err := makeDir(filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	for _, out := range r.p.Outputs {
		d := outPath(filepath.Join(dir, "out"), out)
		if !out.Dir {
			d = filepath.Dir(d)
		}
		if err := makeDir(d); err != nil {
			return err
		}
	}
	return nil
}
