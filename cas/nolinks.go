package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What is taken into the store lies at names that a program may change still:
// another file may stand there by now, or a directory above it be a symbolic
// link to anywhere. These functions go over no link, not even in the midst of a
// path, and take no file but the one that is meant.

// noLinksError explains what the system said of a path that may be such.
func noLinksError(op, path string, err error) error {
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%s %s: it or a directory above it has become a symbolic link: %w", op, path, ErrBusy)
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// inDir calls fn with the directory of path, opened, and the name in it. While
// fn works the directory cannot become another.
func inDir(op, path string, fn func(dir int, name string) error) error {
	fd, err := openNoLinks(filepath.Dir(path), pathOnly|unix.O_DIRECTORY)
	if err != nil {
		return noLinksError(op, path, err)
	}
	defer unix.Close(fd)
	if err := retryEINTR(func() error { return fn(fd, filepath.Base(path)) }); err != nil {
		return noLinksError(op, path, err)
	}
	return nil
}

// errSwapped: the name leads to another file than it did.
var errSwapped = fmt.Errorf("another file stands there by now; try again when nothing writes there: %w", ErrBusy)

// takeAway renames the file at path, which must be the one of state st, to the
// name to, of a directory that is the caller's alone. errSwapped: it is another
// one, and stays.
func takeAway(path, to string, st fileState) error {
	return inDir("take", path, func(dir int, name string) error {
		if err := unix.Renameat(dir, name, unix.AT_FDCWD, to); err != nil {
			return err
		}
		now, err := lstatFile(to)
		if err == nil && now.dev == st.dev && now.ino == st.ino {
			return nil
		}
		return also(errSwapped, putThere(to, dir, name))
	})
}

// putBack moves the file from to the name path, which must be free.
func putBack(from, path string) error {
	return inDir("put back", path, func(dir int, name string) error { return putThere(from, dir, name) })
}

func putThere(from string, dir int, name string) error {
	// By a link first: it replaces nothing.
	err := unix.Linkat(unix.AT_FDCWD, from, dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return also(err, os.Remove(from))
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP): // a filesystem without
		return unix.Renameat(unix.AT_FDCWD, from, dir, name)
	}
	return err
}

// linkBack gives the file from the additional name path, which must be free.
func linkBack(from, path string) error {
	return inDir("put back", path, func(dir int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, from, dir, name, 0)
	})
}

// lstatNoLinks is lstatFile of a path that leads over no link but perhaps is one.
func lstatNoLinks(path string) (st fileState, err error) {
	err = inDir("lstat", path, func(dir int, name string) error {
		var s unix.Stat_t
		err := unix.Fstatat(dir, name, &s, unix.AT_SYMLINK_NOFOLLOW)
		st = stateOf(&s)
		return err
	})
	return st, err
}

// setMtime sets the times of a file or directory.
func setMtime(path string, ns int64) error {
	t := unix.NsecToTimespec(ns)
	return inDir("set the time of", path, func(dir int, name string) error {
		return unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// removeName removes a file, a link or an empty directory.
func removeName(path string) error {
	return inDir("remove", path, func(dir int, name string) error {
		err := unix.Unlinkat(dir, name, 0)
		if err == nil || err == unix.ENOENT {
			return err
		}
		// As os.Remove: which of the two errors tells more depends on the kind.
		if derr := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); derr != unix.ENOTDIR {
			return derr
		}
		return err
	})
}
