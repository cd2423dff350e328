//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/mounts"
)

// maxRequest is the size of the largest read or write that reaches this
// process, in bytes. A full 1 MiB with its header would not fit the pipe that
// reads are spliced through.
const maxRequest = 512 << 10

// maxBackground is how many requests that it makes by itself, to read ahead and
// to write back, the kernel has under way at once. More reads and writes wait,
// whatever they are of. Each reader of a remote that hangs holds one or two of
// them up until the remote is given up: that must not stop who reads something
// else. An answer takes up to 128 KiB of memory.
const maxBackground = 1024

// maxWritten bounds the bytes of requests that are being served: writes.
const maxWritten = 64 << 20

// connection is a mount with its server.
type connection struct {
	server *fuse.Server
	dir    string // absolute
	mount  mounts.Mount
	root   bool   // mounted by mount(2), not by fusermount3
	reason string // why passthrough is off; "" when on
	log    *slog.Logger
}

// How a connection moves the bytes of files; the kernel takes the choice once,
// when it mounts.
type mode struct {
	writeback bool // collect small writes in the page cache; excludes passthrough
	depth     int  // how many filesystems may be stacked below this one
}

// connect mounts and chooses how bytes move: by passthrough where the kernel
// agrees to register one real file of the store, else through this process
// with the writeback cache. The probe is the only registration that may fail:
// after a failed one go-fuse gives passthrough up for the whole mount, while
// files are open.
func connect(f *filesystem, dir string) (*connection, error) {
	reason := f.noPassthrough()
	if reason == "" {
		for depth := 1; depth <= 2; depth++ {
			c, err := f.mount(dir, mode{depth: depth})
			if err != nil {
				return nil, err
			}
			errno := f.probe(c)
			if errno == 0 {
				f.passthrough, f.backing = true, openBacking(f.store.Dir())
				return c, nil
			}
			if err := c.abandon(); err != nil {
				return nil, err
			}
			if reason = probeReason(errno); errno != syscall.ELOOP {
				break
			}
		}
	}
	f.writeback = true
	c, err := f.mount(dir, mode{writeback: true})
	if err != nil {
		return nil, err
	}
	c.reason = reason
	return c, nil
}

// noPassthrough says why it is of no use to ask the kernel; "" if it is not.
func (f *filesystem) noPassthrough() string {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return "the server does not run as root"
	}
	return ""
}

// probe registers a file of the store as a backing file and forgets it again.
func (f *filesystem) probe(c *connection) syscall.Errno {
	if c.server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		return syscall.ENOSYS
	}
	file, err := os.Open(filepath.Join(f.store.Dir(), "curi-store.json"))
	if err != nil {
		return toErrno(err)
	}
	defer file.Close()
	id, errno := c.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(file.Fd())})
	if errno != 0 {
		return errno
	}
	return c.server.UnregisterBackingFd(id)
}

func probeReason(errno syscall.Errno) string {
	switch errno {
	case syscall.ENOSYS:
		return "the kernel is older than 6.9 or lacks FUSE passthrough"
	case syscall.EPERM:
		return "the server is not root in the first user namespace"
	case syscall.ELOOP:
		return "the store's filesystem is stacked too deep"
	}
	return "the store's filesystem refused: " + errno.Error()
}

// mount mounts and negotiates, and serves nothing yet.
func (f *filesystem) mount(dir string, m mode) (*connection, error) {
	c := &connection{dir: dir, root: os.Geteuid() == 0, log: f.log}
	mo := fuse.MountOptions{
		AllowOther: f.opts.AllowOther, FsName: "curi", Name: "curi",
		MaxWrite: maxRequest, MaxBackground: maxBackground, MaxInflightRequestBytes: maxWritten, MaxStackDepth: m.depth,
		DirectMountStrict: c.root, EnableSymlinkCaching: true, IgnoreSecurityLabels: true,
		// Else the kernel asks for security.capability before every small write.
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2,
		Logger:            log.New(libraryLog{f.log}, "", 0),
		// The log of requests learns names from look-ups only.
		DisableReadDirPlus: f.opts.Debug,
		PanicHandler:       f.panicked,
	}
	if f.opts.AllowOther {
		mo.Options = append(mo.Options, "default_permissions")
	}
	if f.opts.NoExec {
		mo.Options = append(mo.Options, "noexec")
	}
	if m.writeback {
		mo.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
		mo.DisabledCapabilities |= fuse.CAP_PASSTHROUGH
	}
	raw := fs.NewNodeFS(f.newRoot(), &fs.Options{
		MountOptions: mo, NullPermissions: true, RootStableAttr: &fs.StableAttr{Ino: fuse.FUSE_ROOT_ID},
		Logger: log.New(libraryLog{f.log}, "", 0),
	})
	server, err := fuse.NewServer(f.watch(raw), dir, &mo)
	if err != nil {
		return nil, mountError(dir, f.opts.AllowOther, err)
	}
	c.server = server
	c.mount, _ = mounts.At(dir)
	return c, nil
}

func (f *filesystem) panicked(v any) fuse.Status {
	f.log.Error("a request failed inside the server; this is a defect of Curi", "panic", fmt.Sprint(v))
	return fuse.EIO
}

func mountError(dir string, allowOther bool, err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && errno == syscall.EPERM:
		return fmt.Errorf("mount at %s: %w: root here may not mount (a container needs CAP_SYS_ADMIN); work without a mount", dir, err)
	case strings.Contains(err.Error(), "fusermount") && allowOther:
		return fmt.Errorf("mount at %s: fusermount3 refused; allow_other without root needs the line user_allow_other in /etc/fuse.conf, and the directory must be yours", dir)
	case strings.Contains(err.Error(), "fusermount"):
		return fmt.Errorf("mount at %s: fusermount3 refused: the directory must be yours and not itself lie in a FUSE mount", dir)
	}
	return fmt.Errorf("mount at %s: %w", dir, err)
}

// libraryLog takes the lines that go-fuse logs; what it calls unimplemented is
// answered right by default.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(p []byte) (int, error) {
	l.log.Debug(strings.TrimSpace(string(p)))
	return len(p), nil
}
