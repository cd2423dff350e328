package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/curi-store/curi/internal/fault"
	"golang.org/x/sys/unix"
)

// MtimeAttr is the attribute that keeps a file's or directory's modification
// time: nanoseconds since 1970, decimal.
const MtimeAttr = "mtime"

func formatMtime(ns int64) string { return strconv.FormatInt(ns, 10) }

// SealOptions of [Store.Seal].
type SealOptions struct {
	As       string // with a file: its path inside the tree, such as "model.ckpt" or "a/b/model.ckpt"
	Attrs    Attrs  // added to those that the program set, which win
	Mtimes   bool   // keep mtimes as attributes (snapshots of work directories)
	Progress Progress
}

// Seal takes over what a finished program left at path, a file or directory
// on the store's filesystem: each file under a read lease (retried for 2 s;
// then [ErrBusy] names the holder), hashed, checked for links, renamed into the
// store. A file with a hard link outside is copied. user.curi.* extended
// attributes become attributes and are removed from the inode. A single file
// becomes a Single tree with the file at o.As, by default under its own name.
//
// What is left at path goes with [Added.Release]. After a failure, and after
// [Added.Undo], everything is as it was; a process that dies in between leaves
// that to the next Seal or [Store.PutBack] of path. Symlinks that lead out of
// path, FIFOs, sockets and devices are [ErrInvalid].
func (s *Store) Seal(ctx context.Context, path string, o SealOptions) (*Added, error) {
	if err := s.PutBack(ctx, path); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	sc := &scanner{ctx: ctx, seal: true, store: s.dir}
	root, err := sc.scan(path)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return s.take(ctx, root, takeOptions{verb: "seal", as: o.As, attrs: o.Attrs, ownWins: true, mtimes: o.Mtimes, progress: o.Progress})
}

// takeOptions tell Seal and a moving AddPath apart.
type takeOptions struct {
	verb     string
	as       string
	attrs    Attrs
	ownWins  bool // the attributes that files carry win over attrs
	mtimes   bool
	progress Progress
}

// taker moves files into the store.
type taker struct {
	*adder
	dev      uint64 // the store's filesystem
	uid, gid int    // of the store
	held     int    // leases that can still be held at once

	mu     sync.Mutex
	names  map[fileID][]*node // every file by device and inode
	sealed map[Digest]*sealedFile

	root *node
	list []takenEntry // what stands in the staging directory's list
}

// take stores everything below root by renaming. What is left is removed when
// the result is released.
func (s *Store) take(ctx context.Context, root *node, o takeOptions) (_ *Added, err error) {
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	t := &taker{adder: &adder{s: s, b: b}, root: root, names: map[fileID][]*node{}, sealed: map[Digest]*sealedFile{}, held: maxLeases()}
	b.take = t
	defer func() {
		for _, sf := range t.sealed {
			sf.close()
		}
		if err != nil {
			err = also(err, t.undo(context.WithoutCancel(ctx)))
		}
	}()
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: s.dir, Err: err}
	}
	t.dev, t.uid, t.gid = uint64(st.Dev), int(st.Uid), int(st.Gid)
	root.files(func(n *node) {
		key := fileID{n.state.dev, n.state.ino}
		t.names[key] = append(t.names[key], n)
	})
	t.count(root, o.progress)
	if err := t.checkSpace(ctx, root, t.copies); err != nil {
		return nil, err
	}
	added, err := t.run(ctx, root, treeShape{as: o.as, attrs: o.attrs, ownWins: o.ownWins, mtimes: o.mtimes}, t.takeFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.verb, noSpace(err, s.dir))
	}
	added.take = t
	return added, nil
}

// hide takes the sealed files away from where they lie, once it is written
// down, durably, where that is.
func (t *taker) hide(tree Digest) error {
	if len(t.list) == 0 {
		list, err := t.s.listTaken(t.root)
		if err != nil {
			return err
		}
		if err := t.s.writeTaken(t.b.st.dir, tree, list); err != nil {
			return err
		}
		t.list = list
	}
	var todo []Digest
	for d, sf := range t.sealed {
		if sf.hidden == "" {
			todo = append(todo, d)
		}
	}
	return parallel(context.Background(), len(todo), addWorkers(), func(_ context.Context, i int) error {
		to := hiddenPath(t.b.st.dir, todo[i])
		if err := t.sealed[todo[i]].hide(t.s, to, t.uid, t.gid); err != nil {
			return err
		}
		t.b.moved(todo[i], to)
		return nil
	})
}

// done removes what is left of what was taken, now that a ref names it.
func (t *taker) done() {
	fault.At(fault.SealStored)
	if err := t.root.remove(); err != nil {
		t.s.log.Warn("stored, and not removed", "path", t.root.path(), "error", err)
	}
	os.Remove(filepath.Join(t.b.st.dir, takenFile)) // first: from here on there is nothing to put back
	t.b.Close()
}

// undo puts everything back.
func (t *taker) undo(ctx context.Context) error {
	if err := t.s.putBackTaken(ctx, t.b.st.dir, t.list); err != nil {
		t.b.st.abandon() // PutBack tries again
		return err
	}
	os.Remove(filepath.Join(t.b.st.dir, takenFile))
	return t.b.Close()
}

// copies reports whether the file cannot be renamed into the store: it lies on
// another filesystem, has names outside what is taken, or is another user's.
func (t *taker) copies(n *node) bool {
	names := t.names[fileID{n.state.dev, n.state.ino}]
	return t.mustCopy(n.state, len(names))
}

func (t *taker) mustCopy(st fileState, names int) bool {
	euid := os.Geteuid()
	return st.dev != t.dev || st.nlink != uint64(names) || euid != 0 && int(st.uid) != euid
}

// maxLeases is how many files can be kept open: half of what the process may.
func maxLeases() int {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 256
	}
	return int(min(r.Cur/2, 1<<16))
}

// takeFile seals and hashes the inode of n. It is called for each of its
// names, and works at the first.
func (t *taker) takeFile(ctx context.Context, n *node) error {
	key := fileID{n.state.dev, n.state.ino}
	all := t.names[key]
	if n != all[0] {
		return nil
	}
	paths := make([]string, len(all))
	for i, k := range all {
		paths[i] = k.path()
	}
	sf, err := t.s.seal(ctx, paths, n.state)
	if err != nil {
		return err
	}
	var user Attrs
	if user, err = userXattrs(paths[0]); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s went away while it was sealed: %w", paths[0], ErrBusy)
		}
		sf.close()
		return err
	}
	d, keep, err := t.takeBytes(ctx, sf, user)
	if !keep {
		sf.close()
	}
	if err != nil {
		return err
	}
	meta := slices.DeleteFunc(slices.Clone(user), func(x Attr) bool { return !strings.HasPrefix(x.Key, MetaPrefix) })
	for _, k := range all {
		k.digest, k.size, k.attrs, k.taken, k.xattrs = d, sf.state.size, meta, sf.state, user
		t.meter.file()
	}
	return nil
}

// takeBytes hashes a sealed file and gives it to the batch: the file itself,
// or a copy if it has other names, lies elsewhere or belongs to another user.
// keep: the batch needs sf.
func (t *taker) takeBytes(ctx context.Context, sf *sealedFile, user Attrs) (d Digest, keep bool, err error) {
	st := sf.state
	if t.mustCopy(st, len(sf.names)) {
		d, _, err = t.b.file(ctx, sf.f, t.meter.bytes)
		if err == nil {
			err = sf.check()
		}
		if errors.Is(err, errUnstable) {
			err = fmt.Errorf("%s changes while it is sealed: %w", sf.names[0], ErrBusy)
		}
		return d, false, err
	}
	var outboard *os.File
	var outPath string
	if st.size > outboardMin {
		if outboard, err = t.b.stageOutboard(); err != nil {
			return d, false, err
		}
		defer outboard.Close()
		outPath = outboard.Name()
	}
	d, err = t.hash(ctx, sf.f, st.size, outboard)
	if errors.Is(err, ErrChanged) {
		err = fmt.Errorf("%s: %w: %w", sf.names[0], err, ErrBusy)
	}
	if err == nil {
		err = sf.check()
	}
	if err != nil || !t.b.claim(d, st.size) {
		if outPath != "" {
			os.Remove(outPath)
		}
		return d, false, err
	}
	t.mu.Lock()
	t.sealed[d] = sf
	t.held--
	sf.crowd = t.held < 0
	t.mu.Unlock()
	fault.At(fault.SealHashed)
	sf.xattrs = user
	if sf.crowd {
		sf.close()
	}
	t.b.put(d, &staged{size: st.size, path: sf.names[0], outboard: outPath, sealed: sf})
	return d, true, nil
}

// hash digests the file; outboard is nil for a small one. What a large file
// still has to write begins to go to the disk meanwhile: the fsync that comes
// next would wait for all of it with the processors idle.
func (t *taker) hash(ctx context.Context, f *os.File, size int64, outboard *os.File) (Digest, error) {
	r := &meteredReader{f, t.meter.bytes}
	if outboard == nil {
		return hashFile(ctx, r, size, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var writing sync.WaitGroup
	defer writing.Wait() // f is not to be closed before
	writing.Go(func() {
		for off := int64(0); off < size && ctx.Err() == nil; off += writebackStep {
			startWriteback(f, off, writebackStep)
		}
	})
	d, err := hashFile(ctx, r, size, outboard)
	if err != nil {
		cancel()
	}
	return d, err
}

// remove removes what is left of a tree that was stored: names of blobs that
// the store had, other names of files, links, directories. What came or was
// written after it was read stays, and so do its directories.
func (n *node) remove() error {
	var errs []error
	for _, k := range n.kids {
		if err := k.remove(); err != nil {
			errs = append(errs, err)
		}
	}
	if n.state.isRegular() {
		now, err := lstatFile(n.path())
		if err == nil && (now.dev != n.taken.dev || now.ino != n.taken.ino || now.size != n.taken.size || now.mtime != n.taken.mtime) {
			return fmt.Errorf("%s changed after it was stored and was left there: %w", n.path(), ErrChanged)
		}
	}
	if err := removeName(n.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
