package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/curi-store/curi/cas"
)

// movePlace makes the place of the key lie where this try wants it: below
// Places, with a link in the store, or in the store itself. What it holds, work
// directories above all, moves with it. The caller holds the key's lock. Whoever
// does that next ends what a process that died began.
func (r *run) movePlace(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := r.place.Dir()
	want := dir
	if r.o.Places != "" {
		if err := r.checkPlaces(r.deepest()); err != nil {
			return err
		}
		want = r.placesRoot()
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	err := r.move(ctx, dir, want)
	if err != nil && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("move the places of stage %s to %s: %w", r.p.Name, want, err)
	}
	return err
}

// aside is where in the store a place is for a moment that moves.
func aside(dir string) string {
	return filepath.Join(filepath.Dir(dir), ".moving-"+filepath.Base(dir))
}

func (r *run) move(ctx context.Context, dir, want string) error {
	if err := endMove(dir); err != nil {
		return err
	}
	is, err := liesAt(dir)
	if err != nil {
		return err
	}
	if is != "" && is != dir && !there(is) && (want == dir || !there(want)) {
		if err := r.placeGone(is); err != nil {
			return err
		}
	}
	switch {
	case is == want:
		return makeRoot(dir, want)
	case is == "", is != dir && !there(is):
		if is != "" {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
		if want == dir {
			return nil
		}
		if err := makeRoot(dir, want); err != nil {
			return err
		}
		return os.Symlink(want, dir)
	}
	// What lies where it is to go is left over: the place is what the store says.
	if want != dir {
		if err := removeAll(want); err != nil {
			return err
		}
	}
	if err := r.carry(ctx, is, dir, want); err != nil {
		return err
	}
	if is != dir {
		return removeAll(is)
	}
	return nil
}

// carry moves a place from where it is to where it is wanted, of which one may
// be dir. A copy may be left behind.
func (r *run) carry(ctx context.Context, is, dir, want string) error {
	to := want
	if want == dir {
		to = aside(dir)
	}
	err := os.Rename(is, to)
	if errors.Is(err, syscall.EXDEV) {
		for _, d := range []string{"in", "in-rw", "tmp"} { // each try makes them anew
			if err := removeAll(filepath.Join(is, d)); err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
		progress, clear := r.o.Progress("moving the places of the last try")
		err = cas.CopyWhole(ctx, is, to, progress)
		clear()
	}
	if err != nil {
		return err
	}
	if want == dir {
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.Rename(to, dir)
	}
	if is == dir {
		if err := os.Rename(dir, aside(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Symlink(want, dir); err != nil {
			return err
		}
		return removeAll(aside(dir))
	}
	link := aside(dir)
	if err := os.Symlink(want, link); err != nil {
		return err
	}
	return os.Rename(link, dir)
}

// endMove ends a move that a process began which died.
func endMove(dir string) error {
	moving := aside(dir)
	fi, err := os.Lstat(moving)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	is, err := liesAt(dir)
	switch {
	case err != nil:
		return err
	case fi.IsDir() && is == "":
		return os.Rename(moving, dir)
	case fi.IsDir() && is != dir && !there(is):
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.Rename(moving, dir)
	}
	return removeAll(moving)
}

// liesAt is where a place is: dir itself, where a link there leads, or "".
func liesAt(dir string) (string, error) {
	fi, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case fi.Mode()&fs.ModeSymlink != 0:
		return os.Readlink(dir)
	}
	return dir, nil
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// placeGone is a place that is not where the last try left it. Where even the
// directory above is not, it is probably not mounted here, and its work
// directories are not given up.
func (r *run) placeGone(is string) error {
	above := filepath.Dir(is)
	switch {
	case len(r.p.Work) == 0 || r.o.Fresh:
	case !there(above):
		return fmt.Errorf("%w: the work directories of the last try are in %s, and there is no %s here: mount it, or begin with empty ones (--fresh)", ErrRefused, is, above)
	default:
		r.warn("the work directories of the last try are no more where they were (%s): this one begins with empty ones", is)
	}
	return nil
}

// makeRoot makes the directory of a place, if it is not there, with the mode of
// those in the store, and removes what a collection left of an earlier one.
func makeRoot(dir, want string) error {
	if want == dir {
		return nil
	}
	if err := os.Mkdir(want, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if parent, err := os.Stat(filepath.Dir(dir)); err == nil {
		_ = os.Chmod(want, parent.Mode().Perm()&0o075|0o700|parent.Mode()&fs.ModeSetgid)
	}
	return removeAll(want + ".gone")
}
