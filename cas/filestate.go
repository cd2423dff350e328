package cas

import (
	"os"

	"golang.org/x/sys/unix"
)

// fileState is what tells whether a file is still the one that was read.
type fileState struct {
	dev, ino     uint64
	size         int64
	blocks       int64 // of 512 bytes on the disk
	mtime, ctime int64 // ns since 1970
	mode         uint32
	nlink        uint64
	uid, gid     uint32
}

func stateOf(st *unix.Stat_t) fileState {
	return fileState{
		dev: uint64(st.Dev), ino: uint64(st.Ino), size: st.Size, blocks: int64(st.Blocks),
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
		mode: uint32(st.Mode), nlink: uint64(st.Nlink), uid: st.Uid, gid: st.Gid,
	}
}

func lstatFile(path string) (fileState, error) {
	var st unix.Stat_t
	if err := retryEINTR(func() error { return unix.Lstat(path, &st) }); err != nil {
		return fileState{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return stateOf(&st), nil
}

func fstatFile(f *os.File) (fileState, error) {
	var st unix.Stat_t
	if err := retryEINTR(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return fileState{}, &os.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return stateOf(&st), nil
}

// same reports whether nothing says that the content changed from a to b.
func (a fileState) same(b fileState) bool {
	return a.dev == b.dev && a.ino == b.ino && a.size == b.size && a.mtime == b.mtime && a.ctime == b.ctime
}

func (a fileState) isDir() bool        { return a.mode&unix.S_IFMT == unix.S_IFDIR }
func (a fileState) isRegular() bool    { return a.mode&unix.S_IFMT == unix.S_IFREG }
func (a fileState) isSymlink() bool    { return a.mode&unix.S_IFMT == unix.S_IFLNK }
func (a fileState) isExecutable() bool { return a.mode&0o111 != 0 }

// special names what cannot be stored; "" for files, directories and links.
func (a fileState) special() string {
	switch a.mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return ""
}

func retryEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
