package cas

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// listXattrs returns the names of path's extended attributes; none where the
// filesystem has none. Symlinks are not followed.
func listXattrs(path string) ([]string, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := unix.Llistxattr(path, buf)
		switch {
		case err == nil && n == 0:
			return nil, nil
		case err == nil:
			var names []string
			for _, b := range bytes.Split(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
				names = append(names, string(b))
			}
			return names, nil
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 64<<10) // the most that Linux lists
			if n, err := unix.Llistxattr(path, nil); err == nil && n > len(buf) {
				buf = make([]byte, n)
			}
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return nil, nil
		case !errors.Is(err, unix.EINTR):
			return nil, &os.PathError{Op: "listxattr", Path: path, Err: err}
		}
	}
}

func getXattr(path, name string) (string, error) {
	buf := make([]byte, 4<<10)
	for {
		n, err := unix.Lgetxattr(path, name, buf)
		switch {
		case err == nil:
			return string(buf[:n]), nil
		case errors.Is(err, unix.ERANGE) && len(buf) < 128<<10:
			buf = make([]byte, 128<<10)
		case !errors.Is(err, unix.EINTR):
			return "", &os.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
	}
}

// xattrs returns the extended attributes of path whose names have a prefix. One
// that is removed meanwhile was not there.
func xattrs(path, prefix string) (Attrs, error) {
	names, err := listXattrs(path)
	if err != nil {
		return nil, err
	}
	var a Attrs
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		v, err := getXattr(path, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		a = a.With(name, v)
	}
	return a, nil
}

// metaXattrs returns the user.curi.* extended attributes of path.
func metaXattrs(path string) (Attrs, error) {
	a, err := xattrs(path, MetaPrefix)
	if err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return a, nil
}

// userXattrs returns the user.* extended attributes of path, which any program
// may have set.
func userXattrs(path string) (Attrs, error) { return xattrs(path, "user.") }
