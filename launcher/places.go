package launcher

import (
	"errors"
	"fmt"
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
	if err := syscall.Access(e.o.Places, 2|1); err != nil { // to write and to look
		return fmt.Errorf("%w: --places %s cannot be written (%w): name a directory that you may write to, on a filesystem that all nodes see", ErrRefused, e.o.Places, err)
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
