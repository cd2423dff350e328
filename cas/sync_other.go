//go:build !linux

package cas

import "golang.org/x/sys/unix"

// syncFilesystem makes all that was written to the filesystem of the directory
// dir durable: one barrier for many files.
func syncFilesystem(dir string) error { return unix.Sync() }

// syncedFile reports what met the bytes of a file on their way to the disk.
func syncedFile(path string) error { return syncDir(path) }
