//go:build linux

package fusefs

import (
	"os"
	"strings"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// openBacking opens the store's directory by a mount of its own, which nobody
// else sees. From there the kernel takes the blobs that it reads itself: it
// notes no times of access, which costs a read of 4 KiB 3 %, and it could not
// write to them if it was asked to. Nil where such a mount cannot be had.
func openBacking(store string) *os.File {
	fd, err := unix.OpenTree(unix.AT_FDCWD, store, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil
	}
	dir := os.NewFile(uintptr(fd), store)
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_clr: unix.MOUNT_ATTR__ATIME, Attr_set: unix.MOUNT_ATTR_NOATIME | unix.MOUNT_ATTR_RDONLY,
	})
	if err != nil {
		dir.Close()
		return nil
	}
	return dir
}

// backingOf opens the file of b as [openBacking] says; nil if that is not it.
func (f *filesystem) backingOf(b *cas.Blob) *os.File {
	rel, within := strings.CutPrefix(b.Name(), f.store.Dir()+"/")
	if f.backing == nil || !within {
		return nil
	}
	fd, err := unix.Openat(int(f.backing.Fd()), rel, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), b.Name())
	var here, there stat
	if here.of(fd) != 0 || there.of(int(b.Fd())) != 0 || here.device() != there.device() || here.x.Ino != there.x.Ino {
		file.Close()
		return nil
	}
	return file
}
