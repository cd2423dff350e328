package cas

import (
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
