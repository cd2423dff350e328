package remote

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is as much as a user who is not root may ask for.
const pipeSize = 1 << 20

// widen lets a pipe hold more, so that the two sides change turns less often.
func widen(f *os.File) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}
