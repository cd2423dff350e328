//go:build linux

package fusefs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// placeDirs are the directories on disk that a place shows, beside in.
var placeDirs = []string{"out", "work", "logs", "tmp"}

// place is STORE/at/<short>, as the nodes of one mount share it.
type place struct {
	f     *filesystem
	short string
	dir   *os.File // the directory; closed when the last node has gone
	ino   uint64   // of dir

	mu      sync.Mutex
	version fileVersion // of the state.json that state was read from
	state   cas.PlaceState
	changes int // under way; while there are any, dir is locked shared
}

// fileVersion changes when a file that is only ever replaced changes.
type fileVersion struct {
	ino, size   uint64
	ctime, nsec int64
}

// place opens the place of a short key; [cas.ErrNotFound].
func (f *filesystem) place(short string) (*place, error) {
	if len(short) != 16 {
		return nil, fmt.Errorf("place %q: %w", short, cas.ErrNotFound)
	}
	path := filepath.Join(f.store.Dir(), "at", short)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err == nil || err == unix.ENOENT {
			return nil, fmt.Errorf("place %s: %w", short, cas.ErrNotFound)
		}
		return nil, fmt.Errorf("place %s: %w", short, err)
	}
	f.placesMu.Lock()
	defer f.placesMu.Unlock()
	if p := f.places[short]; p != nil && p.ino == st.Ino {
		return p, nil
	}
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return nil, fmt.Errorf("place %s: %w", short, err)
	}
	p := &place{f: f, short: short, dir: dir, ino: st.Ino}
	if f.places != nil {
		f.places[short] = p
	}
	return p, nil
}

// openDir opens a directory for listing, locking and as the start of paths.
func openDir(at int, path string) (*os.File, error) {
	fd, err := unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *place) fd() int { return int(p.dir.Fd()) }

// current returns the place's state as it is on disk.
func (p *place) current() (cas.PlaceState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.read()
}

// read is current for those who hold mu. It costs one fstatat(2) when nothing
// changed.
func (p *place) read() (cas.PlaceState, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd(), "state.json", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return cas.PlaceState{}, fmt.Errorf("place %s: %w", p.short, cas.ErrNotFound)
		}
		return cas.PlaceState{}, fmt.Errorf("place %s: %w", p.short, err)
	}
	v := fileVersion{st.Ino, uint64(st.Size), int64(st.Ctim.Sec), int64(st.Ctim.Nsec)}
	if v == p.version {
		return p.state, nil
	}
	fd, err := unix.Openat(p.fd(), "state.json", unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return cas.PlaceState{}, fmt.Errorf("place %s: %w", p.short, err)
	}
	file := os.NewFile(uintptr(fd), "state.json")
	defer file.Close()
	var state cas.PlaceState
	if err := json.NewDecoder(file).Decode(&state); err != nil {
		return cas.PlaceState{}, fmt.Errorf("place %s: state.json: %w: %w", p.short, cas.ErrCorrupt, err)
	}
	if cas.ShortKey(state.Key) != p.short {
		return cas.PlaceState{}, fmt.Errorf("place %s: state.json is that of key %q: %w", p.short, state.Key, cas.ErrCorrupt)
	}
	p.version, p.state = v, state
	return state, nil
}

// open reports whether programs may change the place through this mount.
func (p *place) open() bool {
	if unix.Faccessat(p.fd(), "sealing", unix.F_OK, 0) != unix.ENOENT {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st, err := p.read()
	return err == nil && st.Active && st.Mount == p.f.id
}

// begin starts a change of the place, which ends by end; EROFS where the place
// may not be changed. Whoever seals makes the marker `sealing` first. A change
// that saw no marker holds a shared lock on the directory until it is done, so
// a sealer that then takes the lock exclusively knows that no change is left.
// An open file is held by its own descriptor, which refuses the sealer's lease.
func (p *place) begin() syscall.Errno {
	if !p.open() {
		return syscall.EROFS
	}
	p.mu.Lock()
	if p.changes == 0 {
		// A filesystem without locks on directories does without.
		if err := unix.Flock(p.fd(), unix.LOCK_SH|unix.LOCK_NB); err == unix.EWOULDBLOCK {
			p.mu.Unlock()
			return syscall.EROFS
		}
	}
	p.changes++
	p.mu.Unlock()
	if !p.open() {
		p.end()
		return syscall.EROFS
	}
	return 0
}

func (p *place) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changes--; p.changes == 0 {
		_ = unix.Flock(p.fd(), unix.LOCK_UN)
	}
}

// placeNames is the source of at/.
type placeNames struct{ f *filesystem }

func (s placeNames) lookup(ctx context.Context, name string) (shown, error) {
	p, err := s.f.place(name)
	if err != nil {
		return shown{}, err
	}
	st, err := p.current()
	if err != nil {
		return shown{}, err
	}
	return shownNames(s.f, fmt.Sprintf("place:%s:%d", st.Key, p.ino), partNames{p}), nil
}

func (s placeNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	keys, err := s.f.store.Places(ctx)
	if err != nil {
		return nil, err
	}
	var list []fuse.DirEntry
	for _, key := range keys {
		list = append(list, fuse.DirEntry{Name: cas.ShortKey(key), Mode: syscall.S_IFDIR})
	}
	return list, nil
}

// partNames is the source of at/<short>.
type partNames struct{ p *place }

func (s partNames) lookup(ctx context.Context, name string) (shown, error) {
	st, err := s.p.current()
	if err != nil {
		return shown{}, err
	}
	switch {
	case name == "in":
		return shownNames(s.p.f, "in", inputNames(s)), nil
	case name == "out" && !st.Active && !st.Result.IsZero():
		return s.p.f.shownInside(ctx, st.Result, "out")
	case slices.Contains(placeDirs, name):
		return s.p.shownDir(name)
	}
	return shown{}, fmt.Errorf("place %s: %s: %w", s.p.short, name, cas.ErrNotFound)
}

func (s partNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	var list []fuse.DirEntry
	for _, name := range append([]string{"in"}, placeDirs...) {
		if _, err := s.lookup(ctx, name); err == nil {
			list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
		} else if !errors.Is(err, cas.ErrNotFound) {
			return nil, err
		}
	}
	return list, nil
}

// shownDir is a directory of the place on disk; path is relative to the place.
func (p *place) shownDir(path string) (shown, error) {
	var st stat
	if errno := st.at(p.fd(), path); errno == syscall.ENOENT {
		return shown{}, fmt.Errorf("place %s: %s: %w", p.short, path, cas.ErrNotFound)
	} else if errno != 0 {
		return shown{}, fmt.Errorf("place %s: %s: %w", p.short, path, errno)
	}
	if st.mode()&syscall.S_IFMT != syscall.S_IFDIR {
		return shown{}, fmt.Errorf("place %s: %s is not a directory: %w", p.short, path, cas.ErrNotFound)
	}
	id := st.id()
	ident := fmt.Sprintf("dir:%s:%d:%d", path, id.Ino, id.Gen)
	return shown{
		ident: ident, stable: id, attr: st.attr(), live: true,
		make: func() fs.InodeEmbedder { return &stageNode{place: p, top: path, ident: ident, id: id} },
	}, nil
}

// inputNames is the source of at/<short>/in.
type inputNames struct{ p *place }

func (s inputNames) lookup(ctx context.Context, name string) (shown, error) {
	st, err := s.p.current()
	if err != nil {
		return shown{}, err
	}
	d, ok := st.Inputs[name]
	switch {
	case slices.Contains(st.Rw, name):
		return s.p.shownDir("in-rw/" + name)
	case !ok || d.IsZero():
		return shown{}, fmt.Errorf("place %s: input %s: %w", s.p.short, name, cas.ErrNotFound)
	}
	return s.p.f.shownTree(d, nil), nil
}

func (s inputNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	st, err := s.p.current()
	if err != nil {
		return nil, err
	}
	var list []fuse.DirEntry
	for name := range st.Inputs {
		list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
	}
	for _, name := range st.Rw {
		if _, ok := st.Inputs[name]; !ok {
			list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
		}
	}
	return list, nil
}
