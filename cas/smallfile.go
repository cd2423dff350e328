package cas

import (
	"fmt"
	"os"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// Small files come by the ten thousand, and an [os.File] costs as many system
// calls as the file itself. These functions use descriptors as they are.

// openRaw opens path; the caller closes the descriptor.
func openRaw(path string, flags int, mode uint32) (fd int, err error) {
	err = retryEINTR(func() error {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func fstatRaw(fd int, path string) (fileState, error) {
	var st unix.Stat_t
	if err := retryEINTR(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return fileState{}, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	return stateOf(&st), nil
}

// readSmall reads the file at path into buf and returns its length and state.
// errUnstable: it does not fit, is no regular file any more or changed meanwhile.
// ErrInvalid: a file that the kernel makes up, whose size says nothing.
func readSmall(path string, buf []byte) (n int, st fileState, err error) {
	// Should the name have become a FIFO since it was listed, do not hang.
	fd, err := openRaw(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, st, err
	}
	defer unix.Close(fd)
	if err := fault.In(fault.Read); err != nil {
		return 0, st, err
	}
	if st, err = fstatRaw(fd, path); err != nil {
		return 0, st, err
	}
	if !st.isRegular() || st.size > int64(len(buf)) {
		return 0, st, errUnstable
	}
	for int64(n) < st.size {
		var k int
		err := retryEINTR(func() (err error) {
			k, err = unix.Pread(fd, buf[n:st.size], int64(n))
			return err
		})
		if err != nil {
			return n, st, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if k == 0 {
			return n, st, errUnstable
		}
		n += k
	}
	more := 0
	if st.size == 0 {
		err := retryEINTR(func() (err error) {
			more, err = unix.Pread(fd, buf[:1], 0)
			return err
		})
		if err != nil {
			return n, st, &os.PathError{Op: "read", Path: path, Err: err}
		}
	}
	after, err := fstatRaw(fd, path)
	if err == nil && !st.same(after) {
		err = errUnstable
	}
	if err == nil && more > 0 {
		err = fmt.Errorf("%s says that it is empty, and is not, as files of /proc do: store what it holds now through a pipe, or leave it out: %w", path, ErrInvalid)
	}
	return n, st, err
}

// write makes a file that will be published of p and returns its path.
func (a *stagingArea) write(p []byte) (path string, err error) {
	if err := fault.In(fault.Write); err != nil {
		return "", err
	}
	path = a.path()
	fd, err := openRaw(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, blobMode)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := unix.Close(fd); err == nil && cerr != nil {
			err = &os.PathError{Op: "close", Path: path, Err: cerr}
		}
	}()
	if !a.modeKept {
		// The umask may take what a shared store needs.
		st, err := fstatRaw(fd, path)
		if err != nil {
			return "", err
		}
		if a.modeKept = st.mode&0o7777 == blobMode; !a.modeKept {
			if err := unix.Fchmod(fd, blobMode); err != nil {
				return "", &os.PathError{Op: "chmod", Path: path, Err: err}
			}
		}
	}
	for len(p) > 0 {
		var k int
		err := retryEINTR(func() (err error) {
			k, err = unix.Write(fd, p)
			return err
		})
		if err != nil {
			return "", &os.PathError{Op: "write", Path: path, Err: err}
		}
		p = p[k:]
	}
	return path, nil
}
