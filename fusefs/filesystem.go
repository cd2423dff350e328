//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forever is how long the kernel may keep what cannot change, and names that a
// refresh takes back.
const forever = 365 * 24 * time.Hour

// epoch is the time of everything read-only: 1980-01-01 UTC, the oldest that
// zip archives can hold.
const epoch = 315532800

// filesystem is what all nodes of one mount share.
type filesystem struct {
	store *cas.Store
	opts  Options
	log   *slog.Logger
	id    string // the mount's, see [cas.PlaceState]

	uid, gid uint32 // owner of what is read-only
	root     bool   // files are made by root and given to the caller
	umask    uint32
	device   uint64 // of the store: the filesystem that passthrough was tried on
	network  bool   // the store's filesystem: close(2) can fail, an open file that is removed is renamed

	passthrough bool     // constant once mounted
	backing     *os.File // see [openBacking]; nil without
	writeback   bool

	ctx        context.Context // ends when the mount goes: nothing waits for a remote then
	stop       context.CancelFunc
	interrupts interrupts

	top     *names      // the mount's root
	small   *smallNodes // of the connection for trees of small files; nil without
	closing atomic.Bool

	refreshing sync.Mutex
	seen       atomic.Pointer[string] // what refs/.changed held at the last refresh

	lostMu sync.Mutex
	lost   map[string]string // by run: what could not be written

	placesMu sync.Mutex
	places   map[string]*place // by short key

	stats *Stats
}

func newFilesystem(s *cas.Store, o Options) (*filesystem, error) {
	f := &filesystem{
		store: s, opts: o, log: o.Logger, id: cas.NewMountID(),
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), root: os.Geteuid() == 0,
		places: map[string]*place{}, lost: map[string]string{}, stats: o.Stats,
	}
	if f.stats == nil {
		f.stats = &Stats{}
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	var st syscall.Stat_t
	if err := syscall.Stat(s.Dir(), &st); err != nil {
		return nil, fmt.Errorf("store %s: %w", s.Dir(), err)
	}
	f.device = uint64(st.Dev)
	facts, err := s.Facts(context.Background())
	if err != nil {
		return nil, err
	}
	f.network = facts.Network
	// There is no other way to read it. The mode that a caller gets already
	// went through the caller's own.
	old := syscall.Umask(0o077)
	syscall.Umask(old)
	f.umask = uint32(old)
	raiseFileLimit()
	return f, nil
}

// raiseFileLimit lets this process open as many files as it may: each open
// file of each program is one here.
func raiseFileLimit() {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
}

func (f *filesystem) close() {
	f.stop()
	if f.backing != nil {
		f.backing.Close()
	}
	f.placesMu.Lock()
	defer f.placesMu.Unlock()
	f.places = nil
}

// fixed is the attributes of something read-only. mode has the type.
func (f *filesystem) fixed(mode uint32, size int64, ino uint64) fuse.Attr {
	nlink := uint32(1)
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		nlink = 2
	}
	return fuse.Attr{
		Ino: ino, Mode: mode, Size: uint64(size), Blocks: uint64(size+511) / 512, Blksize: 4096,
		Nlink: nlink, Owner: fuse.Owner{Uid: f.uid, Gid: f.gid},
		Atime: epoch, Mtime: epoch, Ctime: epoch,
	}
}

// readOnly is the part of all nodes that cannot be changed through the mount.
// It answers every call that would: go-fuse takes a missing method of some for
// success.
type readOnly struct {
	fs.Inode
	f *filesystem
	// ident tells what the name that led here showed; the same name with the
	// same ident stays the same node.
	ident string
}

func (n *readOnly) identity() string { return n.ident }

func (n *readOnly) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.f.statfs(out)
}

func (f *filesystem) statfs(out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.store.Dir(), &st); err != nil {
		return toErrno(err)
	}
	out.FromStatfsT(&st)
	return 0
}

// Access tells root too that it cannot write here. With default_permissions the
// kernel decides by itself.
func (n *readOnly) Access(ctx context.Context, mask uint32) syscall.Errno {
	if mask&unix.W_OK != 0 {
		return syscall.EROFS
	}
	return 0
}

func (n *readOnly) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (n *readOnly) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (n *readOnly) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

func (n *readOnly) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

func (n *readOnly) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (n *readOnly) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (n *readOnly) Unlink(context.Context, string) syscall.Errno { return syscall.EROFS }
func (n *readOnly) Rmdir(context.Context, string) syscall.Errno  { return syscall.EROFS }

func (n *readOnly) Rename(context.Context, string, fs.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EROFS
}

func (n *readOnly) Setattr(context.Context, fs.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

func (n *readOnly) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EROFS
}

func (n *readOnly) Removexattr(context.Context, string) syscall.Errno { return syscall.EROFS }

func (n *readOnly) Allocate(context.Context, fs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EROFS
}

// Fsync succeeds: programs sync directories that they only read.
func (n *readOnly) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }
