package cas

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func tryClone(src *os.File, dst string, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlFileClone(int(f.Fd()), int(src.Fd())); err != nil {
		f.Close()
		os.Remove(dst)
		return nil, errNoClone
	}
	return f, nil
}

// copyBytes copies src whole, hole by hole, inside the kernel where it can.
func copyBytes(ctx context.Context, dst, src *os.File) error {
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	size := fi.Size()
	if err := dst.Truncate(size); err != nil {
		return storeError(err)
	}
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole up to the end
		}
		end := size
		if err != nil {
			start = off // the filesystem knows no holes
		} else if h, err := unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE); err == nil {
			end = h
		}
		if err := copyRange(ctx, dst, src, start, end); err != nil {
			return storeError(err)
		}
		off = end
	}
	return nil
}

func copyRange(ctx context.Context, dst, src *os.File, off, end int64) error {
	const step = 64 << 20
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, out := off, off
		n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(step, end-off)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EIO):
			return &os.PathError{Op: "copy", Path: dst.Name(), Err: err}
		case err != nil, n == 0:
			// Across filesystems, on special ones, or at an early end: read and write.
			return copyPlain(ctx, dst, src, off, end)
		}
		off += int64(n)
	}
	return nil
}
