package cas

import (
	"errors"

	"golang.org/x/sys/unix"
)

// pathOnly opens a directory to name what is in it, without the right to list it.
const pathOnly = unix.O_PATH

// openNoLinks opens path and fails with ELOOP where that leads over a symbolic
// link. The caller closes the descriptor.
func openNoLinks(path string, flags int) (fd int, err error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_NO_SYMLINKS}
	err = retryEINTR(func() error {
		fd, err = unix.Openat2(unix.AT_FDCWD, path, &how)
		return err
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		// A kernel before 5.6, or a sandbox that does not know the call.
		err = retryEINTR(func() error {
			fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			return err
		})
	}
	return fd, err
}
