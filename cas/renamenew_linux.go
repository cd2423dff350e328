package cas

import (
	"errors"
	"os"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// renameNew renames a file to a name that does not exist. errRenameNew: it
// exists, its directory does not, or the filesystem cannot tell.
func renameNew(from, to string) error {
	if err := fault.In(fault.Rename); err != nil {
		return err
	}
	err := retryEINTR(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return errRenameNew
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}
