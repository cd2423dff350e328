//go:build !linux

package cas

import "golang.org/x/sys/unix"

const pathOnly = 0

// openNoLinks opens path, whose last part must be no symbolic link. The caller
// closes the descriptor.
func openNoLinks(path string, flags int) (fd int, err error) {
	err = retryEINTR(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	return fd, err
}
