package main

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/mounts"
)

// unmount unmounts dir as root.
func unmount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	return unix.Unmount(dir, flags)
}

func isBusy(err error) bool { return errors.Is(err, unix.EBUSY) }

// isMountPoint looks in the kernel's list, never at the directory itself: the
// server behind it may be dead.
func isMountPoint(dir string) bool {
	_, ok := mounts.At(dir)
	return ok
}

// endServer asks the server of a mount to leave, if pid, which is what it said
// of itself, is a curifs here too: it may be in another PID namespace.
func endServer(pid int) {
	if name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); err == nil && strings.TrimSpace(string(name)) == "curifs" {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
}
