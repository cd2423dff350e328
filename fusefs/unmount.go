//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/internal/mounts"
)

// How long each step of the shutdown may take.
const (
	quietTime = 500 * time.Millisecond // for programs to close what they hold
	drainTime = 3 * time.Second        // for a detached mount to be left by its users
	abortTime = 2 * time.Second        // for requests to fail after the abort
)

// shutdown leaves nothing mounted and returns within a few seconds, whatever
// programs do: it unmounts, else detaches the mount and waits for its users to
// go, else aborts the connection, at which their calls fail with ENOTCONN.
func (c *connection) shutdown(served <-chan struct{}) error {
	select {
	case <-served:
		return nil // unmounted by someone else
	default:
	}
	fault.At(fault.MountWithdrawn)
	err := c.unmount(false)
	for end := time.Now().Add(quietTime); err != nil && time.Now().Before(end); {
		if wait(served, 50*time.Millisecond) {
			return nil
		}
		err = c.unmount(false)
	}
	if err != nil {
		c.log.Warn("the mount is in use; detaching it", "dir", c.dir, "err", err)
		if err = c.unmount(true); err != nil {
			c.abort()
			return fmt.Errorf("unmount %s: %w: run `umount -l %s`", c.dir, err, c.dir)
		}
	}
	if wait(served, drainTime) {
		return nil
	}
	c.log.Warn("programs still use the mount; aborting their calls", "dir", c.dir)
	c.abort()
	if !wait(served, abortTime) {
		c.log.Warn("requests are stuck; they end with this process", "dir", c.dir)
	}
	return nil
}

// abandon takes away a mount that has not served anything.
func (c *connection) abandon() error {
	served := make(chan struct{})
	go func() {
		defer close(served)
		c.server.Serve()
	}()
	if err := c.unmount(false); err != nil {
		if err := c.unmount(true); err != nil {
			return fmt.Errorf("mount %s again without passthrough: %w", c.dir, err)
		}
	}
	wait(served, drainTime)
	return nil
}

func wait(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// unmount takes the mount out of the namespace; lazily even while it is used.
// Neither way looks at the directory itself. A mount that someone else took
// away already, while another namespace keeps it alive, is no failure, and
// what lies at its place by now stays.
func (c *connection) unmount(lazy bool) error {
	if at, ok := mounts.At(c.dir); c.mount.Device != "" && (!ok || at.Device != c.mount.Device) {
		return nil
	}
	if c.root {
		flags := 0
		if lazy {
			flags = syscall.MNT_DETACH
		}
		err := syscall.Unmount(c.dir, flags)
		if errors.Is(err, syscall.EINVAL) {
			err = nil // gone between the look and the call
		}
		return err
	}
	args := []string{"-u", "-q", c.dir}
	if lazy {
		args = []string{"-u", "-q", "-z", c.dir}
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err != nil && len(out) > 0 {
		return fmt.Errorf("%s", strings.TrimSpace(string(out)))
	}
	return err
}

// abort makes every call that waits for this server fail.
func (c *connection) abort() {
	_, minor, ok := strings.Cut(c.mount.Device, ":")
	if !ok {
		return
	}
	path := filepath.Join("/sys/fs/fuse/connections", minor, "abort")
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		c.log.Warn("cannot abort the connection", "err", err)
	}
}
