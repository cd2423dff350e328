package cas

import (
	"context"
	"os"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// takeoverSuffix ends the name of the file that is locked while a lock is
// taken over from a host that is silent.
const takeoverSuffix = ".takeover"

// takeoverSettle is how long a taker waits before it looks whether it won,
// for file systems where flock does not reach other hosts.
func takeoverSettle() time.Duration { return fault.Duration("lock.settle", time.Second) }

// settled reports whether the lock file f, in which this process has written
// itself, is its own. Where flock does not reach, another machine may have found
// it free as well: who wrote last has it.
func (s *Store) settled(ctx context.Context, f *os.File) (mine bool, err error) {
	if !s.flockIsLocal() {
		return true, nil
	}
	if err := sleep(ctx, takeoverSettle()); err != nil {
		if h, rerr := readHolder(f); rerr == nil && h.PID == os.Getpid() && sameKernel(h.Host, h.BootID) {
			_ = overwriteHolder(f, nil)
		}
		return false, err
	}
	now, err := os.Open(f.Name()) // anew: that is when file servers are asked
	if err != nil {
		return false, err
	}
	defer now.Close()
	h, err := readHolder(now)
	return err == nil && h.PID == os.Getpid() && sameKernel(h.Host, h.BootID), err
}

// silentFor is how long the holder of the lock file f gave no sign of life, by
// the clock of the file system that holds it: those of hosts may differ.
func (s *Store) silentFor(f *os.File) (time.Duration, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	probe, err := s.stage()
	if err != nil {
		return 0, err
	}
	defer os.Remove(probe.Name())
	defer probe.Close()
	pi, err := probe.Stat()
	if err != nil {
		return 0, err
	}
	return pi.ModTime().Sub(fi.ModTime()), nil
}

// takeOver puts a new lock file, already locked, in the place of one whose
// holder is silent. It returns nil if another was faster or the holder spoke.
func (s *Store) takeOver(ctx context.Context, path, what string) (*Lock, error) {
	// One at a time; the file stays, so that all lock the same one.
	gate, err := s.openLockFile(path + takeoverSuffix)
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	if ok, err := tryFlock(gate, unix.LOCK_EX); !ok || err != nil {
		return nil, err
	}
	old, err := os.Open(path)
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer old.Close()
	holder, err := readHolder(old)
	if err != nil || holder.PID == 0 || sameKernel(holder.Host, holder.BootID) {
		return nil, err
	}
	if silent, err := s.silentFor(old); err != nil || silent < leaseSilence() {
		return nil, err
	}
	f, err := s.stage()
	if err != nil {
		return nil, err
	}
	done := false
	defer func() {
		if !done {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if ok, err := tryFlock(f, unix.LOCK_EX); !ok || err != nil {
		return nil, err
	}
	if err := s.shareFile(f, s.smallFileMode()); err != nil {
		return nil, err
	}
	if err := writeHolder(f, what); err != nil {
		return nil, err
	}
	fault.At(fault.TakeoverReady)
	if err := s.renameDurable(f.Name(), path); err != nil {
		return nil, err
	}
	fault.At(fault.TakeoverDone)
	select {
	case <-ctx.Done():
	case <-time.After(takeoverSettle()):
	}
	if !sameFile(f, path) {
		f.Close()
		done = true
		return nil, nil
	}
	done = true
	s.log.Info("took a lock over from a silent host", "lock", path, "host", holder.Host, "what", holder.What)
	return &Lock{f, holder}, nil
}
