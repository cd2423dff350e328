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

// placesRoot is where the place of this call's key lies with Options.Places: on
// a path that is the same on all nodes, whatever the store's.
func (e *execution) placesRoot() string {
	return filepath.Join(e.o.Places, e.s.ID()[:8]+"-"+cas.ShortKey(e.p.Key.String()))
}

// checkPlaces refuses a directory below which no place could lie.
func (e *execution) checkPlaces(deepest string) error {
	root := e.placesRoot()
	if !shortEnough(filepath.Join(root, deepest)) {
		return fmt.Errorf("%w: --places %s: TMPDIR of a run would be %s, longer than the %d bytes that sockets below it leave room for: name a shorter directory", ErrRefused, e.o.Places, filepath.Join(root, deepest, "tmp"), maxTmp)
	}
	if fi, err := os.Stat(e.o.Places); err != nil || !fi.IsDir() {
		return fmt.Errorf("%w: --places %s is no directory: make it, on a filesystem that all nodes see", ErrRefused, e.o.Places)
	}
	return nil
}

// movePlace makes the place of the key lie where this try wants it: below
// Places, with a link in the store, or in the store itself. What it holds, work
// directories above all, moves with it.
func (r *run) movePlace() error {
	dir, want := r.place.Dir(), ""
	if r.o.Places != "" {
		if err := r.checkPlaces(r.deepest()); err != nil {
			return err
		}
		want = r.placesRoot()
	}
	fi, err := os.Lstat(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	is := ""
	switch {
	case err != nil:
	case fi.Mode()&fs.ModeSymlink != 0:
		if is, err = os.Readlink(dir); err != nil {
			return err
		}
	default:
		is = dir
	}
	if want == "" && (is == "" || is == dir) || want != "" && is == want {
		return nil
	}
	to := want
	if to == "" {
		to = dir
	}
	if is != "" && is != dir { // from here on nothing but this process knows where it is
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	switch {
	case is == "" && want != "":
		if err := os.Mkdir(want, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if parent, err := os.Stat(filepath.Dir(dir)); err == nil {
			_ = os.Chmod(want, parent.Mode().Perm()&0o075|0o700|parent.Mode()&fs.ModeSetgid)
		}
	default:
		err := os.Rename(is, to)
		if errors.Is(err, fs.ErrNotExist) && is != dir {
			return nil // it was removed there: this try makes it anew
		}
		if err != nil {
			return err
		}
	}
	if want == "" {
		return nil
	}
	return os.Symlink(want, dir)
}

// place moves the place, and says what is wrong with the directory.
func (r *run) placeWhereWanted(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.o.Places != "" {
		if err := sameFilesystem(r.s.Dir(), r.o.Places); err != nil {
			return err
		}
		if err := makeDir(filepath.Dir(r.place.Dir())); err != nil {
			return err
		}
	}
	err := r.movePlace()
	if err != nil && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("move the places of stage %s: %w", r.p.Name, err)
	}
	return err
}

// sameFilesystem refuses places from which outputs could not be renamed into
// the store.
func sameFilesystem(store, places string) error {
	var a, b syscall.Stat_t
	if err := syscall.Stat(store, &a); err != nil {
		return fmt.Errorf("%s: %w", store, err)
	}
	if err := syscall.Stat(places, &b); err != nil {
		return fmt.Errorf("%w: --places %s: %w: make it, on a filesystem that all nodes see", ErrRefused, places, err)
	}
	if a.Dev != b.Dev {
		return fmt.Errorf("%w: --places %s is on another filesystem than the store %s, to which outputs are renamed: name a directory on the store's, or put the store on this one", ErrRefused, places, store)
	}
	return nil
}

// realDir is where a place lies: outputs are sealed from no path with a link in
// it.
func realDir(p *cas.Place) string {
	if dir, err := filepath.EvalSymlinks(p.Dir()); err == nil {
		return dir
	}
	return p.Dir()
}

// plainRoot is {root} without a mount: the place itself, by a short link
// where the store lies too deep.
// deepest is where below it TMPDIR is.
func plainRoot(s *cas.Store, key, deepest string) (string, error) {
	if root := rootIn(s.Dir(), key); shortEnough(filepath.Join(root, deepest)) {
		return root, nil
	}
	if err := cas.MakeUserDir(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMount, err)
	}
	link := plainLink(s)
	for range 3 { // another call may make it at the same time
		if to, err := os.Readlink(link); err == nil && to == s.Dir() {
			return rootIn(link, key), nil
		}
		sweepLinks(cas.UserDir())
		tmp := fmt.Sprintf("%s.%d", link, os.Getpid())
		_ = os.Remove(tmp)
		if err := os.Symlink(s.Dir(), tmp); err != nil {
			return "", fmt.Errorf("make a short path to the store: %w", err)
		}
		if err := os.Rename(tmp, link); err != nil {
			return "", fmt.Errorf("make a short path to the store: %w", err)
		}
	}
	return rootIn(link, key), nil
}

// plainLink is the short link to a store that lies too deep.
func plainLink(s *cas.Store) string { return filepath.Join(cas.UserDir(), s.ID()[:8]+"s") }

// sweepLinks removes the short paths of stores that are gone.
func sweepLinks(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type()&os.ModeSymlink == 0 {
			continue
		}
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(path)
		}
	}
}
