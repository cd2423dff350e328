package cas

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FormatVersion is the newest store format that this package reads and writes.
const FormatVersion = 1

// storeFile is the file that makes a directory a store.
const storeFile = "curi-store.json"

// storeDirs are the directories of a store. One that lacks is made when it is
// needed: tools that copy stores lose empty directories.
var storeDirs = []string{
	"blobs", "outboards", "trees", "references", "refs", "pins", "locks",
	"staging", "at", "views", "mounts", "quarantine", "index", "remotes", "partial", "lazy",
}

// Modes in a store that is shared by a group, whatever the umask: the
// directories hand their group on, and nobody else may look in.
const (
	sharedDirMode  = fs.ModeSetgid | 0o770
	sharedFileMode = 0o660
	blobMode       = 0o444
)

// Options of [Open].
type Options struct {
	Create bool         // make the store where there is none
	Group  string       // with Create: share with this group (setgid, group-writable)
	Logger *slog.Logger // nil: discard
}

// Store is a local store, usable by several goroutines and processes at once.
type Store struct {
	dir     string
	id      string
	shared  bool // by a group
	owner   *owner
	created bool
	log     *slog.Logger

	flockIsLocal func() bool // does not reach other machines that use the store
	commits      commitFlag

	remotes Remotes // nil: none can be read
	scratch string  // "": there is none
	lazy    lazyTrees
}

// owner is whose a private store is: root, who works in it too, gives him what
// it makes there, so that he can go on. nil for all others.
type owner struct{ uid, gid int }

// storeHeader is the content of curi-store.json.
type storeHeader struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Shared  bool      `json:"shared,omitempty"` // by a group
}

// Open opens the store at dir. It fails with [ErrNotFound] where there is none
// and Create is false, with [ErrFormat] on a store of another version, with
// [ErrInvalid] where Create finds other things in dir, with [ErrExists] where
// Group is to share a store that is there and private. Without permission to
// write, a store opens and can be read.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	s, err := open(ctx, dir, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func open(ctx context.Context, dir string, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, fmt.Errorf("no directory given: %w", ErrInvalid)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, log: o.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	// One name for one store, however it was reached: mounts and places are
	// compared by it.
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		s.dir = real
	}
	err = s.readHeader()
	if errors.Is(err, ErrNotFound) && o.Create {
		if err := s.create(o.Group); err != nil {
			return nil, err
		}
		err = s.readHeader()
	}
	if err != nil {
		return nil, err
	}
	if err := s.findOwner(); err != nil {
		return nil, err
	}
	s.flockIsLocal = sync.OnceValue(func() bool { return flockIsLocal(s.dir) })
	s.commits.gate = make(chan struct{}, 1)
	s.commits.gate <- struct{}{}
	if o.Create && o.Group != "" && !s.shared {
		return nil, fmt.Errorf("it exists, and was not made to be shared with a group; make a new one for group %s: %w", o.Group, ErrExists)
	}
	return s, nil
}

// findOwner sets owner.
func (s *Store) findOwner() error {
	if s.shared || os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: s.dir, Err: err}
	}
	if st.Uid != 0 {
		s.owner = &owner{int(st.Uid), int(st.Gid)}
	}
	return nil
}

func (s *Store) readHeader() error {
	path := filepath.Join(s.dir, storeFile)
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no store there (%s is missing): %w", storeFile, ErrNotFound)
	case err != nil:
		return storeError(err)
	}
	var h storeHeader
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("%s: %w: %w", path, err, ErrCorrupt)
	}
	if h.Format != FormatVersion {
		return fmt.Errorf("it has format %d, this Curi reads format %d; use the Curi that made it or a newer one: %w", h.Format, FormatVersion, ErrFormat)
	}
	if id, err := hex.DecodeString(h.ID); err != nil || len(id) != 8 {
		return fmt.Errorf("%s: id %q is not 16 hex digits: %w", path, h.ID, ErrCorrupt)
	}
	s.id, s.shared = h.ID, h.Shared
	return nil
}

// create makes the store, or finds that another process just did.
func (s *Store) create(group string) error {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return err
		}
		s.shared = true
	}
	if err := os.MkdirAll(s.dir, 0o777); err != nil {
		return storeError(err)
	}
	if real, err := filepath.EvalSymlinks(s.dir); err == nil {
		s.dir = real
	}
	if err := s.checkEmpty(); err != nil {
		return err
	}
	if group != "" {
		if err := os.Chown(s.dir, -1, gid); err != nil {
			return fmt.Errorf("give it to group %s: %w; be a member of the group, or let root make the store", group, err)
		}
		if err := os.Chmod(s.dir, sharedDirMode); err != nil {
			return storeError(err)
		}
	}
	if err := s.findOwner(); err != nil {
		return err
	}
	for _, name := range storeDirs {
		if err := s.mkdir(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	var id [8]byte
	rand.Read(id[:])
	b, err := json.Marshal(storeHeader{FormatVersion, hex.EncodeToString(id[:]), time.Now().UTC().Truncate(time.Second), s.shared})
	if err != nil {
		return err
	}
	// Last, so that what has the file is a whole store, and by link, so that
	// of several processes that make it one decides the identity.
	err = s.linkFileDurable(filepath.Join(s.dir, storeFile), append(b, '\n'), blobMode)
	if errors.Is(err, ErrExists) {
		return nil
	}
	if s.created = err == nil; s.created {
		s.keepSpare()
	}
	return err
}

// checkEmpty refuses to make a store among other things. What a creation that
// was cut off left is no hindrance.
func (s *Store) checkEmpty() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return storeError(err)
	}
	ours := map[string]bool{storeFile: true}
	for _, name := range storeDirs {
		ours[name] = true
	}
	for _, e := range entries {
		if !ours[e.Name()] {
			return fmt.Errorf("the directory is not empty (it holds %q) and is not a store; name an empty or a new one: %w", e.Name(), ErrInvalid)
		}
	}
	return nil
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if n, err := strconv.Atoi(name); err == nil && n >= 0 {
			return n, nil
		}
		return 0, fmt.Errorf("no group %q on this machine: %w", name, ErrInvalid)
	}
	return strconv.Atoi(g.Gid)
}

// Dir is the store's absolute path, free of symbolic links.
func (s *Store) Dir() string { return s.dir }

// ID is the store's random identity, 16 hex digits, kept over a move.
func (s *Store) ID() string { return s.id }

// Created reports whether this Open made the store.
func (s *Store) Created() bool { return s.created }

// Shared reports whether the store is shared by a group.
func (s *Store) Shared() bool { return s.shared }

// Owner is whose a private store is that root works in: what root leaves there
// is to be his. ok is false for all other stores and users.
func (s *Store) Owner() (uid, gid int, ok bool) {
	if s.owner == nil {
		return 0, 0, false
	}
	return s.owner.uid, s.owner.gid, true
}

// Close releases what the Store holds, and puts what was read lazily where it
// stays; its locks, pins and blobs are separate.
func (s *Store) Close() error {
	s.lazy.close()
	return nil
}

// path is where the store keeps what has the digest d, in the directory room.
func (s *Store) path(room string, d Digest) string {
	h := d.String()
	return strings.Join([]string{s.dir, room, h[:2], h}, string(filepath.Separator))
}

func (s *Store) blobPath(d Digest) string      { return s.path("blobs", d) }
func (s *Store) outboardPath(d Digest) string  { return s.path("outboards", d) }
func (s *Store) treePath(d Digest) string      { return s.path("trees", d) }
func (s *Store) referencePath(d Digest) string { return s.path("references", d) }

// Progress is told of long work. Calls come from several goroutines, also at
// once, and the work waits for them. A total of 0 is unknown.
type Progress func(doneBytes, totalBytes, doneFiles, totalFiles int64)
