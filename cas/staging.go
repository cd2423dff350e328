package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// stagingLock is the file in a staging directory whose flock the process that
// fills the directory holds; no lock, no owner.
const stagingLock = "lock"

// staging is a directory STORE/staging/<random> of files that are about to be
// renamed into the store. Each add has its own.
type staging struct {
	s    *Store
	dir  string
	lock *os.File

	mu   sync.Mutex
	free []*stagingArea
	next int
}

// stagingArea is a sub-directory for one goroutine at a time: creating files
// locks their directory, so that workers do best with one each.
type stagingArea struct {
	dir      string
	next     int
	modeKept bool // the umask leaves the mode of blobs alone
}

func (s *Store) newStaging() (*staging, error) {
	for try := 0; ; try++ {
		if try == 100 {
			return nil, fmt.Errorf("make a staging directory in %s: something removes it at once; see what else works there: %w", s.dir, ErrBusy)
		}
		dir := filepath.Join(s.dir, "staging", "add-"+randomHex(8))
		if err := s.mkdir(dir); err != nil {
			return nil, fmt.Errorf("make a staging directory: %w", noSpace(err, s.dir))
		}
		lock, err := s.openLockFile(filepath.Join(dir, stagingLock))
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken for abandoned before it was locked
		}
		if err == nil {
			err = flock(lock, unix.LOCK_EX|unix.LOCK_NB)
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			lock.Close()
			continue // being taken for abandoned just now
		}
		if err != nil {
			os.RemoveAll(dir)
			return nil, fmt.Errorf("lock the staging directory %s: %w", dir, noSpace(err, s.dir))
		}
		if _, err := os.Lstat(lock.Name()); err != nil {
			lock.Close()
			continue
		}
		return &staging{s: s, dir: dir, lock: lock}, nil
	}
}

// area takes a free area, or makes one.
func (st *staging) area() (*stagingArea, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n := len(st.free); n > 0 {
		a := st.free[n-1]
		st.free = st.free[:n-1]
		return a, nil
	}
	a := &stagingArea{dir: filepath.Join(st.dir, strconv.Itoa(st.next))}
	if err := st.s.mkdir(a.dir); err != nil {
		return nil, err
	}
	st.next++
	return a, nil
}

func (st *staging) giveBack(a *stagingArea) {
	st.mu.Lock()
	st.free = append(st.free, a)
	st.mu.Unlock()
}

// path is that of a file yet to be made.
func (a *stagingArea) path() string {
	a.next++
	return filepath.Join(a.dir, strconv.Itoa(a.next))
}

// create makes a file that will be published, readable by all and writable by
// none but through the returned descriptor.
func (a *stagingArea) create() (*os.File, error) {
	f, err := os.OpenFile(a.path(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o444)
	if err != nil {
		return nil, err
	}
	// The umask may have taken what a shared store needs.
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&0o7777 != 0o444 {
		err = f.Chmod(0o444)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close removes what was not published.
func (st *staging) Close() error {
	err := os.RemoveAll(st.dir)
	st.lock.Close()
	return err
}

// abandon leaves everything as if this process had died.
func (st *staging) abandon() { st.lock.Close() }

// sweepStaging removes the staging directories that no living process fills
// and that are older than age; it returns how many files and bytes those held.
// What was taken away from elsewhere is put back, unless needed says that the
// tree which it became has a name.
func (s *Store) sweepStaging(ctx context.Context, age time.Duration, dryRun bool, needed func(Digest) bool) (files, bytes int64, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "staging"))
	if err != nil {
		return 0, 0, fmt.Errorf("look for abandoned staging: %w", err)
	}
	for _, e := range entries {
		dir := filepath.Join(s.dir, "staging", e.Name())
		info, err := os.Lstat(dir)
		if err != nil || fault.Now().Sub(info.ModTime()) < age {
			continue
		}
		if !info.IsDir() {
			// A single file is written and renamed at once: an old one is left over.
			if fault.Now().Sub(info.ModTime()) > time.Hour && removeUnlocked(dir, dryRun, os.Remove) {
				files, bytes = files+1, bytes+info.Size()
			}
			continue
		}
		n, size := s.sweepStagingDir(ctx, dir, info, dryRun, needed)
		files, bytes = files+n, bytes+size
	}
	return files, bytes, nil
}

func (s *Store) sweepStagingDir(ctx context.Context, dir string, info fs.FileInfo, dryRun bool, needed func(Digest) bool) (files, bytes int64) {
	lock, err := os.OpenFile(filepath.Join(dir, stagingLock), os.O_RDWR, 0)
	switch {
	case err == nil:
		defer lock.Close()
		if ok, err := tryFlock(lock, unix.LOCK_EX); !ok || err != nil {
			return 0, 0
		}
	case errors.Is(err, fs.ErrNotExist) && fault.Now().Sub(info.ModTime()) < time.Minute:
		return 0, 0 // being made
	case !errors.Is(err, fs.ErrNotExist):
		return 0, 0 // another user's
	}
	if tree, list, err := readTaken(dir); err == nil && len(list) > 0 && !needed(tree) {
		if dryRun || !s.sweepTaken(ctx, dir, list) {
			return 0, 0
		}
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == stagingLock {
			return nil
		}
		if i, err := e.Info(); err == nil {
			files, bytes = files+1, bytes+i.Size()
		}
		return nil
	})
	if !dryRun {
		removeAll(dir) // that of a place that was being removed may hold what is read-only
	}
	return files, bytes
}
