package cas

import "golang.org/x/sys/unix"

// touchFile sets a file's times to now, by the clock of the file system, which
// needs no more than the right to write the file.
func touchFile(path string) error { return unix.Utimes(path, nil) }
