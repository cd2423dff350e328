//go:build linux

package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stat is what statx(2) says of a staging file, without following links.
type stat struct{ x unix.Statx_t }

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// at looks at a name below the directory dir.
func (s *stat) at(dir int, name string) syscall.Errno {
	return toErrno(unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &s.x))
}

// of looks at an open file.
func (s *stat) of(fd int) syscall.Errno {
	return toErrno(unix.Statx(fd, "", unix.AT_EMPTY_PATH, statMask, &s.x))
}

func (s *stat) mode() uint32 { return uint32(s.x.Mode) }

func (s *stat) device() uint64 { return unix.Mkdev(s.x.Dev_major, s.x.Dev_minor) }

// id is the node's identity: the inode number, below those of read-only files,
// and the time of birth, since the disk gives numbers again.
func (s *stat) id() fs.StableAttr {
	gen := uint64(s.x.Btime.Sec)*1e9 + uint64(s.x.Btime.Nsec)
	if s.x.Mask&unix.STATX_BTIME == 0 {
		gen = 1
	}
	return fs.StableAttr{Mode: s.mode() & syscall.S_IFMT, Ino: s.x.Ino & (1<<62 - 1), Gen: gen}
}

func (s *stat) attr() fuse.Attr {
	return fuse.Attr{
		Ino: s.id().Ino, Size: s.x.Size, Blocks: s.x.Blocks, Blksize: s.x.Blksize,
		Atime: uint64(s.x.Atime.Sec), Atimensec: s.x.Atime.Nsec,
		Mtime: uint64(s.x.Mtime.Sec), Mtimensec: s.x.Mtime.Nsec,
		Ctime: uint64(s.x.Ctime.Sec), Ctimensec: s.x.Ctime.Nsec,
		Mode: s.mode(), Nlink: s.x.Nlink, Owner: fuse.Owner{Uid: s.x.Uid, Gid: s.x.Gid},
		Rdev: uint32(unix.Mkdev(s.x.Rdev_major, s.x.Rdev_minor)),
	}
}
