package launcher

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// releaseLag is how long after its last close a file may still count as open:
// a mount hears of it late.
const releaseLag = 2 * time.Second

// firstOpenForWriting returns a file below dir that a process has open for
// writing, or "". The kernel refuses a read lease on such a file.
func firstOpenForWriting(ctx context.Context, dir string) (string, error) {
	deadline := time.Now().Add(releaseLag)
	open := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return ctx.Err()
		}
		for {
			busy, err := hasWriter(path)
			if err != nil {
				return err
			}
			if !busy {
				return nil
			}
			if time.Now().After(deadline) {
				open = path
				return filepath.SkipAll
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return open, err
}

func hasWriter(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		return false, nil // gone, or another user's: its processes are not ours to judge
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil // somebody holds a lease on it
	}
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return true, nil
	}
	// A file system without leases, or a file of another user's: unknown.
	return false, nil
}
