package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// Pin keeps trees from being collected while it is open in any process. Pass
// File to a child to hand the pin over, and close File instead of calling
// Release. Until then it shows by itself that its owner lives, see [Pin.Beat].
type Pin struct {
	f *os.File

	mu   sync.Mutex
	next *time.Timer // of the next sign of life
}

// pinFile is pins/<random>.json. Its owner holds its flock; without, it is void.
type pinFile struct {
	What   string    `json:"what"`
	Trees  []Digest  `json:"trees"`
	Host   string    `json:"host"`
	BootID string    `json:"boot_id"`
	PID    int       `json:"pid"`
	Time   time.Time `json:"time"`
}

// foreignPinAge is how long a pin of another host counts without a [Pin.Beat]
// where that host's flock cannot be seen.
const foreignPinAge = 24 * time.Hour

// pinBeat is how often the owner of a pin shows that it lives. Only tests
// change it.
var pinBeat = time.Hour

// Pin pins stored trees; [ErrNotFound] if one of them is gone.
func (s *Store) Pin(ctx context.Context, what string, trees ...Digest) (*Pin, error) {
	p, err := s.pin(ctx, what, trees)
	if err != nil {
		return nil, fmt.Errorf("pin trees for %s: %w", what, err)
	}
	return p, nil
}

func (s *Store) pin(ctx context.Context, what string, trees []Digest) (*Pin, error) {
	release, err := s.shareCommit(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	for _, d := range trees {
		if err := s.needTree(d); err != nil {
			return nil, err
		}
	}
	host := thisHost()
	b, err := encodeJSON(pinFile{what, trees, host.name, host.boot, os.Getpid(), now()})
	if err != nil {
		return nil, err
	}
	f, err := s.lockedFile(filepath.Join(s.dir, "pins", randomHex(8)+".json"), b)
	if err != nil {
		return nil, err
	}
	p := &Pin{f: f}
	p.mu.Lock()
	defer p.mu.Unlock()
	every := pinBeat
	p.next = time.AfterFunc(every, func() { p.goOn(every) })
	return p, nil
}

// goOn gives a sign of life, now and then again, until the pin is closed.
func (p *Pin) goOn(every time.Duration) {
	if err := p.Beat(); errors.Is(err, os.ErrClosed) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next.Reset(every)
}

// lockedFile makes a small file that this process holds the flock of from the
// moment that it has its name. It says who lives, so it need not be durable.
func (s *Store) lockedFile(path string, b []byte) (*os.File, error) {
	staged, err := s.stageBytes(b, s.smallFileMode(), false)
	if err != nil {
		return nil, err
	}
	if err := s.rename(staged.Name(), path); err != nil {
		staged.Close()
		os.Remove(staged.Name())
		return nil, err
	}
	// The name that Release removes.
	return renamed(staged, path)
}

// lockStaged locks a file that nobody knows yet and renames it to path.
func lockStaged(staged, path string, rename func(from, to string) error) (*os.File, error) {
	f, err := os.OpenFile(staged, os.O_RDWR, 0)
	if err == nil {
		if err = flock(f, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			err = rename(staged, path)
		}
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		os.Remove(staged)
		return nil, err
	}
	// The name that Release removes.
	return renamed(f, path)
}

// renamed is f under the name that it has now.
func renamed(f *os.File, path string) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		f.Close()
		return nil, err
	}
	f.Close()
	return os.NewFile(uintptr(fd), path), nil
}

// File is the pin's descriptor, to be inherited.
func (p *Pin) File() *os.File { return p.f }

// Beat shows hosts that share the store that the pin's owner lives. Whoever
// owns a pin that was handed over calls it; once an hour is enough.
func (p *Pin) Beat() error {
	_, err := p.f.WriteAt([]byte("{"), 0)
	if err == nil {
		err = flushed(p.f)
	}
	if err != nil {
		return fmt.Errorf("beat %s: %w", p.f.Name(), err)
	}
	return nil
}

// Release ends the pin, wherever else its descriptor is open.
func (p *Pin) Release() error {
	p.mu.Lock()
	p.next.Stop()
	p.mu.Unlock()
	err := os.Remove(p.f.Name())
	if noFile(err) {
		err = nil
	}
	if cerr := p.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// livePins calls fn with the trees of each pin that counts, and with the path
// of each that is void.
func (s *Store) livePins(fn func(trees []Digest) error, void func(path string) error) error {
	dir := filepath.Join(s.dir, "pins")
	ents, err := os.ReadDir(dir)
	if noFile(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	for _, e := range ents {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		pin, live, err := readPin(path)
		switch {
		case noFile(err):
		case err != nil:
			return fmt.Errorf("read pin %s: %w", path, err)
		case live:
			err = fn(pin.Trees)
		default:
			err = void(path)
		}
		if err != nil && !noFile(err) {
			return err
		}
	}
	return nil
}

func readPin(path string) (pin pinFile, live bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return pin, false, err
	}
	defer f.Close()
	free, err := tryFlock(f, unix.LOCK_SH)
	if err != nil {
		return pin, false, err
	}
	err = readJSON(path, &pin)
	if free && err == nil && !sameKernel(pin.Host, pin.BootID) {
		fi, err := f.Stat()
		if err != nil {
			return pin, false, err
		}
		// Machines may have one name: only before this one was started it may
		// have been this one itself, whose processes are gone.
		here := pin.Host == thisHost().name && fi.ModTime().Before(startTime())
		return pin, !here && fault.Now().Sub(fi.ModTime()) < foreignPinAge, nil
	}
	if free {
		return pin, false, nil // void, readable or not
	}
	return pin, true, err
}
