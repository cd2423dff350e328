package cas

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// Holder says who holds a lock: enough for a person to find it, and for
// another host to tell whether it lives.
type Holder struct {
	Host   string    `json:"host"`
	BootID string    `json:"boot_id"`
	PID    int       `json:"pid"`
	Start  uint64    `json:"start"` // the process's start time, clock ticks since boot
	What   string    `json:"what"`  // such as "run train-7f3k2m"
	Since  time.Time `json:"since"`
	Beat   time.Time `json:"-"` // last sign of life (the lock file's mtime)
}

// String words the holder for a message.
func (h Holder) String() string {
	if h.PID == 0 {
		return "an unknown process"
	}
	return fmt.Sprintf("%s (process %d on %s, since %s)", h.What, h.PID, h.Host, h.Since.Local().Format("15:04:05"))
}

// LeaseSilence is how long a holder on another host may give no sign of life
// before its lock is taken over. Holders beat at least every [BeatEvery].
const (
	LeaseSilence = 60 * time.Second
	BeatEvery    = 20 * time.Second
)

// What a process waits for where machines share a store; tests wait less.
func leaseSilence() time.Duration { return fault.Duration("lock.silence", LeaseSilence) }
func beatEvery() time.Duration    { return fault.Duration("lock.beat", BeatEvery/2) }

// Lock is a held lock. It lives while the descriptor of File is open in any
// process: pass it to a child to hand the lock over, and close File instead of
// calling Release. A lock on a file system shared by hosts also is a lease: its
// holder must call Beat at least every 20 s; one not beaten for 60 s on another
// host is taken over. Beat may be called from several goroutines at once.
type Lock struct {
	f    *os.File
	left Holder // who held it before, and died
}

// HeldError says who holds a lock.
type HeldError struct {
	Name   string
	Holder Holder
}

// Error says who holds the lock.
func (e *HeldError) Error() string {
	return fmt.Sprintf("lock %s is held by %s: wait for it, or end it", e.Name, e.Holder)
}

// Unwrap returns [ErrBusy].
func (e *HeldError) Unwrap() error { return ErrBusy }

// errLockLost is what a holder learns that was silent for too long.
var errLockLost = fmt.Errorf("the lock was taken over by another host, as this one gave no sign of life for %s: %w", LeaseSilence, ErrBusy)

// lockPoll is how often a waiter looks; lockReport how often it says so.
const (
	lockPoll   = 50 * time.Millisecond
	lockReport = time.Second
)

// Lock takes the lock called name, such as "key/<key>". If another holds it:
// with wait nil it fails with an error that wraps [ErrBusy] and is a
// *[HeldError]; else it calls wait at once and then about once a second with
// who holds it, until it is free, ctx ends or wait returns an error.
func (s *Store) Lock(ctx context.Context, name, what string, wait func(Holder) error) (*Lock, error) {
	for _, p := range strings.Split(name, "/") {
		if why := badComponent(p); why != "" || name == "collect" || name == "tags" || name == "references" || strings.HasSuffix(p, takeoverSuffix) {
			return nil, fmt.Errorf("lock %q: not a name for a lock: %w", name, ErrInvalid)
		}
	}
	var told time.Time
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("wait for lock %s: %w", name, err)
		}
		l, holder, err := s.tryLock(ctx, name, what)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if l != nil {
			return l, nil
		}
		if wait == nil && try == 3 {
			return nil, &HeldError{name, holder}
		}
		if wait == nil {
			// A collection that looks has it for a moment.
			time.Sleep(lockPoll / 10)
			continue
		}
		if time.Since(told) >= lockReport {
			told = time.Now()
			if err := wait(holder); err != nil {
				return nil, err
			}
		}
		pause := lockPoll
		if holder.PID != 0 && !sameKernel(holder.Host, holder.BootID) {
			pause = lockReport // each look writes to the file server
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (s *Store) lockPath(name string) string {
	return filepath.Join(s.dir, "locks", filepath.FromSlash(name))
}

// tryLock takes the lock or says who holds it; both are nil and zero never.
func (s *Store) tryLock(ctx context.Context, name, what string) (*Lock, Holder, error) {
	path := s.lockPath(name)
	for ctx.Err() == nil {
		f, err := s.openLockFile(path)
		if err != nil {
			return nil, Holder{}, err
		}
		free, err := tryFlock(f, unix.LOCK_EX)
		if err != nil {
			f.Close()
			return nil, Holder{}, err
		}
		// Two files must never be the same lock: one that was replaced or
		// removed since it was opened is none any more.
		if !sameFile(f, path) {
			f.Close()
			continue
		}
		holder, err := readHolder(f)
		if err != nil {
			f.Close()
			return nil, Holder{}, err
		}
		elsewhere := holder.PID != 0 && !sameKernel(holder.Host, holder.BootID)
		switch {
		case free && !elsewhere:
			l := &Lock{f, holder}
			err := l.owned()
			fault.At(fault.LockTaken)
			if err == nil {
				err = writeHolder(f, what)
			}
			if errors.Is(err, ErrBusy) {
				f.Close()
				continue // another machine was faster
			}
			if err != nil {
				f.Close()
				return nil, Holder{}, err
			}
			if mine, err := s.settled(ctx, f); !mine || err != nil {
				f.Close() // without a word: what is in it is not of this one
				if err != nil {
					return nil, Holder{}, err
				}
				continue
			}
			return l, Holder{}, nil
		case !elsewhere:
			f.Close()
			return nil, holder, nil
		}
		// Here flock may not reach the holder's host, or may outlive it there.
		silent, err := s.silentFor(f)
		f.Close()
		if err != nil {
			return nil, Holder{}, err
		}
		if silent < leaseSilence() {
			return nil, holder, nil
		}
		l, err := s.takeOver(ctx, path, what)
		if l != nil || err != nil {
			return l, Holder{}, err
		}
	}
	return nil, Holder{}, ctx.Err()
}

// holderSize is what a holder's JSON is padded to: it is always overwritten
// whole by one write, so that readers do not see half of one.
const holderSize = 1024

// readHolder reads who holds a lock; a zero PID if nobody says so.
func readHolder(f *os.File) (Holder, error) {
	fi, err := f.Stat()
	if err != nil {
		return Holder{}, err
	}
	b := make([]byte, holderSize)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Holder{}, err
	}
	var h Holder
	if json.Unmarshal(b[:n], &h) != nil {
		h = Holder{} // free, or just being written
	}
	h.Beat = fi.ModTime()
	return h, nil
}

func writeHolder(f *os.File, what string) error {
	host := thisHost()
	h := Holder{Host: host.name, BootID: host.boot, PID: os.Getpid(), Start: processStart(os.Getpid()), What: what, Since: now()}
	b, err := json.Marshal(h)
	for err == nil && len(b) >= holderSize {
		h.What = h.What[:len(h.What)/2]
		b, err = json.Marshal(h)
	}
	if err != nil {
		return err
	}
	return overwriteHolder(f, b)
}

func overwriteHolder(f *os.File, b []byte) error {
	p := []byte(strings.Repeat(" ", holderSize-1) + "\n")
	copy(p, b)
	_, err := f.WriteAt(p, 0)
	if err == nil {
		err = flushed(f)
	}
	return storeError(err)
}

// AdoptLock makes a Lock of a descriptor that another process passed on.
func AdoptLock(f *os.File) *Lock { return &Lock{f: f} }

// Left is who held the lock before and died without giving it back; a zero PID
// if nobody did.
func (l *Lock) Left() Holder { return l.left }

// File is the lock's descriptor, to be inherited.
func (l *Lock) File() *os.File { return l.f }

// Beat shows that the holder lives. An error that wraps [ErrBusy] means that
// another host took the lock over: stop.
func (l *Lock) Beat() error {
	if err := l.owned(); err != nil {
		return err
	}
	// Any write sets the mtime, by the file server's clock; the first byte
	// always is the brace.
	_, err := l.f.WriteAt([]byte("{"), 0)
	if err == nil {
		err = flushed(l.f)
	}
	if err != nil {
		return fmt.Errorf("beat %s: %w", l.f.Name(), err)
	}
	return nil
}

// owned checks that the lock's file was not replaced, nor taken by a machine
// that did not see this one's flock.
func (l *Lock) owned() error {
	var st unix.Stat_t
	err := retryEINTR(func() error { return unix.Fstat(int(l.f.Fd()), &st) })
	if errors.Is(err, unix.ESTALE) || err == nil && st.Nlink == 0 {
		return fmt.Errorf("%s: %w", l.f.Name(), errLockLost)
	}
	if err != nil {
		return err
	}
	h, err := readHolder(l.f)
	if err == nil && h.PID != 0 && !sameKernel(h.Host, h.BootID) {
		return fmt.Errorf("%s: %w", l.f.Name(), errLockLost)
	}
	return err
}

// SetHolder rewrites who holds it, after a hand-over to this process.
func (l *Lock) SetHolder(what string) error {
	if err := l.owned(); err != nil {
		return err
	}
	if err := writeHolder(l.f, what); err != nil {
		return fmt.Errorf("write the holder into %s: %w", l.f.Name(), err)
	}
	return nil
}

// Release gives the lock back, wherever else its descriptor is open.
func (l *Lock) Release() error {
	err := l.owned()
	if err == nil {
		err = overwriteHolder(l.f, nil)
	}
	if uerr := flock(l.f, unix.LOCK_UN); err == nil {
		err = uerr
	}
	if cerr := l.f.Close(); err == nil {
		err = cerr
	}
	return err
}
