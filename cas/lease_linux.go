package cas

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// takeLease takes a read lease on f, open for reading only. It is refused with
// errWriters while anybody has the file open for writing or mapped writable
// and shared, and makes who opens it so wait, until the kernel breaks it after
// /proc/sys/fs/lease-break-time (45 s). errNoLease: this file can have none.
// The lease ends when f is closed.
func takeLease(f *os.File) error {
	err := retryEINTR(func() error {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN):
		return errWriters
	}
	// EACCES: another user's file, without CAP_LEASE. Else: a filesystem without leases.
	return errNoLease
}

// holdsLease reports whether the lease is still whole: nobody waits to open
// the file for writing, and the kernel has not broken it.
func holdsLease(f *os.File) bool {
	kind, err := unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0)
	return err == nil && kind == unix.F_RDLCK
}
