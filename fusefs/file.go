//go:build linux

package fusefs

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// smallFile is the size in bytes up to which a file is read through this
// process and then from the page cache. Registering a backing file costs more
// than reading that much.
const smallFile = 64 << 10

// treeFile is a file of a stored tree, or a blob.
type treeFile struct {
	readOnly
	digest cas.Digest
	mode   uint32
	size   int64
	attrs  cas.Attrs

	mu      sync.Mutex
	opens   int       // handles that share blob
	blob    *cas.Blob // nil until a handle needs it
	through bool      // the handles are served by passthrough
	backing *os.File  // of blob, for passthrough; nil: blob itself
}

func (n *treeFile) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = dated(n.f.fixed(n.mode, n.size, n.StableAttr().Ino), n.attrs)
	out.SetTimeout(forever)
	return 0
}

func (n *treeFile) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	return getAttr(n.attrs, attr, dest)
}

func (n *treeFile) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	return listAttrs(n.attrs, dest)
}

func (n *treeFile) Access(ctx context.Context, mask uint32) syscall.Errno {
	if mask&unix.X_OK != 0 && n.mode&0o111 == 0 {
		return syscall.EACCES
	}
	return n.readOnly.Access(ctx, mask)
}

// Open refuses every way of writing, root's too: the kernel would reopen the
// blob itself with the caller's flags and this process's rights.
func (n *treeFile) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0 {
		return nil, 0, syscall.EROFS
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.size <= smallFile && n.f.store.HasLocalBlob(n.digest, n.size):
		// Mostly the page cache has all of it: the first read that gets here
		// opens the blob.
	case n.blob == nil:
		if errno := n.openBlob(ctx); errno != 0 {
			return nil, 0, errno
		}
	default:
		if err := n.blob.Check(); err != nil {
			return nil, 0, n.f.damaged("a file", err)
		}
	}
	n.opens++
	flags = fuse.FOPEN_NOFLUSH
	if !n.through {
		flags |= fuse.FOPEN_KEEP_CACHE
	}
	return &blobHandle{n: n}, flags, 0
}

// openBlob opens the blob for all handles; the caller holds mu.
func (n *treeFile) openBlob(ctx context.Context) syscall.Errno {
	b, err := n.f.store.OpenBlob(ctx, n.digest)
	if err != nil {
		return n.f.damaged("a file", err)
	}
	if b.Size() != n.size {
		b.Close()
		n.f.log.Error("cannot serve a file: its size on disk is wrong; run `curi fsck`", "blob", n.digest, "want", n.size, "have", b.Size())
		return syscall.EIO
	}
	n.blob, n.through = b, n.f.passes(b)
	if n.through {
		n.backing = n.f.backingOf(b)
	}
	return 0
}

// passes chooses for all handles that share b how they are served: the kernel
// refuses to mix the two ways on one inode.
func (f *filesystem) passes(b *cas.Blob) bool {
	if !f.passthrough || b.Size() <= smallFile {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(b.Fd()), &st) == nil && uint64(st.Dev) == f.device
}

// blobHandle is one open of a treeFile.
type blobHandle struct {
	n     *treeFile
	asked atomic.Bool // the kernel has asked for bytes
}

// fd opens the blob if need be. It stays open while any handle is, so the
// descriptor outlives its use.
func (h *blobHandle) fd(ctx context.Context) (int, syscall.Errno) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.n.blob == nil {
		if errno := h.n.openBlob(ctx); errno != 0 {
			return -1, errno
		}
	}
	return int(h.n.blob.Fd()), 0
}

func (h *blobHandle) PassthroughFd() (int, bool) {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	switch {
	case !h.n.through:
		return -1, false
	case h.n.backing != nil:
		return int(h.n.backing.Fd()), true
	}
	return int(h.n.blob.Fd()), true
}

// Flush has nothing to do: see [filesystem.flush].
func (h *blobHandle) Flush(ctx context.Context) syscall.Errno { return h.n.f.flush() }

// flush answers a close(2) without anything to do. With the writeback cache
// the kernel asks at each close, unless it hears once that there never is:
// only a network filesystem has something to say then.
func (f *filesystem) flush() syscall.Errno {
	if f.network {
		return 0
	}
	return syscall.ENOSYS
}

func (h *blobHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	fd, errno := h.fd(ctx)
	if errno != 0 {
		return nil, errno
	}
	if !h.asked.Load() && !h.asked.Swap(true) {
		h.n.f.stats.cacheMisses.Add(1)
	}
	// The kernel asks for whole pages.
	want := max(0, min(int64(len(dest)), h.n.size-off))
	r, errno := readAt(fd, dest[:want], off)
	if errno == 0 && int64(r.Size()) < want {
		r.Done()
		errno = syscall.EIO // cut off behind the store's back
	}
	if errno != 0 {
		h.n.f.log.Error("cannot read a file; `curi fsck` says what the store lacks", "blob", h.n.digest, "offset", off, "err", errno)
		return nil, errno
	}
	return r, 0
}

func (h *blobHandle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	fd, errno := h.fd(ctx)
	if errno != 0 {
		return 0, errno
	}
	n, err := unix.Seek(fd, int64(off), int(whence))
	return uint64(n), toErrno(err)
}

func (h *blobHandle) Release(ctx context.Context) syscall.Errno {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if !h.asked.Load() && !h.n.through && h.n.size > 0 {
		h.n.f.stats.cacheHits.Add(1)
	}
	if h.n.opens--; h.n.opens == 0 && h.n.blob != nil {
		h.n.blob.Close()
		if h.n.backing != nil {
			h.n.backing.Close()
		}
		h.n.blob, h.n.through, h.n.backing = nil, false, nil
	}
	return 0
}

func (n *treeFile) CopyFileRange(ctx context.Context, in fs.FileHandle, offIn uint64, out *fs.Inode, fhOut fs.FileHandle, offOut, length, flags uint64) (uint32, syscall.Errno) {
	return copyRange(ctx, in, offIn, fhOut, offOut, length)
}

// maxCopy bounds one copy_file_range: the answer has 32 bits.
const maxCopy = 1 << 30

// copyRange copies between two open files of the mount without the bytes
// leaving the kernel, by sharing extents where the store's filesystem can.
func copyRange(ctx context.Context, in fs.FileHandle, offIn uint64, out fs.FileHandle, offOut, length uint64) (uint32, syscall.Errno) {
	dst, ok := out.(*stageHandle)
	if !ok {
		return 0, syscall.EXDEV
	}
	var src int
	switch h := in.(type) {
	case *stageHandle:
		src = h.fd()
	case *blobHandle:
		var errno syscall.Errno
		if src, errno = h.fd(ctx); errno != 0 {
			return 0, errno
		}
	default:
		return 0, syscall.EXDEV
	}
	if err := fault.In(fault.MountWrite); err != nil {
		return 0, toErrno(err)
	}
	from, to := int64(offIn), int64(offOut)
	n, err := unix.CopyFileRange(src, &from, dst.fd(), &to, int(min(length, maxCopy)), 0)
	if err != nil {
		return 0, toErrno(err)
	}
	return uint32(n), 0
}
