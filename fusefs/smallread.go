//go:build linux

package fusefs

import (
	"context"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Open, OpenDir and Flush answer that there is no such call, after which the
// kernel never asks again: a file whose bytes it has costs no request at all.
func (n *smallNodes) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (n *smallNodes) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

func (n *smallNodes) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read opens the blob for this one read: no close would tell when a descriptor
// is of no use any more.
func (n *smallNodes) Read(cancel <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	node, errno := n.node(input.NodeId)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	if node.index < 0 {
		return nil, fuse.Status(syscall.EISDIR)
	}
	b, err := n.f.store.OpenBlob(context.Background(), node.entry.Digest)
	if err != nil {
		return nil, fuse.Status(n.f.damaged("a file", err))
	}
	defer b.Close()
	if b.Reference() || b.Size() != node.entry.Size {
		n.f.log.Error("cannot serve a file: its blob in the store is gone or damaged; run `curi fsck`", "blob", node.entry.Digest)
		return nil, fuse.EIO
	}
	off := int64(input.Offset)
	want := max(0, min(int64(len(buf)), b.Size()-off))
	r, errno := readAt(int(b.Fd()), buf[:want], off)
	if errno == 0 && int64(r.Size()) < want {
		r.Done()
		errno = syscall.EIO // cut off behind the store's back
	}
	if errno != 0 {
		n.f.log.Error("cannot read a file; `curi fsck` says what the store lacks", "blob", node.entry.Digest, "offset", off, "err", errno)
		return nil, fuse.Status(errno)
	}
	return r, fuse.OK
}

func (n *smallNodes) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	node, errno := n.node(header.NodeId)
	if errno != 0 {
		return nil, fuse.Status(errno)
	}
	return []byte(node.entry.Target), fuse.OK
}

// list calls add for the entries of a directory from an offset on, "." and ".."
// first, until it says no.
func (n *smallNodes) list(id, offset uint64, add func(fuse.DirEntry, smallNode) bool) fuse.Status {
	if id == fuse.FUSE_ROOT_ID {
		id = 0
	}
	dots := [2]fuse.DirEntry{{Name: ".", Mode: syscall.S_IFDIR}, {Name: "..", Mode: syscall.S_IFDIR}}
	var d *smallDir
	t := &cas.Tree{} // the root lists nothing
	if id != 0 {
		node, errno := n.node(id)
		if errno != 0 {
			return fuse.Status(errno)
		}
		if t, errno = n.load(node.dir); errno != 0 {
			return fuse.Status(errno)
		}
		d = node.dir
		dots[0].Ino = d.ino
	}
	for i := offset; i < uint64(len(t.Entries)+2); i++ {
		if i < 2 {
			if !add(dots[i], smallNode{}) {
				return fuse.OK
			}
			continue
		}
		node := d.node(t, int(i-2))
		e := fuse.DirEntry{Name: node.entry.Name, Mode: kindMode(node.entry.Kind), Ino: mixIno(d.ino, node.index)}
		if !add(e, node) {
			return fuse.OK
		}
	}
	return fuse.OK
}

func (n *smallNodes) ReadDir(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return n.list(input.NodeId, input.Offset, func(e fuse.DirEntry, _ smallNode) bool { return out.AddDirEntry(e) })
}

func (n *smallNodes) ReadDirPlus(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return n.list(input.NodeId, input.Offset, func(e fuse.DirEntry, node smallNode) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil && node.dir != nil {
			n.answer(node, entry)
		}
		return entry != nil
	})
}

// shownAttrs is the attributes of a node and, of a directory, those in its
// tree's header.
func (n *smallNodes) shownAttrs(id uint64) (cas.Attrs, syscall.Errno) {
	if id == fuse.FUSE_ROOT_ID {
		return nil, 0
	}
	node, errno := n.node(id)
	switch {
	case errno != 0:
		return nil, errno
	case node.index >= 0 && node.entry.Kind == cas.KindSymlink:
		return nil, 0
	case node.index >= 0:
		return fileAttrs(node.entry, node.given), 0
	}
	t, errno := n.load(node.dir)
	if errno != 0 {
		return nil, errno
	}
	return dirAttrs(t, node.dir.attrs), 0
}

func (n *smallNodes) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	attrs, errno := n.shownAttrs(header.NodeId)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	size, errno := getAttr(attrs, attr, dest)
	return size, fuse.Status(errno)
}

func (n *smallNodes) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	attrs, errno := n.shownAttrs(header.NodeId)
	if errno != 0 {
		return 0, fuse.Status(errno)
	}
	size, errno := listAttrs(attrs, dest)
	return size, fuse.Status(errno)
}

func (n *smallNodes) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	return fuse.Status(n.f.statfs(out))
}
