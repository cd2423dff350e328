package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

var (
	errWriters = errors.New("open for writing")
	errNoLease = errors.New("no lease to be had")
)

// leaseWait is how long a file may still be open for writing: a mount hears of
// the last close some time after the program.
const leaseWait = 2 * time.Second

// sealedFile is a file whose bytes can change no more. It is where a program
// left it, until rename.
type sealedFile struct {
	names  []string // every name of the inode, absolute; the first one goes into the store
	f      *os.File // holds the lease; nil if it was given up to save descriptors
	leased bool     // f has a lease; false where there are none
	state  fileState

	// As the program left them, to be put back if nothing is published.
	mode   uint32
	uid    uint32
	gid    uint32
	xattrs Attrs  // user.* that were removed
	moved  string // where the file is now, "" before rename
}

// seal opens the inode with the given names, of which was tells, under a read
// lease.
func (s *Store) seal(ctx context.Context, names []string, was fileState) (*sealedFile, error) {
	sf := &sealedFile{names: names}
	f, err := openTaken(names[0], was)
	if err != nil {
		return nil, err
	}
	sf.f = f
	if err := s.lease(ctx, sf); err != nil {
		f.Close()
		return nil, err
	}
	if sf.state, err = fstatFile(f); err != nil {
		f.Close()
		return nil, err
	}
	return sf, nil
}

// openTaken opens the file at path, which must still be the one of state st.
func openTaken(path string, st fileState) (*os.File, error) {
	// Should the name have become a FIFO since it was listed, do not hang.
	fd, err := openNoLinks(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, noLinksError("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	now, err := fstatFile(f)
	if err == nil && (now.dev != st.dev || now.ino != st.ino) {
		err = fmt.Errorf("%s: %w", path, errSwapped)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lease takes sf's lease, waiting for writers that are about to close.
func (s *Store) lease(ctx context.Context, sf *sealedFile) error {
	for end, pause := time.Now().Add(leaseWait), time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := takeLease(sf.f)
		switch {
		case err == nil:
			sf.leased = true
			return nil
		case errors.Is(err, errNoLease):
			return s.checkWriters(sf, false)
		case time.Now().After(end):
			return s.checkWriters(sf, true)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkWriters fails with [ErrBusy], naming who writes the file. certain: it
// is known that somebody does.
func (s *Store) checkWriters(sf *sealedFile, certain bool) error {
	st, err := fstatFile(sf.f)
	if err != nil {
		return err
	}
	below, err := filepath.Rel(s.dir, sf.names[0])
	if err != nil || strings.HasPrefix(below, "..") {
		below = ""
	}
	who := writersOf(sf.names[0], st, below)
	if len(who) == 0 {
		if !certain {
			return nil
		}
		who = []string{"a process that cannot be seen from here"}
	}
	return fmt.Errorf("%s is still open for writing by %s: let it close the file or end it: %w", sf.names[0], strings.Join(who, ", "), ErrBusy)
}

// check reports whether the bytes are the ones that were hashed and the names
// all that there are.
func (sf *sealedFile) check() error {
	st, err := fstatFile(sf.f)
	switch {
	case err != nil:
		return err
	case sf.leased && !holdsLease(sf.f), st.mtime != sf.state.mtime, st.size != sf.state.size:
		return fmt.Errorf("%s was opened for writing while it was sealed: %w", sf.names[0], ErrBusy)
	case st.nlink != sf.state.nlink:
		return fmt.Errorf("%s got or lost a hard link while it was sealed: %w", sf.names[0], ErrBusy)
	}
	return nil
}

// prepare makes the inode what a blob is: read-only, without user attributes,
// owned as the store is.
func (sf *sealedFile) prepare(storeUID, storeGID int, xattrs Attrs) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(sf.f.Fd()), &st); err != nil {
		return &os.PathError{Op: "fstat", Path: sf.names[0], Err: err}
	}
	sf.mode, sf.uid, sf.gid = uint32(st.Mode)&0o7777, st.Uid, st.Gid
	for _, x := range xattrs {
		if err := unix.Fremovexattr(int(sf.f.Fd()), x.Key); err != nil {
			return fmt.Errorf("remove attribute %s of %s: %w", x.Key, sf.names[0], err)
		}
		sf.xattrs = append(sf.xattrs, x)
	}
	// An access list could let somebody write still.
	_ = unix.Fremovexattr(int(sf.f.Fd()), "system.posix_acl_access")
	if os.Geteuid() == 0 && (int(st.Uid) != storeUID || int(st.Gid) != storeGID) {
		if err := sf.f.Chown(storeUID, storeGID); err != nil {
			return fmt.Errorf("take over %s: %w", sf.names[0], err)
		}
	}
	if err := sf.f.Chmod(blobMode); err != nil {
		return fmt.Errorf("make %s read-only: %w", sf.names[0], err)
	}
	state, err := fstatFile(sf.f)
	sf.state = state
	return err
}

// giveUpLease closes the descriptor; rename takes the lease again.
func (sf *sealedFile) giveUpLease() {
	sf.f.Close()
	sf.f = nil
}

// rename makes the file the blob at to, by way of the staging area, where
// nobody can give its name to another file.
func (sf *sealedFile) rename(s *Store, a *stagingArea, to string) error {
	if sf.f == nil {
		if err := sf.sealAgain(s); err != nil {
			return err
		}
	}
	defer sf.close()
	if err := sf.check(); err != nil {
		return err
	}
	for i, name := range sf.names[1:] {
		away := a.path()
		err := takeAway(name, away, sf.state)
		if err == nil {
			err = os.Remove(away)
		}
		if err != nil {
			sf.relink(sf.names[1 : i+1])
			return fmt.Errorf("seal: %w", err)
		}
	}
	staged := a.path()
	err := takeAway(sf.names[0], staged, sf.state)
	if err == nil {
		if err = s.rename(staged, to); err == nil {
			sf.moved = to
			fault.At(fault.SealNamed)
			return nil
		}
		err = also(err, putBack(staged, sf.names[0]))
	}
	sf.relink(sf.names[1:])
	return fmt.Errorf("seal: %w", err)
}

func (sf *sealedFile) relink(names []string) {
	for _, name := range names {
		_ = linkBack(sf.names[0], name)
	}
}

// sealAgain takes the lease that was given up; since then nothing may have changed.
func (sf *sealedFile) sealAgain(s *Store) error {
	again, err := s.seal(context.Background(), sf.names, sf.state)
	if err != nil {
		return fmt.Errorf("seal %s: %w", sf.names[0], err)
	}
	sf.f, sf.leased = again.f, again.leased
	if !sf.state.same(again.state) {
		sf.close()
		return fmt.Errorf("seal %s: it changed while it was sealed: %w", sf.names[0], ErrBusy)
	}
	return nil
}

// close drops the lease.
func (sf *sealedFile) close() {
	if sf.f != nil {
		sf.f.Close()
		sf.f = nil
	}
}

// restore puts the file back as the program left it, after a failure. What
// became a blob meanwhile stays one; its place gets a copy, made in a.
func (sf *sealedFile) restore(ctx context.Context, a *stagingArea) error {
	defer sf.close()
	f := sf.f
	if sf.moved != "" {
		blob, err := os.Open(sf.moved)
		if err != nil {
			return err
		}
		defer blob.Close()
		copied := a.path()
		if f, _, err = cloneOrCopy(ctx, blob, copied, 0o600); err == nil {
			defer f.Close()
			err = putBack(copied, sf.names[0])
		}
		if err != nil {
			return fmt.Errorf("put %s back, its bytes are in %s: %w", sf.names[0], sf.moved, err)
		}
		sf.relink(sf.names[1:])
	} else if f == nil {
		var err error
		if f, err = openTaken(sf.names[0], sf.state); err != nil {
			return err
		}
		defer f.Close()
	}
	if os.Geteuid() == 0 {
		_ = f.Chown(int(sf.uid), int(sf.gid))
	}
	for _, x := range sf.xattrs {
		_ = unix.Fsetxattr(int(f.Fd()), x.Key, []byte(x.Value), 0)
	}
	return unix.Fchmod(int(f.Fd()), sf.mode)
}
