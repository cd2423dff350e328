package cas

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// setXattr sets an extended attribute of a file or directory, not of what a
// link points to.
func setXattr(path, name, value string) error {
	err := retryEINTR(func() error { return unix.Lsetxattr(path, name, []byte(value), 0) })
	if err != nil {
		return &os.PathError{Op: "setxattr " + name, Path: path, Err: err}
	}
	return nil
}

// xattrTooBig reports whether the filesystem has extended attributes but no
// room for this one.
func xattrTooBig(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ERANGE)
}
