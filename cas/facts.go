package cas

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Facts is what matters to a store about the filesystem below it.
type Facts struct {
	Filesystem string // "ext4", "nfs", …; "type 0x…" for one that this package has no name for
	Network    bool   // other machines may use it too: slower, and locks are leases
	Reflinks   bool   // copies share their bytes
	Free       int64  // bytes that an ordinary user may still take
	Total      int64  // bytes
}

// Facts looks at the filesystem of the store. Reflinks are tried with two small
// files in staging; where those cannot be made (no permission, a full disk) it
// has none.
func (s *Store) Facts(ctx context.Context) (Facts, error) {
	if err := ctx.Err(); err != nil {
		return Facts{}, err
	}
	var st unix.Statfs_t
	if err := retryEINTR(func() error { return unix.Statfs(s.dir, &st) }); err != nil {
		return Facts{}, fmt.Errorf("look at the filesystem of store %s: %w", s.dir, err)
	}
	f := filesystemFacts(&st)
	f.Free = int64(st.Bavail) * int64(st.Bsize)
	f.Total = int64(st.Blocks) * int64(st.Bsize)
	var err error
	if f.Reflinks, err = s.tryReflink(); err != nil && !cannotWrite(err) {
		return f, fmt.Errorf("try a reflink in store %s: %w", s.dir, err)
	}
	return f, nil
}

// tryReflink finds out by making one: nothing else tells.
func (s *Store) tryReflink() (bool, error) {
	a, err := s.stage()
	if err != nil {
		return false, err
	}
	defer os.Remove(a.Name())
	defer a.Close()
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return false, err
	}
	b, err := tryClone(a, a.Name()+"-clone", 0o600)
	if errors.Is(err, errNoClone) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b.Close()
	return true, os.Remove(b.Name())
}
