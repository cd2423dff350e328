package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Commits and collections of one machine keep apart by flock of locks/collect.
// Where that does not reach other machines ([Store.flockIsLocal]) they also
// raise flags: a commit makes a file in locks/commits, then looks whether another
// machine collects; a collection writes itself into locks/collect, then waits
// until no commit of another machine is under way. Whoever comes second sees the
// first. A flag counts as long as its owner gives signs of life.

// commitFlag is the flag of all commits that a Store has under way.
type commitFlag struct {
	gate chan struct{} // holds a value unless somebody raises or lowers it
	n    int           // commits
	file *os.File
	stop func()
}

const commitFlags = "locks/commits"

// flagPoll is how often one looks who waits for another machine's flag.
const flagPoll = 200 * time.Millisecond

// raise raises this process's flag, unless it is up: a commit in a commit must
// not wait for a collection that waits for the outer one.
func (s *Store) raise(ctx context.Context) (lower func(), err error) {
	f := &s.commits
	select {
	case <-f.gate:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { f.gate <- struct{}{} }()
	for f.n == 0 {
		name := filepath.Join(s.dir, commitFlags, randomHex(8))
		file, err := s.openLockFile(name)
		if err != nil {
			return nil, err
		}
		if err = writeHolder(file, "a commit"); err == nil {
			err = s.collectedElsewhere()
		}
		if err == nil {
			f.file, f.stop = file, keepBeating(file)
			break
		}
		os.Remove(name)
		file.Close()
		if !errors.Is(err, ErrBusy) {
			return nil, err
		}
		if err := sleep(ctx, flagPoll); err != nil {
			return nil, err
		}
	}
	f.n++
	return func() {
		<-f.gate
		defer func() { f.gate <- struct{}{} }()
		if f.n--; f.n == 0 {
			f.stop()
			os.Remove(f.file.Name()) // one that stays goes with the silence of its owner
			f.file.Close()
		}
	}, nil
}

// collectedElsewhere is [ErrBusy] while another machine collects.
func (s *Store) collectedElsewhere() error {
	// Opened anew: that is when file servers are asked.
	file, err := os.Open(s.lockPath("collect"))
	if err != nil {
		return err
	}
	defer file.Close()
	live, h, err := s.liveElsewhere(file)
	if live {
		return fmt.Errorf("%s collects: %w", h, ErrBusy)
	}
	return err
}

// liveElsewhere reports whether the holder that a file names is on another
// machine and gave a sign of life lately.
func (s *Store) liveElsewhere(file *os.File) (bool, Holder, error) {
	h, err := readHolder(file)
	if err != nil || h.PID == 0 || sameKernel(h.Host, h.BootID) {
		return false, h, err
	}
	silent, err := s.silentFor(file)
	return silent < leaseSilence(), h, err
}

// claim writes this process into a lock file, of which it has the flock, and
// waits for other machines that are in it. release gives it back.
func (s *Store) claim(ctx context.Context, file *os.File, what string) (release func(), err error) {
	for {
		live, _, err := s.liveElsewhere(file)
		if err != nil {
			return nil, err
		}
		if !live {
			// Of two machines that write at once, the last one is read.
			if err := writeHolder(file, what); err != nil {
				return nil, err
			}
			if mine, err := s.settled(ctx, file); err != nil {
				return nil, err
			} else if mine {
				break
			}
		}
		if err := sleep(ctx, flagPoll); err != nil {
			return nil, err
		}
	}
	stop := keepBeating(file)
	return func() {
		stop()
		_ = overwriteHolder(file, nil) // else it is missed by and by
	}, nil
}

// awaitFlags waits until no other machine commits. Flags of this one are of the
// dead: the caller has the flock that living ones share.
func (s *Store) awaitFlags(ctx context.Context) error {
	dir := filepath.Join(s.dir, commitFlags)
	// What this machine changes itself, it does not read from a cache.
	mark, err := s.openLockFile(filepath.Join(dir, randomHex(8)))
	if err != nil {
		return err
	}
	os.Remove(mark.Name())
	mark.Close()
	for {
		ents, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("look who commits: %w", err)
		}
		up := false
		for _, e := range ents {
			live, err := s.flagLives(filepath.Join(dir, e.Name()))
			if err != nil {
				return fmt.Errorf("look who commits: %w", err)
			}
			up = up || live
		}
		if !up {
			return nil
		}
		if err := sleep(ctx, flagPoll); err != nil {
			return err
		}
	}
}

// flagLives looks at one flag, and removes it if it is of the dead.
func (s *Store) flagLives(path string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	live, h, err := s.liveElsewhere(file)
	if errors.Is(err, unix.ESTALE) {
		return false, nil
	}
	if err == nil && !live && h.PID == 0 {
		// Nothing is written in it yet, or never will be.
		silent, err := s.silentFor(file)
		if err != nil || silent < leaseSilence() {
			return err == nil, err
		}
	}
	if err == nil && !live {
		os.Remove(path)
	}
	return live, err
}

// keepBeating writes the first byte of a holder's file every now and then,
// until the returned function is called.
func keepBeating(file *os.File) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep(ctx, beatEvery()) == nil {
			if _, err := file.WriteAt([]byte("{"), 0); err == nil {
				_ = flushed(file)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
