package cas

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/internal/mounts"
	"golang.org/x/sys/unix"
)

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startTime is when this machine was started, by its clock as it goes now.
func startTime() time.Time {
	var up unix.Sysinfo_t
	if unix.Sysinfo(&up) != nil {
		return fault.Now()
	}
	return fault.Now().Add(-time.Duration(up.Uptime) * time.Second)
}

// processStart is when a process began, in clock ticks since boot, which tells
// it from a later one of the same number; 0 if unknown.
func processStart(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the command in parentheses, and may hold anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return 0
	}
	start, _ := strconv.ParseUint(f[19], 10, 64)
	return start
}

// mountNamespace is the inode of this process's mount namespace; 0 if unknown.
func mountNamespace() uint64 {
	fi, err := os.Stat("/proc/self/ns/mnt")
	if err != nil {
		return 0
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// mountedDevice is MAJOR:MINOR of what is mounted topmost at dir, by the
// kernel's list; "" if nothing is.
func mountedDevice(dir string) string {
	m, _ := mounts.At(dir)
	return m.Device
}

// askRefresh asks the mount at dir to show names that changed; it blocks until
// the mount's server answers.
func askRefresh(dir string) error {
	var b [64]byte
	_, err := unix.Getxattr(dir, "user.curi.refresh", b[:])
	return err
}

// askStats asks the mount at dir for its counters, as JSON; it blocks until
// the mount's server answers.
func askStats(dir string) ([]byte, error) {
	b := make([]byte, 16<<10)
	n, err := unix.Getxattr(dir, "user.curi.stats", b)
	return b[:max(n, 0)], err
}
