//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/curi-store/curi/internal/mounts"
)

// checkMountPoint returns dir as an absolute path, or says in one line why the
// store cannot be mounted there.
func checkMountPoint(dir string) (string, error) {
	dir, err := absolute(dir)
	if err != nil {
		return "", err
	}
	if id, ok := mounts.At(dir); ok {
		if strings.HasPrefix(id.Type, "fuse") && dead(dir) {
			return "", fmt.Errorf("mount point %s: a mount whose server died is still there: run `curi umount --stale` or `fusermount3 -u %s`: %w", dir, dir, syscall.EBUSY)
		}
		return "", fmt.Errorf("mount point %s: %s is already mounted there: unmount it or choose another directory: %w", dir, id.Type, syscall.EBUSY)
	}
	fi, err := os.Stat(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("mount point %s does not exist: make the directory first: %w", dir, os.ErrNotExist)
		}
		return "", fmt.Errorf("mount point %s: %w", dir, err)
	}
	if !fi.IsDir() {
		return "", fmt.Errorf("mount point %s is not a directory: %w", dir, syscall.ENOTDIR)
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", fmt.Errorf("mount point %s: %w", dir, err)
	}
	defer d.Close()
	if names, _ := d.Readdirnames(1); len(names) > 0 {
		return "", fmt.Errorf("mount point %s is not empty (it has %q): choose an empty directory: %w", dir, names[0], syscall.ENOTEMPTY)
	}
	return dir, checkFuse()
}

// checkFuse says why this process cannot mount anything.
func checkFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	root := os.Geteuid() == 0
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("mount: /dev/fuse is missing: load the kernel module fuse, or give the container the device (--device /dev/fuse), or work without a mount: %w", os.ErrNotExist)
	case err != nil && root:
		return fmt.Errorf("mount: %w: give the container the device /dev/fuse and CAP_SYS_ADMIN, or work without a mount", err)
	}
	if !root {
		if _, lerr := exec.LookPath("fusermount3"); lerr != nil {
			return fmt.Errorf("mount without root needs fusermount3, which is not in PATH: install the package fuse3, or mount as root: %w", exec.ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("mount: %w: ask the administrator to make /dev/fuse accessible (mode 0666)", err)
		}
	}
	return nil
}

// dead reports whether the FUSE mount at dir has lost its server.
func dead(dir string) bool {
	var st syscall.Stat_t
	err := syscall.Lstat(dir, &st)
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}
