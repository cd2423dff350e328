package cas

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// refreshTimeout bounds how long a mount may take to show what changed.
const refreshTimeout = 5 * time.Second

// ChangedFile is the path below the store's directory of a file that is
// written to whenever a name changed, for mounts that watch it.
const ChangedFile = "refs/.changed"

// Refresh makes every live mount of this mount namespace show names that
// changed, before it returns: getxattr(DIR, "user.curi.refresh"). Mounts
// elsewhere follow by inotify on [ChangedFile]. A mount that does not answer
// within 5 s is logged and left. A process that serves a mount does not ask
// itself.
func (s *Store) Refresh(ctx context.Context) error {
	if err := s.noteChange(ctx); err != nil && cannotWrite(err) {
		// The change itself was made.
		s.log.Warn("mounts in other mount namespaces may show old names", "err", err)
	} else if err != nil {
		return fmt.Errorf("tell mounts of a change: %w", err)
	}
	live, _, err := s.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("tell mounts of a change: %w", err)
	}
	var wg sync.WaitGroup
	for _, m := range live {
		if m.askable() {
			wg.Go(func() { s.refreshMount(ctx, m) })
		}
	}
	wg.Wait()
	return nil
}

// refreshMount never fails: the change itself is made, whoever shows it.
func (s *Store) refreshMount(ctx context.Context, m Mount) {
	// The call cannot be interrupted where the server hangs; its thread ends
	// with the mount.
	done := make(chan error, 1)
	go func() { done <- askRefresh(m.Dir) }()
	timeout := time.NewTimer(refreshTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		if err != nil {
			s.log.Warn("a mount may show old names", "dir", m.Dir, "err", err)
		}
	case <-timeout.C:
		s.log.Warn("a mount did not answer and may show old names: see curi umount --stale", "dir", m.Dir, "seconds", refreshTimeout.Seconds())
	case <-ctx.Done():
	}
}

// noteChange counts up in [ChangedFile]. The file is written in place, as a
// watch follows the inode.
func (s *Store) noteChange(ctx context.Context) error {
	f, err := s.openLockFile(filepath.Join(s.dir, filepath.FromSlash(ChangedFile)))
	if err != nil {
		return err
	}
	if err := flockContext(ctx, f, unix.LOCK_EX); err != nil {
		return err // closed
	}
	defer f.Close()
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0) // what cannot be read starts the count anew
	count, _ := strconv.ParseUint(strings.TrimSpace(string(b[:n])), 10, 64)
	if _, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", count+1), 0); err != nil {
		return storeError(err)
	}
	return nil
}
