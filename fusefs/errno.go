//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/curi-store/curi/cas"
)

// toErrno turns an error into what a program sees. What is damaged or changed
// is EIO: a program must not take it for absent.
func toErrno(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.Is(err, cas.ErrCorrupt), errors.Is(err, cas.ErrChanged):
		return syscall.EIO
	case errors.Is(err, cas.ErrNotFound):
		return syscall.ENOENT
	case errors.Is(err, cas.ErrNoSpace):
		return syscall.ENOSPC
	case errors.Is(err, cas.ErrInvalid):
		return syscall.ENOENT // a name that can never exist
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return syscall.EINTR
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	}
	return syscall.EIO
}

// damaged is toErrno for what a tree promises: that it is missing is damage.
func (f *filesystem) damaged(what string, err error) syscall.Errno {
	errno := toErrno(err)
	if errno == syscall.ENOENT {
		errno = syscall.EIO
	}
	if errno == syscall.EIO {
		f.log.Error("cannot serve "+what+"; `curi fsck` says what the store lacks", "err", err)
	}
	return errno
}
