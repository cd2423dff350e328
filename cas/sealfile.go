package cas

import (
	"cmp"
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
// left it, until hide; then in staging, until publish makes it a blob.
type sealedFile struct {
	names  []string // every name of the inode, absolute; the first one goes into the store
	hidden string   // its only name, in staging; "" before hide
	f      *os.File // holds the lease; nil if it was given up to save descriptors
	leased bool     // f has a lease; false where there are none
	state  fileState
	xattrs Attrs // user.* that are to go
	crowd  bool  // too many files are open: f is not kept
}

// path is where the file lies.
func (sf *sealedFile) path() string { return cmp.Or(sf.hidden, sf.names[0]) }

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
	who := s.writers(sf.names[0], st)
	if who == "" {
		if !certain {
			return nil
		}
		who = unseen
	}
	return fmt.Errorf("%s is still open for writing by %s: let it close the file or end it: %w", sf.names[0], who, ErrBusy)
}

// unseen stands for who writes a file and is not found.
const unseen = "a process that cannot be seen from here"

// Writers words who has the file at path open for writing, itself or through a
// mount, for a message. Somebody has, as the caller knows.
func (s *Store) Writers(path string) string {
	st, err := lstatFile(path)
	if err != nil {
		return unseen
	}
	return cmp.Or(s.writers(path, st), unseen)
}

func (s *Store) writers(path string, st fileState) string {
	below, err := filepath.Rel(s.dir, path)
	if err != nil || strings.HasPrefix(below, "..") {
		below = ""
	}
	return strings.Join(writersOf(path, st, below), ", ")
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
func (sf *sealedFile) prepare(storeUID, storeGID int) error {
	for _, x := range sf.xattrs {
		if err := unix.Fremovexattr(int(sf.f.Fd()), x.Key); err != nil {
			return fmt.Errorf("remove attribute %s of %s: %w", x.Key, sf.names[0], err)
		}
	}
	// An access list could let somebody write still.
	_ = unix.Fremovexattr(int(sf.f.Fd()), "system.posix_acl_access")
	if os.Geteuid() == 0 && (int(sf.state.uid) != storeUID || int(sf.state.gid) != storeGID) {
		if err := sf.f.Chown(storeUID, storeGID); err != nil {
			return fmt.Errorf("take over %s: %w", sf.names[0], err)
		}
	}
	if err := sf.f.Chmod(blobMode); err != nil {
		return fmt.Errorf("make %s read-only: %w", sf.names[0], err)
	}
	return nil
}

// hide takes the file away to the path to, in staging: from then on nobody can
// open it by a name or give its name to another file. It is looked at once more
// before it is published, when who was just about to open it has done so.
func (sf *sealedFile) hide(s *Store, to string, storeUID, storeGID int) error {
	if err := sf.again(s); err != nil {
		return err
	}
	if err := sf.check(); err != nil {
		return err
	}
	if err := sf.prepare(storeUID, storeGID); err != nil {
		return err
	}
	fault.At(fault.SealPrepared)
	for _, name := range sf.names[1:] {
		// By way of the same place: what stands there by now must not be removed.
		if err := takeAway(name, to, sf.state); err != nil {
			return fmt.Errorf("seal: %w", err)
		}
		if err := os.Remove(to); err != nil {
			return fmt.Errorf("seal %s: %w", name, err)
		}
	}
	if err := takeAway(sf.names[0], to, sf.state); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	sf.hidden = to
	sf.state.nlink = 1
	if err := sf.check(); err != nil {
		return err
	}
	state, err := fstatFile(sf.f)
	if err == nil && sf.crowd {
		sf.close()
	}
	sf.state = state
	return err
}

// publish makes the hidden file the blob at to.
func (sf *sealedFile) publish(s *Store, to string) error {
	if err := sf.again(s); err != nil {
		return err
	}
	defer sf.close()
	if err := sf.check(); err != nil {
		return err
	}
	if err := s.rename(sf.hidden, to); err != nil {
		return fmt.Errorf("seal %s: %w", sf.names[0], err)
	}
	fault.At(fault.SealNamed)
	return nil
}

// again takes a lease that was given up; since then nothing may have changed.
func (sf *sealedFile) again(s *Store) error {
	if sf.f != nil {
		return nil
	}
	again, err := s.seal(context.Background(), []string{sf.path()}, sf.state)
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
