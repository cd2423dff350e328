//go:build linux

package fusefs

import (
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (n *stageNode) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	var st stat
	var errno syscall.Errno
	if h, ok := fh.(*stageHandle); ok {
		errno = st.of(h.fd())
	} else {
		errno = n.withSelf(st.of)
	}
	if errno == 0 {
		out.Attr = st.attr()
		out.SetTimeout(n.keep)
	}
	return errno
}

// Access is asked only where the kernel leaves permissions to this process,
// whose caller is then the same user.
func (n *stageNode) Access(ctx context.Context, mask uint32) syscall.Errno {
	if mask&unix.W_OK != 0 && !n.place.open() {
		return syscall.EROFS
	}
	return n.withSelf(func(fd int) syscall.Errno {
		return toErrno(unix.Faccessat(unix.AT_FDCWD, procPath(fd), mask, 0))
	})
}

func (n *stageNode) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.place.begin(); errno != 0 {
		return errno
	}
	defer n.place.end()
	if size, ok := in.GetSize(); ok {
		// First, so that times that come with it last.
		if errno := n.truncate(fh, int64(size)); errno != 0 {
			return errno
		}
	}
	set := func(fd int) syscall.Errno { return setattr(fd, in) }
	var errno syscall.Errno
	if h, ok := fh.(*stageHandle); ok && h.writable {
		errno = set(h.fd())
	} else {
		errno = n.changeSelf(set)
	}
	if errno != 0 {
		return errno
	}
	return n.Getattr(ctx, fh, out)
}

// truncate goes by a descriptor: truncate(2) would wait for the lease of
// whoever seals the file, and then cut the published blob.
func (n *stageNode) truncate(fh fs.FileHandle, size int64) syscall.Errno {
	if h, ok := fh.(*stageHandle); ok && h.writable {
		return toErrno(unix.Ftruncate(h.fd(), size))
	}
	fd, errno := n.place.openWritable(func() (int, syscall.Errno) { return n.openSelf(unix.O_WRONLY|unix.O_NONBLOCK, true) })
	if errno != 0 {
		return errno
	}
	defer unix.Close(fd)
	return toErrno(unix.Ftruncate(fd, size))
}

// setattr sets mode, owner and times of an open file, which may be open as a
// place in the tree only.
func setattr(fd int, in *fuse.SetAttrIn) syscall.Errno {
	uid, uok := in.GetUID()
	gid, gok := in.GetGID()
	const others = fuse.FATTR_MODE | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_KILL_SUIDGID
	if uok || gok || in.Valid&others == 0 { // nothing to set is chown(2) of nobody, which takes set-user-ID away
		if err := unix.Fchownat(fd, "", ifSet(uid, uok), ifSet(gid, gok), unix.AT_EMPTY_PATH); err != nil {
			return toErrno(err)
		}
	}
	mode, mok := in.GetMode()
	if !mok && in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		var st stat
		if errno := st.of(fd); errno != 0 {
			return errno
		}
		mode, mok = withoutPrivileges(st.mode())
	}
	if mok {
		if err := unix.Chmod(procPath(fd), mode); err != nil {
			return toErrno(err)
		}
	}
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
		return 0
	}
	at, aok := in.GetATime()
	mt, tok := in.GetMTime()
	ts := []unix.Timespec{
		timespec(at, aok, in.Valid&fuse.FATTR_ATIME_NOW != 0),
		timespec(mt, tok, in.Valid&fuse.FATTR_MTIME_NOW != 0),
	}
	err := unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
	if err == unix.EPERM && tok && !aok && unix.UtimesNanoAt(fd, "", timesNow, unix.AT_EMPTY_PATH) == nil {
		// With the writeback cache the kernel keeps the time of writes, and
		// tells it. On another's file that this user may write it is now.
		return 0
	}
	return toErrno(err)
}

var timesNow = []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}

// withoutPrivileges takes the bits from a mode that a change of owner or
// content takes; ok says that there were any. Set-group-ID without execution
// by the group means something else, and stays.
func withoutPrivileges(mode uint32) (_ uint32, ok bool) {
	kill := mode & syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		kill |= mode & syscall.S_ISGID
	}
	return mode & 0o7777 &^ kill, kill != 0
}

// ifSet is an owner for chown(2), to which -1 means no change.
func ifSet(id uint32, ok bool) int {
	if !ok {
		return -1
	}
	return int(id)
}

func timespec(t time.Time, set, now bool) unix.Timespec {
	switch {
	case !set:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// Extended attributes go through /proc, which leads to the file itself even
// where it has been renamed or opened as a place in the tree only. Symbolic
// links have none of the user namespace.

func (n *stageNode) Getxattr(ctx context.Context, attr string, dest []byte) (size uint32, errno syscall.Errno) {
	if !isUserAttr(attr) || n.Mode() == syscall.S_IFLNK {
		return 0, noAttr(attr)
	}
	errno = n.withSelf(func(fd int) syscall.Errno {
		k, err := unix.Getxattr(procPath(fd), attr, dest)
		size = uint32(max(k, 0))
		return toErrno(err)
	})
	return size, errno
}

func (n *stageNode) Listxattr(ctx context.Context, dest []byte) (size uint32, errno syscall.Errno) {
	if n.Mode() == syscall.S_IFLNK {
		return 0, 0
	}
	errno = n.withSelf(func(fd int) syscall.Errno {
		buf := make([]byte, unix.PathMax)
		k, err := unix.Listxattr(procPath(fd), buf)
		for err == unix.ERANGE && len(buf) < 1<<20 {
			buf = make([]byte, 4*len(buf))
			k, err = unix.Listxattr(procPath(fd), buf)
		}
		if err != nil {
			return toErrno(err)
		}
		var keep []byte
		for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:k]), "\x00"), "\x00") {
			if isUserAttr(name) {
				keep = append(append(keep, name...), 0)
			}
		}
		size, errno = attrValue(keep, dest)
		return errno
	})
	return size, errno
}

func (n *stageNode) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	return n.changeAttr(attr, func(path string) error { return unix.Setxattr(path, attr, data, int(flags)) })
}

func (n *stageNode) Removexattr(ctx context.Context, attr string) syscall.Errno {
	return n.changeAttr(attr, func(path string) error { return unix.Removexattr(path, attr) })
}

func (n *stageNode) changeAttr(attr string, fn func(path string) error) syscall.Errno {
	if errno := n.place.begin(); errno != 0 {
		return errno
	}
	defer n.place.end()
	if !isUserAttr(attr) {
		return syscall.EOPNOTSUPP
	}
	if n.Mode() == syscall.S_IFLNK {
		return syscall.EPERM
	}
	return n.changeSelf(func(fd int) syscall.Errno { return toErrno(fn(procPath(fd))) })
}
