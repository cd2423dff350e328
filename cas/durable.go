package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// mkdir makes the directory dir, which lies in the store, and those above it
// that lack, with the store's permissions whatever the umask is. It never makes
// the store's own directory: where that is gone, a filesystem may have been
// unmounted, and what is written now would be lost.
func (s *Store) mkdir(dir string) error {
	err := s.mkdirOne(dir)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != s.dir && strings.HasPrefix(dir, s.dir+string(filepath.Separator)) {
		if err := s.mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.mkdirOne(dir)
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the store's directory is gone (%w); bring it back or mount it", err)
	}
	return storeError(err)
}

// mkdirOne makes one directory. In a store that others use too it gets its
// name only when it has its mode and owner: what a crash in between left would
// keep the others out for good.
func (s *Store) mkdirOne(dir string) error {
	if !s.shared && s.owner == nil {
		return os.Mkdir(dir, 0o777)
	}
	if _, err := os.Lstat(dir); err == nil {
		return fs.ErrExist
	}
	tmp := filepath.Join(s.dir, "staging", "dir-"+randomHex(8))
	if dir == filepath.Dir(tmp) || filepath.Dir(dir) == filepath.Dir(tmp) {
		tmp = dir // nobody looks for it before it is ready
	}
	err := os.Mkdir(tmp, 0o777)
	if errors.Is(err, fs.ErrNotExist) && tmp != dir {
		if err = s.mkdir(filepath.Dir(tmp)); err == nil {
			err = os.Mkdir(tmp, 0o777)
		}
	}
	if err != nil {
		return err
	}
	if err = s.shareDir(tmp); err == nil && tmp != dir {
		if err = renameNew(tmp, dir); errors.Is(err, errRenameNew) {
			if _, err = os.Lstat(dir); err == nil {
				err = fs.ErrExist
			} else {
				err = os.Rename(tmp, dir) // in the worst case over one that is empty still
			}
		}
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// shareDir gives a new directory the mode and the owner that the store wants.
func (s *Store) shareDir(dir string) error {
	if s.owner != nil {
		_ = os.Lchown(dir, s.owner.uid, s.owner.gid) // where there are owners
	}
	if s.shared {
		return os.Chmod(dir, sharedDirMode)
	}
	return nil
}

// shareFile does so for a new small file.
func (s *Store) shareFile(f *os.File, mode fs.FileMode) error {
	if s.owner != nil {
		_ = f.Chown(s.owner.uid, s.owner.gid)
	}
	return f.Chmod(mode)
}

// stage makes an empty file in STORE/staging, open for reading and writing.
// Whoever made it renames it into place or removes it; what a crash leaves,
// Collect removes. While it is open it is locked, so that no collection takes it
// for left over, whatever the clocks say.
func (s *Store) stage() (*os.File, error) {
	for try := 0; ; try++ {
		f, err := s.createStaged()
		if err != nil {
			return nil, err
		}
		// A collection may have taken it for left over before it was locked.
		if ok, err := tryFlock(f, unix.LOCK_EX); (ok || err != nil) && sameFile(f, f.Name()) {
			return f, nil
		}
		f.Close()
		if try == 100 {
			return nil, fmt.Errorf("make a file in %s: something removes it at once; see what else works there: %w", filepath.Dir(f.Name()), ErrBusy)
		}
	}
}

func (s *Store) createStaged() (*os.File, error) {
	dir := filepath.Join(s.dir, "staging")
	f, err := os.CreateTemp(dir, "tmp-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdir(dir); err != nil {
			return nil, err
		}
		f, err = os.CreateTemp(dir, "tmp-*")
	}
	if err != nil {
		return nil, storeError(err)
	}
	return f, nil
}

// smallFileMode is the mode of small mutable files of the store.
func (s *Store) smallFileMode() fs.FileMode {
	if s.shared {
		return sharedFileMode
	}
	return 0o644
}

// stageBytes puts data into a staging file of the given mode and returns it.
// With sync the bytes are durable. The caller closes it when it has its name.
func (s *Store) stageBytes(data []byte, mode fs.FileMode, sync bool) (_ *os.File, err error) {
	f, err := s.stage()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = fault.In(fault.Write); err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		return nil, storeError(err)
	}
	if err = s.shareFile(f, mode); err != nil {
		return nil, storeError(err)
	}
	if sync {
		if err = fault.In(fault.Sync); err == nil {
			err = f.Sync()
		}
	} else {
		err = flushed(f)
	}
	if err != nil {
		return nil, storeError(err)
	}
	fault.At(fault.FileStaged)
	return f, nil
}

// flushed hands what was written to f to a file server, as closing f would do,
// so that other hosts see it: NFS keeps it back until some descriptor is closed,
// and f may stay open for days. Somebody may close f meanwhile.
func flushed(f *os.File) error {
	c, err := f.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) {
			var dup int
			if dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				err = unix.Close(dup)
			}
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return &os.PathError{Op: "close", Path: f.Name(), Err: err}
	}
	return nil
}

// writeFileDurable creates or replaces the small file at path, which lies in
// the store: readers see the old or the new bytes, also after a crash.
func (s *Store) writeFileDurable(path string, data []byte, mode fs.FileMode) error {
	tmp, err := s.stageBytes(data, mode, true)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer tmp.Close()
	err = s.renameDurable(tmp.Name(), path)
	if err != nil {
		os.Remove(tmp.Name())
	}
	if errors.Is(err, unix.EXDEV) { // in a place that lies elsewhere
		err = s.writeBeside(path, data, mode)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeBeside is writeFileDurable on another filesystem than the store's. What
// a process that dies leaves, the next call replaces.
func (s *Store) writeBeside(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !noFile(err) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return storeError(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = s.shareFile(f, mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return storeError(err)
	}
	return syncDir(filepath.Dir(path))
}

// linkFileDurable creates the small file at path, which lies in the store,
// durably; [ErrExists] if there is one.
func (s *Store) linkFileDurable(path string, data []byte, mode fs.FileMode) error {
	tmp, err := s.stageBytes(data, mode, true)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer tmp.Close()
	defer os.Remove(tmp.Name())
	if err := s.place(tmp.Name(), path, os.Link, true); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", path, ErrExists)
	} else if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	return nil
}

// rename moves a staged file to path, making the directory if it lacks.
// Nothing is durable yet.
func (s *Store) rename(tmp, path string) error { return s.place(tmp, path, os.Rename, false) }

// renameDurable is rename, and the new name survives a crash. The bytes must
// be durable already.
func (s *Store) renameDurable(tmp, path string) error { return s.place(tmp, path, os.Rename, true) }

// place gives the staged file the name path by how, a rename or a link.
func (s *Store) place(tmp, path string, how func(from, to string) error, durable bool) error {
	dir := filepath.Dir(path)
	if err := fault.In(fault.Rename); err != nil {
		return storeError(err)
	}
	made := false
	err := how(tmp, path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.mkdir(dir); err != nil {
			return err
		}
		made = true
		err = how(tmp, path)
	}
	if err != nil {
		return storeError(err)
	}
	fault.At(fault.FileNamed)
	if !durable {
		return nil
	}
	for {
		if err := syncDir(dir); err != nil {
			return err
		}
		// A directory that is new is itself a name in the one above.
		if !made || dir == s.dir || len(dir) <= len(s.dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return storeError(err)
	}
	defer d.Close()
	if err = fault.In(fault.Sync); err == nil {
		err = d.Sync()
	}
	if err != nil && !errors.Is(err, syscall.EINVAL) {
		return storeError(err)
	}
	return nil
}

// storeError adds to an error of the operating system what a person can do
// about it, and makes a full disk [ErrNoSpace].
func storeError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", err, ErrNoSpace)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; remount it writable or use another store", err)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w; a store is a directory: name one, or a new one", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; ask the owner of the store for access or use another store", err)
	}
	return err
}
