//go:build linux

package fusefs

import (
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// smallConnection is the second connection of a mount, for trees of small
// files. Opening such a file through the first costs a request and a thread
// that wakes, many times what reading it does. Here the kernel is told at the
// first open that there is no such call, and never asks again. That goes for
// all of a connection, and excludes passthrough.
//
// A mount below the first one would be in the way of whoever unmounts that. So
// this one is the root of a mount namespace in which there is nothing else: a
// run that has root's rights takes the trees of its inputs from there, and
// mounts them in a namespace of its own over what the first connection shows.
// Whatever dies, nothing is left mounted.
type smallConnection struct {
	server    *fuse.Server
	served    chan struct{}
	namespace *os.File
}

// connectSmall makes the connection and serves it. It needs the right to mount.
func (f *filesystem) connectSmall() (_ *smallConnection, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("serve trees of small files: %w", err)
		}
	}()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	mount, err := f.mountSmall(dev)
	if err != nil {
		unix.Close(dev)
		return nil, err
	}
	defer unix.Close(mount)
	f.small = newSmallNodes(f)
	server, err := fuse.NewServer(f.watch(f.small), "/dev/fd/"+strconv.Itoa(dev), &fuse.MountOptions{
		MaxWrite: maxRequest, MaxBackground: 64, EnableSymlinkCaching: true, IgnoreSecurityLabels: true,
		ExplicitDataCacheControl: true, // nothing changes
		EnableAcl:                true, // else "ls -l" asks for each file's each time
		ExtraCapabilities:        fuse.CAP_NO_OPENDIR_SUPPORT, DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		DisableReadDirPlus: f.opts.Debug, // see [filesystem.mount]
		Logger:             log.New(libraryLog{f.log}, "", 0), PanicHandler: f.panicked,
	})
	if err != nil {
		return nil, err
	}
	c := &smallConnection{server: server, served: make(chan struct{})}
	go func() {
		defer close(c.served)
		server.Serve()
	}()
	if c.namespace, err = namespaceOf(mount, f.store.Dir()); err != nil {
		return nil, err // the mount goes with its last descriptor
	}
	return c, nil
}

// mountSmall makes the mount, which is nowhere yet, and returns its
// descriptor. It is read-only as a whole: else root could open a file for
// writing without anybody being asked.
func (f *filesystem) mountSmall(dev int) (int, error) {
	fsys, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("the kernel is older than 5.2 or forbids it: fsopen: %w", err)
	}
	defer unix.Close(fsys)
	flags := []string{"ro"}
	if f.opts.AllowOther {
		flags = append(flags, "allow_other", "default_permissions")
	}
	for _, flag := range flags {
		if err := unix.FsconfigSetFlag(fsys, flag); err != nil {
			return -1, fmt.Errorf("mount option %s: %w", flag, err)
		}
	}
	for _, o := range [][2]string{
		{"source", "curi"}, {"subtype", "curi"}, {"fd", strconv.Itoa(dev)}, {"rootmode", "40000"},
		{"user_id", strconv.Itoa(int(f.uid))}, {"group_id", strconv.Itoa(int(f.gid))}, {"max_read", strconv.Itoa(maxRequest)},
	} {
		if err := unix.FsconfigSetString(fsys, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("mount option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fsys); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	attrs := unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if f.opts.NoExec {
		attrs |= unix.MOUNT_ATTR_NOEXEC
	}
	mount, err := unix.Fsmount(fsys, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return mount, nil
}

// namespaceOf makes a mount namespace whose root is the given mount and in
// which nothing else is mounted: it keeps no other filesystem busy. It lasts
// as long as the returned descriptor is open. At dir, a directory, the mount
// is for a moment before it becomes the root.
func namespaceOf(mount int, dir string) (*os.File, error) {
	var namespace *os.File
	err := onOwnThread(func() error {
		self, err := unix.Open("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(self)
		for _, step := range []struct {
			what string
			do   func() error
		}{
			{"unshare", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
			{"make private", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
			{"move_mount", func() error {
				return unix.MoveMount(mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
			}},
			{"fchdir", func() error { return unix.Fchdir(mount) }},
			{"pivot_root", func() error { return unix.PivotRoot(".", ".") }}, // the old root then lies on the new one
			{"umount", func() error { return unix.Unmount(".", unix.MNT_DETACH) }},
		} {
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
		}
		fd, err := unix.Openat(self, "mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			namespace = os.NewFile(uintptr(fd), "mount namespace")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a mount namespace: %w", err)
	}
	return namespace, nil
}

// onOwnThread calls fn on a thread that ends afterwards, with all that fn did
// to it, and that is not the first one, whose state /proc shows as the
// process's.
func onOwnThread(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			result <- onOwnThread(fn)
			return
		}
		result <- fn()
	}()
	return <-result
}

// path is where another process opens the namespace.
func (c *smallConnection) path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), c.namespace.Fd())
}

// close lets the connection go. What a run still has of it ends with this
// process at the latest.
func (c *smallConnection) close() {
	c.namespace.Close()
	wait(c.served, quietTime)
}
