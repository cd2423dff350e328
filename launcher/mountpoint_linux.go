package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/mounts"
)

// mountPoint is what the kernel says of a mount.
type mountPoint struct {
	fstype string
	uid    int // of a FUSE mount: who mounted it
}

// mountedAt finds the topmost mount at dir in the kernel's list: asking dir
// itself could hang.
func mountedAt(dir string) (mountPoint, bool) {
	m, ok := mounts.At(dir)
	if !ok {
		return mountPoint{}, false
	}
	found := mountPoint{fstype: m.Type, uid: -1}
	for _, o := range m.Options {
		if v, is := strings.CutPrefix(o, "user_id="); is {
			found.uid, _ = strconv.Atoi(v)
		}
	}
	return found, true
}

// answerTime is how long a mount may take to say anything.
const answerTime = 5 * time.Second

// DeadMount reports whether the FUSE mount at dir lost its server. One that
// does not answer in time is not called dead.
func DeadMount(dir string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(dir, &st)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
	case <-time.After(answerTime):
		return false
	}
}

// lostWrite says which file of a run lacks bytes that the disk did not take
// after the program had been told that they were written; "" if none does.
func lostWrite(dir, run string) (what string, err error) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		b := make([]byte, 1<<16)
		var n int
		if n, err = unix.Getxattr(dir, "user.curi.lost."+run, b); errors.Is(err, unix.ENODATA) {
			n, err = 0, nil
		}
		what = string(b[:max(n, 0)])
	}()
	select {
	case <-answered:
		return what, err
	case <-time.After(answerTime):
		return "", fmt.Errorf("no answer within %s", answerTime)
	}
}

// detach takes a mount away although files in it are open.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	return exec.Command("fusermount3", "-u", "-q", "-z", dir).Run()
}
