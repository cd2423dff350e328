package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spaceSlack is kept free when something is added: a filesystem that is full
// to the last block harms more than the add.
const spaceSlack = 1 << 20

// freeSpace returns how many bytes an unprivileged process can still write to
// the filesystem of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

// NoSpaceError says what an add would have needed. It unwraps to [ErrNoSpace].
type NoSpaceError struct {
	Dir       string // the store
	Needed    int64  // bytes; 0 where the disk filled up in the midst
	Available int64  // bytes
	Err       error  // what the system said; nil if nothing was tried
}

// Error says how much is missing, and the ways out.
func (e *NoSpaceError) Error() string {
	const ways = "free some (curi gc), leave the files where they are (--reference), move them in (--move) or use a store elsewhere (--store DIR)"
	switch {
	case errors.Is(e.Err, syscall.EDQUOT):
		return fmt.Sprintf("store %s: disk quota exceeded: %s", e.Dir, ways)
	case e.Needed > 0:
		return fmt.Sprintf("store %s: not enough space: %s needed, %s available: %s", e.Dir, humanBytes(e.Needed), humanBytes(e.Available), ways)
	}
	return fmt.Sprintf("store %s: not enough space: the disk filled up, %s available: %s", e.Dir, humanBytes(e.Available), ways)
}

// Unwrap returns [ErrNoSpace], and what the system said.
func (e *NoSpaceError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrNoSpace}
	}
	return []error{ErrNoSpace, e.Err}
}

// noSpace turns ENOSPC and EDQUOT below the store into a [NoSpaceError], and
// leaves other errors alone.
func noSpace(err error, storeDir string) error {
	var known *NoSpaceError
	if errors.As(err, &known) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	avail, _ := freeSpace(storeDir)
	return &NoSpaceError{Dir: storeDir, Available: avail, Err: err}
}

func humanBytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= unit && i < 4 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[i])
}

// blockSize is what the smallest file takes on most filesystems, in bytes.
const blockSize = 4096

// diskBytes estimates what a file of n bytes takes, its outboard included.
func diskBytes(n int64) int64 {
	if n > outboardMin {
		n += outboardSize(n)
	}
	return (n + blockSize - 1) / blockSize * blockSize
}

// checkSpace fails with a [NoSpaceError] if the files, which copied says have
// to be copied, will not fit. Where it gets tight they are hashed first: what
// the store has needs no space.
func (a *adder) checkSpace(ctx context.Context, root *node, copied func(*node) bool) error {
	var files []*node
	var need int64
	seen := map[fileID]bool{}
	root.files(func(n *node) {
		id := fileID{n.state.dev, n.state.ino}
		if seen[id] || !copied(n) {
			return
		}
		seen[id] = true
		if d, ok := a.seen.lookup(n); ok && a.s.hasWholeBlob(d, n.size) {
			return
		}
		files = append(files, n)
		need += diskBytes(n.size)
	})
	avail, err := freeSpace(a.s.dir)
	if err != nil || need+spaceSlack <= avail || len(files) == 0 {
		return err
	}
	if facts, err := a.s.Facts(ctx); err == nil && facts.Reflinks && sameDevice(root.path(), a.s.dir) {
		return nil // copies share their bytes
	}
	return a.checkSpaceForNew(ctx, files, avail)
}

// checkSpaceForNew reads the files to see which the store lacks.
func (a *adder) checkSpaceForNew(ctx context.Context, files []*node, avail int64) error {
	a.hashed = map[*node]Digest{}
	var mu sync.Mutex
	var need int64
	seen := map[Digest]bool{}
	err := a.all(ctx, files, func(ctx context.Context, n *node) error {
		f, err := openSource(n.path())
		if err != nil {
			return fmt.Errorf("add: %w", err)
		}
		defer f.Close()
		d, err := hashFile(ctx, f, n.size, nil)
		if err == nil {
			err = unchanged(f, n.state)
		}
		if errors.Is(err, errUnstable) || errors.Is(err, ErrChanged) {
			return nil // it is judged when it is added
		}
		if err != nil {
			return fmt.Errorf("add %s: %w", n.path(), err)
		}
		mu.Lock()
		defer mu.Unlock()
		a.hashed[n] = d
		if !seen[d] && !a.s.hasWholeBlob(d, n.size) {
			need += diskBytes(n.size)
		}
		seen[d] = true
		return nil
	})
	if err == nil && need+spaceSlack > avail && need > 0 {
		return &NoSpaceError{Dir: a.s.dir, Needed: need, Available: avail}
	}
	return err
}

func sameDevice(a, b string) bool {
	x, err := lstatFile(a)
	if err != nil {
		return false
	}
	y, err := lstatFile(b)
	return err == nil && x.dev == y.dev
}
