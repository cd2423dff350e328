//go:build linux

package fusefs

import (
	"syscall"

	"github.com/curi-store/curi/internal/fault"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/splice"
	"golang.org/x/sys/unix"
)

// readAt answers a read with all of dest, less only at the end of the file. The
// kernel takes a short answer for the end wherever it is, and shows a file that
// is cut off, or zeros: where the disk gives a part and then fails, the answer
// is the error. A pipe between the file and the kernel pays off for large reads.
func readAt(fd int, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if err := fault.In(fault.MountRead); err != nil {
		return nil, toErrno(err)
	}
	if len(dest) > smallFile {
		if r := pipeAt(fd, len(dest), off); r != nil {
			return r, 0
		}
	}
	n := 0
	for n < len(dest) {
		k, err := unix.Pread(fd, dest[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, toErrno(err)
		case k == 0:
			return fuse.ReadResultData(dest[:n]), 0
		}
		n += k
	}
	return fuse.ReadResultData(dest), 0
}

// pipeAt loads size bytes into a pipe; nil where that does not give them all.
// (go-fuse could load them itself, and would answer with what it got.)
func pipeAt(fd, size int, off int64) fuse.ReadResult {
	pair, err := splice.Get()
	if err != nil {
		return nil
	}
	// One page more, as the first may begin in the midst of one.
	if err = pair.Grow(size + 4096); err == nil {
		var n int
		if n, err = pair.LoadFromAt(uintptr(fd), size, off); err == nil && n == size {
			return fuse.ReadResultPipe(pair, size)
		}
	}
	splice.Drop(pair)
	return nil
}
