//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// refresh makes the mount show every change of names made before the call.
// One runs at a time: another must not answer while the first has taken note
// of a stale name and not yet told the kernel. No look-up waits for this lock.
func (f *filesystem) refresh(ctx context.Context) {
	f.refreshing.Lock()
	defer f.refreshing.Unlock()
	if f.closing.Load() {
		return
	}
	f.stats.refreshes.Add(1)
	count := f.changeCount()
	f.top.refresh(ctx)
	f.dropGonePlaces()
	f.seen.Store(&count)
}

// dropGonePlaces lets go of the places whose directory was removed. Nodes that
// programs still hold keep theirs.
func (f *filesystem) dropGonePlaces() {
	f.placesMu.Lock()
	defer f.placesMu.Unlock()
	for short, p := range f.places {
		var st unix.Stat_t
		if err := unix.Fstat(p.fd(), &st); err != nil || st.Nlink == 0 {
			delete(f.places, short)
		}
	}
}

func (f *filesystem) changeCount() string {
	b, _ := os.ReadFile(filepath.Join(f.store.Dir(), cas.ChangedFile))
	return string(b)
}

// settleTime is how long after a change the watch looks at it.
const settleTime = 10 * time.Millisecond

// follow refreshes when another mount namespace changed the store, from where
// nobody can ask this mount for it. The result ends it.
func (f *filesystem) follow() (stop func(), err error) {
	dir := filepath.Join(f.store.Dir(), filepath.Dir(cas.ChangedFile))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	// Non-blocking, so that Close ends a Read.
	events := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		events.Close()
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := events.Read(buf); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					f.log.Warn("stopped watching the store", "dir", dir, "err", err)
				}
				return
			}
			// Whoever made the change asks by itself where it can, and
			// several changes need one refresh.
			time.Sleep(settleTime)
			if seen := f.seen.Load(); seen == nil || *seen != f.changeCount() {
				f.refresh(context.Background())
			}
		}
	}()
	return func() { events.Close() }, nil
}
