//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// stageNode is an ordinary file or directory of a place on disk. Programs
// change it while the place is open to them and read it always.
//
// The kernel is told to keep neither its name nor its attributes: sizes and
// times change behind this process's back, by passthrough. See trusted.
type stageNode struct {
	fs.Inode
	place *place
	top   string        // of a directory that the place shows: its path in the place; else ""
	ident string        // with top
	id    fs.StableAttr // as on disk
	keep  time.Duration // how long the kernel may keep its attributes

	mu      sync.Mutex
	dir     *os.File // of a directory, once used; see directory
	removed *os.File // what has no name any more, as a place in the tree; see removing
	handles map[*stageHandle]struct{}
	through bool // with handles: they are served by passthrough
}

func (n *stageNode) identity() string { return n.ident }

// found makes the node of something in this directory.
func (n *stageNode) found(ctx context.Context, st *stat, out *fuse.EntryOut) *fs.Inode {
	id := st.id()
	shownAs, keep := n.place.trusted(st, id)
	out.Attr = st.attr()
	out.SetAttrTimeout(keep)
	return n.NewInode(ctx, &stageNode{place: n.place, id: id, keep: keep}, shownAs)
}

// trusted says as which inode a staging file is shown, and for how long the
// kernel may keep its attributes. With the writeback cache the kernel alone
// knows size and times of a file, for as long as it knows the inode, and would
// else ask for the other attributes before each write. That is right during a
// run that writes through this mount. A file that others write is another
// inode after each change, so that an open shows what is there by then; one
// that was open before shows what there was.
func (p *place) trusted(st *stat, id fs.StableAttr) (fs.StableAttr, time.Duration) {
	if !p.f.writeback || id.Mode != syscall.S_IFREG {
		return id, 0
	}
	h := fnv.New64a()
	fmt.Fprintln(h, id.Gen)
	state, ours := p.ours()
	if ours {
		fmt.Fprintln(h, state.Run, state.Attempt)
	} else {
		fmt.Fprintln(h, st.x.Size, st.x.Mtime, st.x.Ctime)
	}
	id.Gen = h.Sum64()
	if ours {
		return id, forever
	}
	return id, 0
}

// ours reports whether a run writes to the place through this mount, so that
// nothing changes there but by the kernel's doing.
func (p *place) ours() (cas.PlaceState, bool) {
	state, err := p.current()
	return state, err == nil && state.Active && state.Mount == p.f.id
}

// missingFor is how long the kernel may keep it that a name is missing where it
// has the writeback cache and nobody else makes names. It must be longer than a
// file takes to be made. Else the kernel, when others ask for the name
// meanwhile, takes the name that it is about to give the file for outdated, and
// looks it up anew. When whoever made the file closes it before the answer
// counts, the kernel forgets the file's size, and believes the answer's, which
// was said before the last writes came here: whoever appends then writes over
// them.
const missingFor = time.Second

func (n *stageNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.inside(func(dir int) syscall.Errno {
		var st stat
		if errno := st.at(dir, name); errno != 0 {
			return errno
		}
		ch = n.found(ctx, &st, out)
		fault.At(fault.MountFound)
		return 0
	})
	if errno == syscall.ENOENT && n.place.f.writeback {
		if _, ours := n.place.ours(); ours {
			out.SetEntryTimeout(missingFor)
		}
	}
	return ch, errno
}

func (n *stageNode) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.place.f.statfs(out)
}

// own gives the open file fd, which root made in dir, to the caller, as if the
// caller had made it. The group stays where the directory hands its own down.
func (n *stageNode) own(ctx context.Context, dir, fd int) syscall.Errno {
	caller, ok := fuse.FromContext(ctx)
	if !n.place.f.root || !ok || caller.Uid == 0 && caller.Gid == 0 {
		return 0
	}
	gid := int(caller.Gid)
	var up unix.Stat_t
	if err := unix.Fstat(dir, &up); err != nil {
		return toErrno(err)
	}
	if up.Mode&unix.S_ISGID != 0 {
		gid = -1
	}
	return toErrno(unix.Fchownat(fd, "", int(caller.Uid), gid, unix.AT_EMPTY_PATH))
}

// lostBits is the bits of a mode that what was just made may lack: this process's
// umask took them away, or giving it to its owner did.
func (f *filesystem) lostBits() uint32 { return f.umask | syscall.S_ISUID | syscall.S_ISGID }

// made completes what was just made as name, of mode's type: its owner, its
// mode where bits were lost, and its node. The directory
// on disk may be the caller's, who could put something else in its place: that
// must not be given away.
func (n *stageNode) made(ctx context.Context, dir int, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, toErrno(err)
	}
	defer unix.Close(fd)
	var st stat
	if errno := st.of(fd); errno != 0 {
		return nil, errno
	}
	isDir := st.mode()&syscall.S_IFMT == syscall.S_IFDIR
	if st.mode()&syscall.S_IFMT != mode&syscall.S_IFMT || !isDir && st.x.Nlink != 1 {
		return nil, syscall.ESTALE
	}
	errno := n.own(ctx, dir, fd)
	if errno == 0 && mode&0o7777&n.place.f.lostBits() != 0 {
		errno = toErrno(unix.Chmod(procPath(fd), mode&0o7777))
	}
	if errno == 0 {
		errno = st.of(fd)
	}
	if errno != 0 {
		flags := 0
		if isDir {
			flags = unix.AT_REMOVEDIR
		}
		_ = unix.Unlinkat(dir, name, flags)
		return nil, errno
	}
	return n.found(ctx, &st, out), 0
}

func (n *stageNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.change(func(dir int) syscall.Errno {
		if err := unix.Mkdirat(dir, name, mode&0o7777); err != nil {
			return toErrno(err)
		}
		var up unix.Stat_t
		if unix.Fstat(dir, &up) == nil && up.Mode&unix.S_ISGID != 0 {
			mode |= unix.S_ISGID // chmod must not take away what was handed down
		}
		ch, errno = n.made(ctx, dir, name, mode&0o7777|syscall.S_IFDIR, out)
		return errno
	})
	return ch, errno
}

// Mknod makes FIFOs, sockets and files. Devices would be of no use: the mount
// is nodev.
func (n *stageNode) Mknod(ctx context.Context, name string, mode, rdev uint32, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.change(func(dir int) syscall.Errno {
		switch mode & syscall.S_IFMT {
		case syscall.S_IFCHR, syscall.S_IFBLK:
			return syscall.EPERM
		}
		if mode&syscall.S_IFMT == 0 {
			mode |= syscall.S_IFREG
		}
		if err := unix.Mknodat(dir, name, mode, 0); err != nil {
			return toErrno(err)
		}
		ch, errno = n.made(ctx, dir, name, mode, out)
		return errno
	})
	return ch, errno
}

func (n *stageNode) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.change(func(dir int) syscall.Errno {
		if err := unix.Symlinkat(target, dir, name); err != nil {
			return toErrno(err)
		}
		ch, errno = n.made(ctx, dir, name, syscall.S_IFLNK, out)
		return errno
	})
	return ch, errno
}

func (n *stageNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	old, ok := target.(*stageNode)
	errno = n.change(func(dir int) syscall.Errno {
		if !ok || old.place != n.place {
			return syscall.EXDEV
		}
		return old.changeSelf(func(fd int) syscall.Errno {
			if err := unix.Linkat(unix.AT_FDCWD, procPath(fd), dir, name, unix.AT_SYMLINK_FOLLOW); err != nil {
				return toErrno(err)
			}
			var st stat
			if errno := st.at(dir, name); errno != 0 {
				return errno
			}
			ch = n.found(ctx, &st, out)
			return 0
		})
	})
	return ch, errno
}

func (n *stageNode) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.change(func(dir int) syscall.Errno {
		return n.removing(dir, name, func() error { return unix.Unlinkat(dir, name, 0) })
	})
}

func (n *stageNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.change(func(dir int) syscall.Errno {
		return n.removing(dir, name, func() error { return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) })
	})
}

func (n *stageNode) Rename(ctx context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.change(func(dir int) syscall.Errno {
		to, ok := newParent.(*stageNode)
		if !ok {
			return syscall.EROFS
		}
		if to.place != n.place {
			return syscall.EXDEV
		}
		return to.inside(func(newDir int) syscall.Errno {
			return to.removing(newDir, newName, func() error { return unix.Renameat2(dir, name, newDir, newName, uint(flags)) })
		})
	})
}

func (n *stageNode) Readlink(ctx context.Context) (target []byte, errno syscall.Errno) {
	errno = n.withSelf(func(fd int) syscall.Errno {
		target = make([]byte, unix.PathMax)
		size, err := unix.Readlinkat(fd, "", target)
		if err != nil {
			return toErrno(err)
		}
		target = target[:size]
		return 0
	})
	return target, errno
}

// stageListing is an open staging directory.
type stageListing struct{ openDirectory }

type openDirectory interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
	fs.FileFsyncdirer
}

// Lookup answers READDIRPLUS: what it said could not be kept anyway.
func (stageListing) Lookup(context.Context, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOENT
}

func (n *stageNode) OpendirHandle(ctx context.Context, flags uint32) (fh fs.FileHandle, fuseFlags uint32, errno syscall.Errno) {
	errno = n.inside(func(dir int) syscall.Errno {
		// Not by the name ".": that would need more than the right to list.
		fd, err := unix.Open(procPath(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return toErrno(err)
		}
		ds, errno := fs.NewLoopbackDirStreamFd(fd)
		fh = stageListing{ds.(openDirectory)}
		return errno
	})
	return fh, 0, errno
}
