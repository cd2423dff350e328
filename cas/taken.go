package cas

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// Files that are sealed or moved leave the place where they lie before a ref
// names them. A process that dies in between would take them along: so what is
// about to be taken is written down first, in the staging directory through
// which the files go, and stays there until the caller has named the tree.
// Whoever finds it without its owner, or fails to name the tree, puts back
// whatever is gone.

// takenFile is that list in a staging directory: a takenHead and then one
// takenEntry for each name, parents before what is in them, as JSON lines.
const takenFile = "taken"

type takenHead struct {
	Tree Digest `json:"tree"` // that all of it becomes
}

// takenEntry is one name as it was.
type takenEntry struct {
	Path   []byte       `json:"path"` // relative to the store if it lies there, else absolute
	Kind   Kind         `json:"kind"`
	Digest *Digest      `json:"digest,omitempty"` // of a file
	Inode  uint64       `json:"inode,omitempty"`  // of a file
	Target []byte       `json:"target,omitempty"` // of a link
	Mode   uint32       `json:"mode"`             // permissions
	UID    uint32       `json:"uid"`
	GID    uint32       `json:"gid"`
	Mtime  int64        `json:"mtime"` // ns since 1970
	Xattrs []takenXattr `json:"xattrs,omitempty"`
}

type takenXattr struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// listTaken lists n and what is below it.
func (s *Store) listTaken(n *node) (list []takenEntry, err error) {
	st := n.state
	path, err := filepath.Abs(n.path())
	if err != nil {
		return nil, err
	}
	if rel, ok := strings.CutPrefix(path, s.dir+"/"); ok {
		path = rel
	}
	e := takenEntry{Path: []byte(path), Kind: n.kind, Target: []byte(n.target),
		Mode: st.mode & 0o7777, UID: st.uid, GID: st.gid, Mtime: st.mtime}
	attrs := n.attrs
	if n.kind == KindFile || n.kind == KindExecutable {
		e.Digest, e.Inode, attrs = &n.digest, st.ino, n.xattrs
	}
	for _, x := range attrs {
		e.Xattrs = append(e.Xattrs, takenXattr{x.Key, []byte(x.Value)})
	}
	list = append(list, e)
	for _, k := range n.kids {
		below, err := s.listTaken(k)
		if err != nil {
			return nil, err
		}
		list = append(list, below...)
	}
	return list, nil
}

// writeTaken writes the list into a staging directory, durably.
func (s *Store) writeTaken(dir string, tree Digest, list []takenEntry) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	err := enc.Encode(takenHead{tree})
	for i := range list {
		if err == nil {
			err = enc.Encode(list[i])
		}
	}
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, takenFile))
	if err != nil {
		return storeError(err)
	}
	defer f.Close()
	// Whoever collects in a shared store must be able to read it.
	err = f.Chmod(s.smallFileMode())
	if err == nil {
		err = fault.In(fault.Write)
	}
	if err == nil {
		_, err = f.Write(b.Bytes())
	}
	if err == nil {
		err = fault.In(fault.Sync)
	}
	if err == nil {
		err = f.Sync()
	}
	return storeError(err)
}

// readTaken reads the list of a staging directory. Lines that a crash spoiled
// are passed over: nothing was taken away before all of them were durable.
func readTaken(dir string) (tree Digest, list []takenEntry, err error) {
	f, err := os.Open(filepath.Join(dir, takenFile))
	if err != nil {
		return tree, nil, err
	}
	defer f.Close()
	var head takenHead
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for first := true; sc.Scan(); first = false {
		if first {
			_ = json.Unmarshal(sc.Bytes(), &head)
			continue
		}
		var e takenEntry
		if json.Unmarshal(sc.Bytes(), &e) == nil && len(e.Path) > 0 {
			list = append(list, e)
		}
	}
	return head.Tree, list, sc.Err()
}

// hiddenPath is where a file with the digest lies in a staging directory once
// it was taken away and before it is a blob.
func hiddenPath(dir string, d Digest) string { return filepath.Join(dir, "taken-"+d.String()) }

// path is where the entry lies.
func (e *takenEntry) path(s *Store) string {
	if p := string(e.Path); filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(s.dir, string(e.Path))
}

// PutBack puts back what seals and moves of files at or below path took away
// that were cut off before anything named the result. It does nothing where
// their processes live. [ErrNoSpace] if what became a blob meanwhile, and has
// to be copied, does not fit.
func (s *Store) PutBack(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return s.eachTaken(func(dir string, tree Digest, list []takenEntry) error {
		at := list[0].path(s)
		if !ownTaken(dir) || at != path && !strings.HasPrefix(at, path+"/") && !strings.HasPrefix(path, at+"/") {
			return nil
		}
		// One that was cut off while it was removed may lack the lock.
		lock, err := os.OpenFile(filepath.Join(dir, stagingLock), os.O_RDWR|os.O_CREATE, s.smallFileMode())
		if noFile(err) {
			return nil
		}
		if err != nil {
			return storeError(err)
		}
		defer lock.Close()
		if free, err := tryFlock(lock, unix.LOCK_EX); !free {
			return err
		}
		if _, err := os.Lstat(filepath.Join(dir, takenFile)); err != nil {
			return nil // it was just being named
		}
		s.log.Warn("putting back what was taken into the store and not named", "path", at)
		if err := s.putBackTaken(ctx, dir, list); err != nil {
			return fmt.Errorf("put back what was taken from %s: %w", at, noSpace(err, s.dir))
		}
		return removeAll(dir)
	})
}

// ownTaken reports whether the list is this user's own: what another one wrote
// must not make this one write anywhere.
func ownTaken(dir string) bool {
	st, err := lstatFile(filepath.Join(dir, takenFile))
	return err == nil && st.isRegular() && st.nlink == 1 && int(st.uid) == os.Geteuid()
}

// eachTaken calls fn for the list of each staging directory that has one.
func (s *Store) eachTaken(fn func(dir string, tree Digest, list []takenEntry) error) error {
	ents, err := os.ReadDir(filepath.Join(s.dir, "staging"))
	if noFile(err) {
		return nil
	}
	if err != nil {
		return storeError(err)
	}
	for _, e := range ents {
		dir := filepath.Join(s.dir, "staging", e.Name())
		tree, list, err := readTaken(dir)
		if noFile(err) || err == nil && len(list) == 0 {
			continue
		}
		if err == nil {
			err = fn(dir, tree, list)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takenBlobs calls fn for each blob that may have to be put back.
func (s *Store) takenBlobs(fn func(Digest)) error {
	return s.eachTaken(func(_ string, _ Digest, list []takenEntry) error {
		for i := range list {
			if d := list[i].Digest; d != nil {
				fn(*d)
			}
		}
		return nil
	})
}

// sweepTaken puts back what lies in an abandoned staging directory, and reports
// whether the directory may go. What came from the place of a stage waits for
// the next run of that, and goes with the place.
func (s *Store) sweepTaken(ctx context.Context, dir string, list []takenEntry) bool {
	at := list[0].path(s)
	if rel, ok := strings.CutPrefix(at, filepath.Join(s.dir, "at")+"/"); ok {
		short, _, _ := strings.Cut(rel, "/")
		_, err := os.Lstat(filepath.Join(s.dir, "at", short))
		return noFile(err)
	}
	if !ownTaken(dir) {
		return false
	}
	if err := s.putBackTaken(ctx, dir, list); err != nil {
		s.log.Warn("what was to be moved into the store could not be put back; it stays in staging", "path", at, "err", err)
		return false
	}
	s.log.Warn("put back what was to be moved into the store", "path", at)
	return true
}

// putBackTaken makes every name of the list that is gone again; what stands
// there by now stays.
func (s *Store) putBackTaken(ctx context.Context, dir string, list []takenEntry) (err error) {
	// The place of a stage may have been removed and made anew since.
	if len(list) > 0 {
		if err := os.MkdirAll(filepath.Dir(list[0].path(s)), 0o777); err != nil {
			return err
		}
	}
	links := map[uint64]string{}
	for i := range list {
		e := &list[i]
		path := e.path(s)
		it, perr := s.putBackEntry(ctx, dir, e, path, links[e.Inode])
		if err == nil {
			err = perr
		}
		if perr == nil && it && e.Digest != nil {
			links[e.Inode] = path
		}
	}
	// Children first: what comes into a directory changes its time.
	for i := len(list) - 1; i >= 0; i-- {
		if e := &list[i]; e.Kind == KindDir {
			_ = setMtime(e.path(s), e.Mtime)
		}
	}
	return err
}

// putBackEntry puts back one; first is another name of the same file, or "". it:
// at path is what was there.
func (s *Store) putBackEntry(ctx context.Context, dir string, e *takenEntry, path, first string) (it bool, err error) {
	now, err := lstatNoLinks(path)
	switch {
	case err == nil && now.isRegular() && e.Digest != nil && now.ino == e.Inode:
		return true, e.dress(path) // it was not taken away, and may be made read-only
	case err == nil:
		return false, nil
	case !noFile(err):
		return false, err
	}
	switch it = true; {
	case e.Kind == KindDir:
		err = inDir("make", path, func(dir int, name string) error { return unix.Mkdirat(dir, name, 0o777) })
	case e.Kind == KindSymlink:
		return true, inDir("put back", path, func(dir int, name string) error { return unix.Symlinkat(string(e.Target), dir, name) })
	case first != "":
		return true, linkBack(first, path)
	default:
		it, err = s.putBackFile(ctx, dir, *e.Digest, path)
	}
	if it && err == nil {
		err = e.dress(path)
	}
	return it, err
}

// putBackFile puts back the bytes of a file: the file itself, or a copy of the
// blob that it is by now. it is false where there is neither: somebody else took
// it away; or where somebody made another one just now.
func (s *Store) putBackFile(ctx context.Context, dir string, d Digest, path string) (it bool, err error) {
	from := hiddenPath(dir, d)
	if _, err := os.Lstat(from); noFile(err) {
		// Under another name: half a copy must not pass for the file.
		from += ".part"
		_ = os.Remove(from)
		blob, err := os.Open(s.blobPath(d))
		if noFile(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		defer blob.Close()
		f, _, err := cloneOrCopy(ctx, blob, from, 0o600)
		if err == nil {
			// Nothing keeps the blob once the list is gone.
			err = f.Sync()
			f.Close()
		}
		if err != nil {
			return false, fmt.Errorf("%s, its bytes are in %s: %w", path, blob.Name(), err)
		}
	}
	if err := putBack(from, path); !errors.Is(err, os.ErrExist) {
		return err == nil, err
	}
	return false, nil
}

// dress gives a file or directory the owner, attributes, mode and time that it had.
func (e *takenEntry) dress(path string) error {
	fd, err := openNoLinks(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.EACCES) && e.Mode&0o400 == 0 {
		return nil // it still is as it was
	}
	if err != nil {
		return noLinksError("put back", path, err)
	}
	defer unix.Close(fd)
	// Attributes cannot be set on what is read-only, nor modes kept over a chown.
	err = unix.Fchmod(fd, e.Mode&0o7777|0o200)
	if os.Geteuid() == 0 {
		_ = unix.Fchown(fd, int(e.UID), int(e.GID))
	}
	for _, x := range e.Xattrs {
		_ = unix.Fsetxattr(fd, x.Key, x.Value, 0)
	}
	if err == nil {
		err = unix.Fchmod(fd, e.Mode&0o7777)
	}
	if err != nil {
		return &os.PathError{Op: "chmod", Path: path, Err: err}
	}
	return setMtime(path, e.Mtime)
}
