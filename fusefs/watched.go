//go:build linux

package fusefs

import (
	"log/slog"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// watched is a filesystem as the kernel calls it: it counts requests and what
// they were answered and, for [Options.Debug], logs them. It stands between
// kernel and nodes so that no node has to.
//
// It does not pass on that a signal interrupts a request. On a disk none ends
// an open, a look-up or a read, so programs in C do not expect it; and nothing
// here waits for long, but for a remote: see [interrupts].
type watched struct {
	fuse.RawFileSystem
	interrupts *interrupts
	stats      *Stats
	log        *requestLog // nil: requests are not logged
}

// never is the channel of an interrupt that does not come.
var never <-chan struct{}

func (f *filesystem) watch(raw fuse.RawFileSystem) fuse.RawFileSystem {
	w := &watched{RawFileSystem: raw, interrupts: &f.interrupts, stats: f.stats}
	if f.opts.Debug {
		w.log = newRequestLog(f.log)
	}
	return w
}

// begin notes a request; name is what it is about in the directory, or "".
func (w *watched) begin(op string, h *fuse.InHeader, name string) request {
	if w.log == nil {
		return request{w: w}
	}
	return w.log.begin(w, op, h, name)
}

func (w *watched) Lookup(interrupt <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	w.stats.lookups.Add(1)
	r := w.begin("lookup", h, name)
	status := w.RawFileSystem.Lookup(interrupt, h, name, out)
	if status == fuse.ENOENT && out.EntryTimeout() > 0 {
		status = fuse.OK
	}
	if status.Ok() && out.NodeId == 0 {
		r.end(fuse.ENOENT) // what the kernel may remember
		return status
	}
	return r.entry(status, out)
}

func (w *watched) Forget(nodeID, lookups uint64) {
	if w.log != nil {
		w.log.forget(nodeID)
	}
	w.RawFileSystem.Forget(nodeID, lookups)
}

func (w *watched) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	r := w.begin("getattr", &in.InHeader, "")
	return r.end(w.RawFileSystem.GetAttr(never, in, out))
}

func (w *watched) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	r := w.begin("setattr", &in.InHeader, "")
	return r.end(w.RawFileSystem.SetAttr(never, in, out))
}

func (w *watched) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	r := w.begin("mknod", &in.InHeader, name)
	return r.entry(w.RawFileSystem.Mknod(never, in, name, out), out)
}

func (w *watched) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	r := w.begin("mkdir", &in.InHeader, name)
	return r.entry(w.RawFileSystem.Mkdir(never, in, name, out), out)
}

func (w *watched) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r := w.begin("unlink", h, name)
	return r.end(w.RawFileSystem.Unlink(never, h, name))
}

func (w *watched) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	r := w.begin("rmdir", h, name)
	return r.end(w.RawFileSystem.Rmdir(never, h, name))
}

func (w *watched) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	r := w.begin("rename", &in.InHeader, oldName)
	status := w.RawFileSystem.Rename(never, in, oldName, newName)
	if w.log != nil {
		r.note(slog.String("to", w.log.path(in.Newdir, newName)))
		if status.Ok() {
			w.log.renamed(in.NodeId, oldName, in.Newdir, newName)
		}
	}
	return r.end(status)
}

func (w *watched) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	r := w.begin("link", &in.InHeader, name)
	return r.entry(w.RawFileSystem.Link(never, in, name, out), out)
}

func (w *watched) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	r := w.begin("symlink", h, name)
	return r.entry(w.RawFileSystem.Symlink(never, h, target, name, out), out)
}

func (w *watched) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	r := w.begin("readlink", h, "")
	target, status := w.RawFileSystem.Readlink(never, h)
	return target, r.end(status)
}

func (w *watched) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	r := w.begin("access", &in.InHeader, "")
	return r.end(w.RawFileSystem.Access(never, in))
}

func (w *watched) GetXAttr(interrupt <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	r := w.begin("getxattr", h, "")
	r.attr(attr)
	n, status := w.RawFileSystem.GetXAttr(interrupt, h, attr, dest)
	return n, r.end(status)
}

func (w *watched) ListXAttr(interrupt <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	r := w.begin("listxattr", h, "")
	n, status := w.RawFileSystem.ListXAttr(interrupt, h, dest)
	return n, r.end(status)
}

func (w *watched) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	r := w.begin("setxattr", &in.InHeader, "")
	r.attr(attr)
	return r.end(w.RawFileSystem.SetXAttr(never, in, attr, data))
}

func (w *watched) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	r := w.begin("removexattr", h, "")
	r.attr(attr)
	return r.end(w.RawFileSystem.RemoveXAttr(never, h, attr))
}

func (w *watched) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	r := w.begin("create", &in.InHeader, name)
	return r.open(w.RawFileSystem.Create(never, in, name, out), in.Flags, &out.OpenOut, &out.EntryOut)
}

func (w *watched) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	r := w.begin("tmpfile", &in.InHeader, "")
	return r.open(w.RawFileSystem.Tmpfile(never, in, out), in.Flags, &out.OpenOut, nil)
}

func (w *watched) Open(interrupt <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	r := w.begin("open", &in.InHeader, "")
	return r.open(w.RawFileSystem.Open(interrupt, in, out), in.Flags, out, nil)
}

func (w *watched) Read(interrupt <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	r := w.begin("read", &in.InHeader, "")
	res, status := w.RawFileSystem.Read(interrupt, in, buf)
	n := 0
	if res != nil && status.Ok() {
		n = res.Size()
	}
	w.stats.reads.Add(1)
	w.stats.readBytes.Add(int64(n))
	r.moved(n, in.Offset)
	return res, r.end(status)
}

func (w *watched) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	r := w.begin("lseek", &in.InHeader, "")
	return r.end(w.RawFileSystem.Lseek(never, in, out))
}

func (w *watched) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	r := w.begin("close", &in.InHeader, "")
	w.RawFileSystem.Release(never, in)
	w.stats.closes.Add(1) // last: what is counted of the file is complete then
	r.end(fuse.OK)
}

func (w *watched) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	r := w.begin("write", &in.InHeader, "")
	n, status := w.RawFileSystem.Write(never, in, data)
	return r.wrote(in, n, status)
}

// Writev answers ENOSYS where nothing was written and Write is to be called.
func (w *watched) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	r := w.begin("write", &in.InHeader, "")
	n, status := w.RawFileSystem.Writev(never, in, data)
	if status == fuse.ENOSYS {
		return n, status
	}
	return r.wrote(in, n, status)
}

func (w *watched) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	r := w.begin("copy_file_range", &in.InHeader, "")
	n, status := w.RawFileSystem.CopyFileRange(never, in)
	r.moved(int(n), in.OffIn)
	return n, r.end(status)
}

func (w *watched) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	r := w.begin("ioctl", &in.InHeader, "")
	return r.end(w.RawFileSystem.Ioctl(never, in, inbuf, out, outbuf))
}

func (w *watched) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	r := w.begin("flush", &in.InHeader, "")
	return r.end(w.RawFileSystem.Flush(never, in))
}

func (w *watched) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r := w.begin("fsync", &in.InHeader, "")
	return r.end(w.RawFileSystem.Fsync(never, in))
}

func (w *watched) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	r := w.begin("fallocate", &in.InHeader, "")
	return r.end(w.RawFileSystem.Fallocate(never, in))
}

func (w *watched) OpenDir(interrupt <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	interrupt, done := w.interrupts.hide(interrupt)
	defer done()
	r := w.begin("opendir", &in.InHeader, "")
	status := w.RawFileSystem.OpenDir(interrupt, in, out)
	if status.Ok() {
		w.stats.dirOpens.Add(1)
	}
	return r.end(status)
}

func (w *watched) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r := w.begin("readdir", &in.InHeader, "")
	return r.end(w.RawFileSystem.ReadDir(never, in, out))
}

func (w *watched) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	r := w.begin("readdir", &in.InHeader, "")
	return r.end(w.RawFileSystem.ReadDirPlus(never, in, out))
}

func (w *watched) ReleaseDir(in *fuse.ReleaseIn) {
	w.stats.dirCloses.Add(1)
	r := w.begin("closedir", &in.InHeader, "")
	w.RawFileSystem.ReleaseDir(in)
	r.end(fuse.OK)
}

func (w *watched) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	r := w.begin("fsyncdir", &in.InHeader, "")
	return r.end(w.RawFileSystem.FsyncDir(never, in))
}

func (w *watched) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	r := w.begin("statfs", h, "")
	return r.end(w.RawFileSystem.StatFs(never, h, out))
}

func (w *watched) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	r := w.begin("statx", &in.InHeader, "")
	return r.end(w.RawFileSystem.Statx(never, in, out))
}

// open ends a request that opened a file; entry is that of a new one, or nil.
func (r *request) open(status fuse.Status, flags uint32, out *fuse.OpenOut, entry *fuse.EntryOut) fuse.Status {
	if status.Ok() {
		r.w.stats.opened(out.OpenFlags)
	}
	if r.logged() {
		r.note(slog.String("flags", openFlags(flags)))
		if status.Ok() && out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0 {
			r.note(slog.Bool("passthrough", true))
		}
	}
	if entry != nil {
		return r.entry(status, entry)
	}
	return r.end(status)
}

// wrote ends a write of n bytes.
func (r *request) wrote(in *fuse.WriteIn, n uint32, status fuse.Status) (uint32, fuse.Status) {
	r.w.stats.writes.Add(1)
	r.w.stats.writtenBytes.Add(int64(n))
	r.moved(int(n), in.Offset)
	return n, r.end(status)
}

// end ends a request.
func (r *request) end(status fuse.Status) fuse.Status {
	r.w.stats.answered(status)
	if r.logged() {
		r.write(syscall.Errno(status))
	}
	return status
}

// entry ends a request that found or made out.
func (r *request) entry(status fuse.Status, out *fuse.EntryOut) fuse.Status {
	if r.logged() && status.Ok() && out.NodeId != 0 {
		r.w.log.learn(out.NodeId, r.node, r.name)
	}
	return r.end(status)
}
