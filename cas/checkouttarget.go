package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A target is the directory that a checkout makes. It is filled under another
// name beside its own, which it gets when it is whole: a checkout that is cut
// off leaves nothing that looks done. An empty directory that is there already
// is filled as it is, as it may be somebody's current directory.
type target struct {
	dir  string   // absolute
	fill string   // the directory to fill
	lock *os.File // fill, locked while this process fills it; nil if it is dir
}

// checkoutTarget makes nothing yet.
func checkoutTarget(dir string) *target {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return &target{dir: dir, fill: dir}
	}
	return &target{dir: dir, fill: unfinished(dir) + randomHex(4)}
}

// unfinished begins the names under which dir is filled. They are short,
// however long its own name is.
func unfinished(dir string) string {
	return filepath.Join(filepath.Dir(dir), ".curi-"+Sum([]byte(filepath.Base(dir))).Short()+".")
}

// make makes the directory to fill, if need be with parents, or accepts an
// empty one. undo removes what was made, and everything in it.
func (t *target) make() (undo func() error, err error) {
	ents, err := os.ReadDir(t.dir)
	switch {
	case err == nil && len(ents) > 0:
		return nil, fmt.Errorf("the directory is not empty: choose another or remove it: %w", ErrExists)
	case err == nil && t.fill == t.dir:
		return func() error { return removeBelow(t.dir) }, nil
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("there is a file in the way (%w): %w", err, ErrExists)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case t.fill == t.dir:
		return nil, fmt.Errorf("a symlink that leads nowhere is in the way: %w", ErrExists)
	}
	t.sweep()
	var parents []string // that lack, lowest first
	for parent := filepath.Dir(t.dir); ; parent = filepath.Dir(parent) {
		if _, err := os.Stat(parent); err == nil || parent == filepath.Dir(parent) {
			break
		}
		parents = append(parents, parent)
	}
	undo = func() error {
		err := removeAll(t.fill)
		// Others may have put something into the parents by now.
		for _, parent := range parents {
			os.Remove(parent)
		}
		return err
	}
	if err = os.MkdirAll(t.fill, 0o755); err == nil {
		t.lock, err = os.Open(t.fill)
	}
	if err != nil {
		return nil, also(err, undo())
	}
	_ = flock(t.lock, unix.LOCK_EX|unix.LOCK_NB) // NFS locks no directory
	return undo, nil
}

// sweep removes what checkouts to the same directory left that were cut off.
func (t *target) sweep() {
	ents, _ := os.ReadDir(filepath.Dir(t.dir))
	for _, e := range ents {
		dir := filepath.Join(filepath.Dir(t.dir), e.Name())
		if !strings.HasPrefix(dir, unfinished(t.dir)) {
			continue
		}
		d, err := os.Open(dir)
		if err != nil {
			continue
		}
		if free, err := tryFlock(d, unix.LOCK_EX); free && err == nil {
			removeAll(dir)
		}
		d.Close()
	}
}

// name gives the directory its name.
func (t *target) name() error {
	if t.fill == t.dir {
		return nil
	}
	err := renameNew(t.fill, t.dir)
	if errors.Is(err, errRenameNew) {
		err = os.Rename(t.fill, t.dir) // over nothing or an empty directory
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) || isNotEmpty(err) {
		err = fmt.Errorf("something else was made there meanwhile: choose another or remove it: %w", ErrExists)
	}
	return err
}

func (t *target) close() {
	if t.lock != nil {
		t.lock.Close()
	}
}

func removeBelow(dir string) error {
	ents, err := os.ReadDir(dir)
	for _, e := range ents {
		if rerr := removeAll(filepath.Join(dir, e.Name())); err == nil {
			err = rerr
		}
	}
	return err
}
