package cas

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback begins to write a range of f to the disk, so that a later
// fsync has little left to wait for. A hint: errors show at the fsync.
func startWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
