//go:build linux

package fusefs

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// leaseWait is how long an open for writing waits for whoever holds a lease on
// the file without sealing the place.
const leaseWait = 2 * time.Second

// userFlags are the flags of open(2) that reach the file on disk. O_APPEND is
// the kernel's business, as are those about the path.
const userFlags = unix.O_ACCMODE | unix.O_DIRECT | unix.O_SYNC | unix.O_DSYNC | unix.O_NOATIME

// diskFlags turns a caller's flags into those for the file on disk.
func (f *filesystem) diskFlags(flags uint32) int {
	d := int(flags) & userFlags
	if f.writeback {
		// The kernel reads to complete the pages of a file that is only
		// written, and needs no alignment from its callers.
		d &^= unix.O_DIRECT
		if d&unix.O_ACCMODE == unix.O_WRONLY {
			d = d&^unix.O_ACCMODE | unix.O_RDWR
		}
	}
	if writes(flags) {
		// A lease must not make this wait: who sealed the file would
		// let go of the lease, and then the blob would be written to.
		d |= unix.O_NONBLOCK
	}
	return d | unix.O_NOFOLLOW | unix.O_CLOEXEC
}

func writes(flags uint32) bool { return flags&syscall.O_ACCMODE != syscall.O_RDONLY }

// openWritable opens by open and refuses where the place is being sealed. The
// descriptor is had before the last look at the marker: from then on it
// refuses the sealer's lease.
func (p *place) openWritable(open func() (int, syscall.Errno)) (int, syscall.Errno) {
	if errno := p.begin(); errno != 0 {
		return -1, errno
	}
	defer p.end()
	for end := time.Now().Add(leaseWait); ; {
		fd, errno := open()
		switch {
		case errno == 0 && !p.open():
			unix.Close(fd)
			return -1, syscall.EROFS
		case errno != syscall.EAGAIN:
			return fd, errno
		case !p.open():
			return -1, syscall.EROFS
		case time.Now().After(end):
			return -1, syscall.EBUSY
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (n *stageNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f := n.place.f
	disk := f.diskFlags(flags)
	fuseFlags := n.openFlags()
	open := func() (int, syscall.Errno) {
		fd, errno := n.openSelf(disk, writes(flags))
		if errno == syscall.EACCES && f.writeback && flags&syscall.O_ACCMODE == syscall.O_WRONLY {
			// A file that its owner may not read: nor may the kernel, to
			// complete pages.
			fd, errno = n.openSelf(disk&^unix.O_ACCMODE|unix.O_WRONLY, true)
			fuseFlags |= fuse.FOPEN_DIRECT_IO
		}
		return fd, errno
	}
	var fd int
	var errno syscall.Errno
	if writes(flags) {
		fd, errno = n.place.openWritable(open)
	} else {
		fd, errno = open()
	}
	if errno != 0 {
		return nil, 0, errno
	}
	return n.handle(fd, writes(flags)), fuseFlags, 0
}

// Create makes a file, or opens one that appeared since the caller looked.
func (n *stageNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (ch *fs.Inode, fh fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	f := n.place.f
	disk := f.diskFlags(flags)
	errno = n.inside(func(dir int) syscall.Errno {
		fd, errno := n.place.openWritable(func() (int, syscall.Errno) {
			fd, err := unix.Openat(dir, name, disk|unix.O_CREAT|unix.O_EXCL, mode&0o7777)
			switch {
			case err == nil:
				errno := n.own(ctx, dir, fd)
				if errno == 0 && mode&f.lostBits() != 0 {
					errno = toErrno(unix.Fchmod(fd, mode&0o7777))
				}
				if errno != 0 {
					unix.Close(fd)
					_ = unix.Unlinkat(dir, name, 0)
				}
				return fd, errno
			case err == unix.EEXIST && flags&syscall.O_EXCL == 0:
				fd, err = unix.Openat(dir, name, disk, 0)
				if err == nil && flags&syscall.O_TRUNC != 0 {
					err = unix.Ftruncate(fd, 0)
				}
			}
			return fd, toErrno(err)
		})
		if errno != 0 {
			return errno
		}
		var st stat
		if errno := st.of(fd); errno != 0 {
			unix.Close(fd)
			return errno
		}
		ch = n.found(ctx, &st, out)
		fault.At(fault.MountMade)
		node, ok := ch.Operations().(*stageNode)
		if !ok || ch.Mode()&syscall.S_IFMT != syscall.S_IFREG {
			unix.Close(fd)
			return syscall.ENXIO
		}
		fh, fuseFlags = node.handle(fd, true), node.openFlags()
		return 0
	})
	return ch, fh, fuseFlags, errno
}

// stageHandle is one open of a staging file.
type stageHandle struct {
	n        *stageNode
	file     *os.File
	backing  *os.File // for passthrough, where it is not file; else nil
	writable bool
}

// handle takes fd over. The first handle chooses for all how the file is
// served: the kernel refuses to mix the two ways on one inode.
func (n *stageNode) handle(fd int, writable bool) *stageHandle {
	h := &stageHandle{n: n, file: os.NewFile(uintptr(fd), "staging"), writable: writable}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.handles) == 0 {
		var st stat
		n.through = n.place.f.passthrough && st.of(fd) == 0 && st.device() == n.place.f.device
		n.handles = map[*stageHandle]struct{}{}
		if n.through && writable {
			h.backing = readOnlyTwin(fd)
		}
	}
	n.handles[h] = struct{}{}
	return h
}

// readOnlyTwin opens the file of fd for reading; nil if that fails. The kernel
// keeps what was registered for the first handle until the last one goes, and
// a reader that outlives all writers must not stand in the sealer's way. Each
// handle gets a file of its own access from the kernel.
func readOnlyTwin(fd int) *os.File {
	r, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(r), "staging")
}

func (n *stageNode) openFlags() uint32 {
	if n.place.f.network {
		return 0
	}
	return fuse.FOPEN_NOFLUSH
}

func (h *stageHandle) fd() int { return int(h.file.Fd()) }

func (h *stageHandle) PassthroughFd() (int, bool) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.backing != nil {
		return int(h.backing.Fd()), true
	}
	return h.fd(), h.n.through
}

func (h *stageHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return readAt(h.fd(), dest, off)
}

func (h *stageHandle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	n, err := 0, fault.In(fault.MountWrite)
	for err == nil && n < len(data) {
		// The kernel takes part of what it wrote back for all of it.
		var k int
		if k, err = unix.Pwrite(h.fd(), data[n:], off+int64(n)); err == unix.EINTR {
			err = nil
		}
		n += max(k, 0)
	}
	if err == nil || n > 0 && !h.n.place.f.writeback {
		return uint32(n), 0
	}
	h.n.noteLost(toErrno(err))
	return 0, toErrno(err)
}

// Lseek finds holes. With the writeback cache it must not: what the kernel has
// yet to write looks like one on disk, and a copy would lack it. The kernel
// then asks no more and calls all of a file data.
func (h *stageHandle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if h.n.place.f.writeback {
		return 0, syscall.ENOSYS
	}
	n, err := unix.Seek(h.fd(), int64(off), int(whence))
	return uint64(n), toErrno(err)
}

// Flush lets a network filesystem say that earlier writes failed.
func (h *stageHandle) Flush(ctx context.Context) syscall.Errno {
	if !h.n.place.f.network || !h.writable {
		return h.n.place.f.flush()
	}
	fd, err := unix.FcntlInt(h.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return toErrno(err)
	}
	return toErrno(unix.Close(fd))
}

func (h *stageHandle) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if err := fault.In(fault.MountSync); err != nil {
		return toErrno(err)
	}
	const dataOnly = 1
	if flags&dataOnly != 0 {
		return toErrno(unix.Fdatasync(h.fd()))
	}
	return toErrno(unix.Fsync(h.fd()))
}

func (h *stageHandle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno := h.n.place.begin(); errno != 0 {
		return errno
	}
	defer h.n.place.end()
	return toErrno(unix.Fallocate(h.fd(), mode, int64(off), int64(size)))
}

func (h *stageHandle) Release(ctx context.Context) syscall.Errno {
	h.n.mu.Lock()
	delete(h.n.handles, h)
	h.n.mu.Unlock()
	if h.backing != nil {
		h.backing.Close()
	}
	return toErrno(h.file.Close())
}

func (n *stageNode) CopyFileRange(ctx context.Context, in fs.FileHandle, offIn uint64, out *fs.Inode, fhOut fs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	return copyRange(ctx, in, offIn, fhOut, offOut, length)
}
