//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// lazyFile is a file of a tree that is not here whole. Once its blob is, it is
// served as a [treeFile] is. The kernel refuses to mix passthrough with cached
// reads on one inode: a file that becomes whole while it is open is served as
// before, until the last handle, a mapping's among them, was released.
type lazyFile struct {
	treeFile
	tree  *cas.LazyTree
	entry cas.LazyEntry

	opening sync.Mutex
	handles int           // that read from file
	file    *cas.LazyFile // nil without handles
	talk    quietly
}

func (f *filesystem) shownLazyFile(t *cas.LazyTree, e cas.LazyEntry, given cas.Attrs) shown {
	s := f.shownFile(e.Entry, given)
	s.ident = "lazy" + s.ident
	s.stable.Gen = ^s.stable.Gen // another node than that of a tree that is here
	attrs, mode := fileAttrs(e.Entry, given), fileMode(e.Entry)
	s.make = func() fs.InodeEmbedder {
		return &lazyFile{
			treeFile: treeFile{readOnly: readOnly{f: f, ident: s.ident}, digest: e.Digest, mode: mode, size: e.Size, attrs: attrs},
			tree:     t, entry: e,
		}
	}
	return s
}

func (n *lazyFile) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0 {
		return nil, 0, syscall.EROFS
	}
	n.opening.Lock()
	defer n.opening.Unlock()
	if n.handles == 0 && (n.served() || n.f.store.HasLocalBlob(n.digest, n.size)) {
		return n.treeFile.Open(ctx, flags)
	}
	if n.file == nil {
		file, err := n.tree.OpenFile(ctx, n.entry)
		if err != nil {
			return nil, 0, n.failed(err)
		}
		n.file = file
	}
	n.handles++
	return &lazyHandle{n: n, file: n.file, r: n.file.Reader()}, fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE, 0
}

// served reports whether handles are served from the blob, which they hold.
func (n *lazyFile) served() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.blob != nil
}

func (n *lazyFile) failed(err error) syscall.Errno {
	return n.f.notHad(&n.talk, "a file", n.digest, err)
}

// lazyHandle is one open of a file whose bytes come when they are read.
type lazyHandle struct {
	n     *lazyFile
	file  *cas.LazyFile
	r     *cas.LazyReader
	asked atomic.Bool
}

func (h *lazyHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if !h.asked.Swap(true) {
		h.n.f.stats.cacheMisses.Add(1)
	}
	wait, done := h.n.f.untilKilled(ctx)
	defer done()
	file, err := h.r.Bring(wait, off, int64(len(dest)))
	if err == nil && file != nil {
		want := min(int64(len(dest)), h.n.size-off)
		r, errno := readAt(int(file.Fd()), dest[:want], off)
		if errno != 0 {
			return nil, h.n.failed(errno)
		}
		return r, 0
	}
	n := 0
	if err == nil {
		n, err = h.r.ReadAt(wait, dest, off)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.n.failed(err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (h *lazyHandle) Flush(ctx context.Context) syscall.Errno { return h.n.f.flush() }

// Lseek: what has not come yet is no hole.
func (h *lazyHandle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	switch {
	case int64(off) < 0 || int64(off) >= h.n.size:
		return 0, syscall.ENXIO
	case whence == seekHole:
		return uint64(h.n.size), 0
	}
	return off, 0
}

const seekHole = 4 // SEEK_HOLE

func (h *lazyHandle) Release(ctx context.Context) syscall.Errno {
	if !h.asked.Load() && h.n.size > 0 {
		h.n.f.stats.cacheHits.Add(1)
	}
	h.n.opening.Lock()
	defer h.n.opening.Unlock()
	if h.n.handles--; h.n.handles == 0 {
		h.n.file.Close()
		h.n.file = nil
	}
	return 0
}

// quietly limits what is said of one thing.
type quietly struct{ last atomic.Int64 }

// talkEvery is how often it is said of one file that it cannot be had.
const talkEvery = 10 * time.Second

// notHad is the errno for what a remote should have given. The log has the
// digest and the reason, of each file once in a while.
func (f *filesystem) notHad(talk *quietly, what string, d cas.Digest, err error) syscall.Errno {
	errno := toErrno(err)
	switch {
	case f.closing.Load():
		return syscall.EIO
	case errno == syscall.EINTR:
		return errno // nobody is there any more who could see it
	case errno == syscall.ENOENT:
		errno = syscall.EIO // a tree promises it
	}
	now := time.Now().UnixNano()
	if last := talk.last.Load(); now-last > int64(talkEvery) && talk.last.CompareAndSwap(last, now) {
		f.log.Error("cannot serve "+what+" of a remote", "digest", d, "err", err)
	}
	return errno
}
