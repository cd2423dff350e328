package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// flock applies flock(2). The runtime's own signals interrupt it, so EINTR
// means nothing. Without LOCK_NB it blocks its thread for as long as another
// descriptor holds the lock.
func flock(f *os.File, how int) error {
	for {
		switch err := unix.Flock(int(f.Fd()), how); err {
		case unix.EINTR:
		case unix.ENOSYS, unix.EOPNOTSUPP, unix.ENOLCK:
			return fmt.Errorf("the store's file system has no locks (flock: %w): mount it with them (Lustre: -o flock; NFS: without nolock) or use another store", err)
		default:
			return err
		}
	}
}

// tryFlock reports whether the lock was had at once.
func tryFlock(f *os.File, how int) (bool, error) {
	err := flock(f, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// flockContext waits for the lock until ctx ends. On an error f is closed, at
// once or when the wait in the kernel ends, so that a lock that comes too late
// is not kept.
func flockContext(ctx context.Context, f *os.File, how int) error {
	ok, err := tryFlock(f, how)
	if ok {
		return nil
	}
	if err != nil {
		f.Close()
		return err
	}
	done := make(chan error, 1)
	go func() { done <- flock(f, how) }()
	select {
	case err := <-done:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		go func() {
			<-done
			f.Close()
		}()
		return ctx.Err()
	}
}

// removeUnlocked removes a file or directory that nobody holds a lock on, and
// reports that; where another user's cannot be opened, somebody may. Who makes
// one locks it and looks whether it is still there.
func removeUnlocked(path string, dryRun bool, remove func(string) error) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if free, err := tryFlock(f, unix.LOCK_EX); !free && err == nil {
		return false
	}
	return dryRun || remove(path) == nil
}

// sameFile reports whether path still leads to the file that f has open.
func sameFile(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	want, err := os.Stat(path)
	return err == nil && os.SameFile(have, want)
}

// shareCommit lets the caller publish: between finding that something is
// stored and naming it by a tree, a ref or a pin nothing is collected. Any
// number of commits go on at once, also within each other; keep them short.
func (s *Store) shareCommit(ctx context.Context) (release func(), err error) {
	f, err := s.lockFile(ctx, "collect", unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	if !s.flockIsLocal() {
		return func() { f.Close() }, nil
	}
	lower, err := s.raise(ctx)
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		lower()
		f.Close()
	}, nil
}

// stopCommits waits until no commit is under way and keeps new ones waiting.
func (s *Store) stopCommits(ctx context.Context) (release func(), err error) {
	f, err := s.lockFile(ctx, "collect", unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	if !s.flockIsLocal() {
		return func() { f.Close() }, nil
	}
	goOn, err := s.claim(ctx, f, "a collection")
	if err == nil {
		if err = s.awaitFlags(ctx); err != nil {
			goOn()
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		goOn()
		f.Close()
	}, nil
}

// lockAlone takes one of the store's own locks, for a short while.
func (s *Store) lockAlone(ctx context.Context, name string) (func(), error) {
	f, err := s.lockFile(ctx, name, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	release := func() {}
	if s.flockIsLocal() {
		if release, err = s.claim(ctx, f, "a change of "+name); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
	return func() {
		release()
		f.Close()
	}, nil
}

// lockFile is one of the store's own locks, held until it is closed.
func (s *Store) lockFile(ctx context.Context, name string, how int) (*os.File, error) {
	path := filepath.Join(s.dir, "locks", name)
	f, err := s.openLockFile(path)
	if how == unix.LOCK_SH && cannotWrite(err) {
		// To be seen by those who sweep, reading is enough.
		if r, rerr := os.Open(path); rerr == nil {
			f, err = r, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := flockContext(ctx, f, how); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// openLockFile opens a file that is only there to be locked, making it and its
// directory if need be.
func (s *Store) openLockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, storeError(err)
	}
	if err := s.makeDirs(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if (s.shared || s.owner != nil) && strings.HasPrefix(path, s.dir+string(filepath.Separator)) {
		// It must never be there with what the umask leaves: others could not
		// open it.
		tmp, terr := s.stageBytes(nil, s.smallFileMode(), false)
		if terr != nil {
			return nil, terr
		}
		defer os.Remove(tmp.Name())
		tmp.Close() // the lock on it is not the caller's
		if err := s.place(tmp.Name(), path, os.Link, false); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	} else {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, s.smallFileMode())
	}
	if err != nil {
		return nil, storeError(err)
	}
	return f, nil
}
