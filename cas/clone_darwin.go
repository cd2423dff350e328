package cas

import (
	"context"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func tryClone(src *os.File, dst string, perm fs.FileMode) (*os.File, error) {
	if err := unix.Fclonefileat(int(src.Fd()), unix.AT_FDCWD, dst, 0); err != nil {
		return nil, errNoClone
	}
	// The clone has the mode of its source, which may not be writable.
	if err := os.Chmod(dst, perm|0o600); err != nil {
		os.Remove(dst)
		return nil, err
	}
	f, err := os.OpenFile(dst, os.O_RDWR, 0)
	if err != nil {
		os.Remove(dst)
	}
	return f, err
}

func copyBytes(ctx context.Context, dst, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	return copyPlain(ctx, dst, src, 0, fi.Size())
}
