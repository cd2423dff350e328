package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// A Place is the working area of one opaque 64-hex key, STORE/at/<short>:
//
//	state.json  PlaceState
//	sealing     exists unless the place may be written (see Sealing)
//	out/<name>/ work/<name>/ logs/ tmp/   ordinary files and directories
//	in/<name>   only without a mount: copies of the inputs
//	in-rw/<name>/  private writable copies of inputs
//
// A mount shows it as at/<short>. Who changes a place holds the key's lock.
type Place struct {
	s   *Store
	key string
}

// PlaceState is what a mount needs to know of a place.
type PlaceState struct {
	Key     string            `json:"key"`
	Run     string            `json:"run"`             // the newest run
	Attempt int               `json:"attempt"`         // counts from 1 since the work directories were empty
	Mount   string            `json:"mount,omitempty"` // ID of the only mount through which it may be written; "" without one
	Active  bool              `json:"active"`          // a run has it: out, work, logs, tmp are writable through Mount
	Inputs  map[string]Digest `json:"inputs"`          // name → tree shown below in/
	Rw      []string          `json:"rw,omitempty"`    // inputs that are shown from in-rw/ instead
	Result  Digest            `json:"result"`          // the stage result's tree once sealed: out/ shows its "out"
}

// shortKeyLen is how many digits of a key stand in paths.
const shortKeyLen = 16

// Place returns the place of key; nothing is made yet. A key that is not 64
// lower-case hex digits is an error of the methods.
func (s *Store) Place(key string) *Place { return &Place{s, key} }

// ShortKey is the form of a key in paths: its first 16 digits.
func ShortKey(key string) string { return key[:min(len(key), shortKeyLen)] }

// KeyLock is the name of the lock ([Store.Lock]) that whoever changes the
// place of key holds.
func KeyLock(key string) string { return "key/" + key }

// Dir is the place's absolute directory.
func (p *Place) Dir() string { return filepath.Join(p.s.dir, "at", ShortKey(p.key)) }

func (p *Place) check() error {
	if _, err := ParseDigest(p.key); err != nil {
		return fmt.Errorf("place of key %q: want 64 lower-case hex digits: %w", p.key, ErrInvalid)
	}
	return nil
}

// State reads the state; [ErrNotFound] if the place was never made. A place
// whose short form is taken by another key is an error.
func (p *Place) State(ctx context.Context) (PlaceState, error) {
	if err := p.check(); err != nil {
		return PlaceState{}, err
	}
	st, err := p.s.placeState(ShortKey(p.key))
	if err != nil {
		return PlaceState{}, err
	}
	if st.Key != p.key {
		return PlaceState{}, fmt.Errorf("place %s belongs to the key %s, not %s: move it away: %w", p.Dir(), st.Key, p.key, ErrExists)
	}
	return st, nil
}

// placeState reads the state of the place at/<short>.
func (s *Store) placeState(short string) (PlaceState, error) {
	path := filepath.Join(s.dir, "at", short, "state.json")
	var st PlaceState
	err := readJSON(path, &st)
	if noFile(err) {
		return PlaceState{}, fmt.Errorf("place %s: %w", short, ErrNotFound)
	}
	if err == nil {
		if _, perr := ParseDigest(st.Key); perr != nil || ShortKey(st.Key) != short {
			err = fmt.Errorf("%s: %w: its key is %q", path, ErrCorrupt, st.Key)
		}
	}
	if err != nil {
		return PlaceState{}, fmt.Errorf("place %s: %w", short, err)
	}
	return st, nil
}

// SetState makes the place if need be and replaces its state atomically; an
// empty Key means the place's own. The trees that it names must be stored
// ([ErrNotFound]). It does not tell mounts: see [Store.Refresh].
func (p *Place) SetState(ctx context.Context, st PlaceState) error {
	if err := p.check(); err != nil {
		return err
	}
	if _, err := p.State(ctx); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if st.Key == "" {
		st.Key = p.key
	}
	if st.Key != p.key {
		return fmt.Errorf("place %s: the state is that of key %s: %w", p.Dir(), st.Key, ErrInvalid)
	}
	if st.Inputs == nil {
		st.Inputs = map[string]Digest{}
	}
	b, err := encodeJSON(st)
	if err != nil {
		return err
	}
	release, err := p.s.shareCommit(ctx)
	if err != nil {
		return fmt.Errorf("place %s: %w", p.Dir(), err)
	}
	defer release()
	for name, d := range st.Inputs {
		if err := p.s.needTree(d); err != nil {
			return fmt.Errorf("place %s: input %s: %w", p.Dir(), name, err)
		}
	}
	if !st.Result.IsZero() {
		if err := p.s.needTree(st.Result); err != nil {
			return fmt.Errorf("place %s: result: %w", p.Dir(), err)
		}
	}
	return p.s.putFile(filepath.Join(p.Dir(), "state.json"), b)
}

// drainTime is how long a change that a mount began before it saw the marker
// may take to end.
const drainTime = 5 * time.Second

// SetSealing makes or removes the marker that closes the place to writers.
// While it exists a mount refuses every open for writing and every change
// with EROFS, work/ and out/ alike. When it returns, no change that was begun
// before is under way: a mount holds a shared flock on the place's directory
// for as long as it makes one. Files that are still open for writing are
// another matter, see [Store.Seal].
func (p *Place) SetSealing(ctx context.Context, closed bool) error {
	if err := p.check(); err != nil {
		return err
	}
	path := filepath.Join(p.Dir(), "sealing")
	if !closed {
		if err := os.Remove(path); err != nil && !noFile(err) {
			return fmt.Errorf("open place %s to writers: %w", p.Dir(), err)
		}
		return nil
	}
	if _, err := os.Stat(p.Dir()); noFile(err) {
		return fmt.Errorf("close place %s to writers: the place does not exist: %w", p.Dir(), ErrNotFound)
	}
	f, err := p.s.openLockFile(path)
	if err != nil {
		return fmt.Errorf("close place %s to writers: %w", p.Dir(), err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close place %s to writers: %w", p.Dir(), err)
	}
	fault.At(fault.PlaceMarked)
	return p.drain(ctx)
}

// drain waits until no mount is in the midst of a change.
func (p *Place) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	d, err := os.Open(p.Dir())
	if err != nil {
		return fmt.Errorf("close place %s to writers: %w", p.Dir(), err)
	}
	switch err := flockContext(ctx, d, unix.LOCK_EX); {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("close place %s to writers: a change through the mount does not end: %w", p.Dir(), ErrBusy)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("close place %s to writers: %w", p.Dir(), err)
	case err != nil:
		// NFS locks no directory: the mount did without, and so must this.
		return nil
	}
	return d.Close()
}

// Places lists the keys of all places, in order. Directories without a state
// that can be read are passed over.
func (s *Store) Places(ctx context.Context) ([]string, error) {
	ents, err := os.ReadDir(filepath.Join(s.dir, "at"))
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list places: %w", err)
	}
	var keys []string
	for _, e := range ents {
		if st, err := s.placeState(e.Name()); err == nil {
			keys = append(keys, st.Key)
		}
	}
	return keys, nil
}
