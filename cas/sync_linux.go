package cas

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncFilesystem makes all that was written to the filesystem of the directory
// dir durable: one barrier for many files.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return storeError(err)
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return storeError(&os.PathError{Op: "syncfs", Path: dir, Err: err})
	}
	return nil
}

// syncedFile reports what met the bytes of a file on their way to the disk. It
// is asked after syncFilesystem, which tells of an error only the first who
// asks, perhaps another process, and before Linux 5.8 nobody; and may tell of
// others' files.
func syncedFile(path string) error {
	fd, err := openRaw(path, unix.O_RDONLY, 0)
	if err != nil {
		return storeError(err)
	}
	defer unix.Close(fd)
	err = retryEINTR(func() error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESPIPE), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return syncDir(path) // a filesystem or a sandbox that does not know the call
	}
	return storeError(&os.PathError{Op: "sync", Path: path, Err: err})
}
