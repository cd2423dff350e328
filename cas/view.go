package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/fault"
)

// tempView begins the name of a view that is being made.
const tempView = ".tmp-"

// View returns the path of a read-only view of the tree below STORE/views
// that can be opened now and stays as long as the tree does; it is made at
// the first call. Files are symbolic links to blobs, or reflinks where the
// filesystem has them; executables are copies, as a blob is not executable;
// referenced files are links to where they lie.
func (s *Store) View(ctx context.Context, tree Digest) (string, error) {
	path := s.viewPath(tree)
	if fi, err := os.Stat(path); err == nil && fi.IsDir() && s.HasTree(tree) {
		return path, nil
	}
	if err := s.makeView(ctx, tree, path); err != nil {
		return "", fmt.Errorf("make a view of tree %s: %w", tree, err)
	}
	return path, nil
}

// PathOf returns a path at which what the tree has at name can be opened now,
// and that stays as long as the tree does: in its [Store.View]. In a store
// that is full or can only be read, where no view can be made, it is a file's
// own blob; a directory has no path there.
//
// Of a large tree just the directory that name lies in is made a view of,
// unless links in it lead out of it. Of a lazy tree just what is at name comes,
// with the same exception.
func (s *Store) PathOf(ctx context.Context, tree Digest, name string) (string, error) {
	if !s.HasTree(tree) {
		part, base, err := s.closedPart(ctx, tree, name)
		if err != nil {
			return "", err
		}
		if part != nil {
			defer part.Release()
			tree, name = part.Tree, base
		}
	}
	release, err := s.wholeTree(ctx, tree, nil)
	if err != nil {
		return "", err
	}
	defer release()
	if _, err := os.Stat(s.viewPath(tree)); err != nil {
		if dir, base := path.Split(path.Clean("/" + name)); dir != "/" {
			e, err := s.Lookup(ctx, tree, dir)
			if err != nil {
				return "", err
			}
			if closed, err := s.isClosed(ctx, e.Digest); err != nil {
				return "", err
			} else if closed {
				tree, name = e.Digest, base
			}
		}
	}
	view, err := s.View(ctx, tree)
	if err == nil {
		return filepath.Join(view, filepath.FromSlash(name)), nil
	}
	if !cannotWrite(err) {
		return "", err
	}
	e, lerr := s.Lookup(ctx, tree, name)
	if lerr != nil {
		return "", lerr
	}
	if !e.IsRegular() {
		return "", fmt.Errorf("%w (a mount of the store shows directories without a view)", err)
	}
	b, lerr := s.openEntry(ctx, e)
	if lerr != nil {
		return "", lerr
	}
	defer b.Close()
	return b.Name(), nil
}

// isClosed reports whether no relative link in the tree leads out of it, as far
// as its words tell.
func (s *Store) isClosed(ctx context.Context, tree Digest) (bool, error) {
	closed := true
	err := s.Walk(ctx, tree, func(at string, e Entry) error {
		if e.Kind != KindSymlink || path.IsAbs(e.Target) {
			return nil
		}
		up := strings.TrimLeft(e.Target, "./") // what follows the leading ../
		if to := path.Join(path.Dir(at), e.Target); to == ".." || strings.HasPrefix(to, "../") || strings.Contains("/"+up+"/", "/../") {
			closed = false // or through another link, which leads anywhere
			return fs.SkipAll
		}
		return nil
	})
	return closed, err
}

func (s *Store) viewPath(tree Digest) string { return filepath.Join(s.dir, "views", tree.String()) }

func (s *Store) makeView(ctx context.Context, tree Digest, path string) error {
	release, err := s.wholeTree(ctx, tree, nil)
	if err != nil {
		return err
	}
	defer release()
	pin, err := s.Pin(ctx, "a view", tree)
	if err != nil {
		return err
	}
	defer pin.Release()
	// Beside its final place, so that the relative links in it hold.
	tmp := filepath.Join(s.dir, "views", tempView+randomHex(8))
	if err := s.makeDirs(tmp); err != nil {
		return err
	}
	// Locked, so that no collection takes it for left over.
	if d, err := os.Open(tmp); err == nil {
		defer d.Close()
		_ = flock(d, unix.LOCK_EX|unix.LOCK_NB) // NFS locks no directory
	}
	v := &viewMaker{s: s}
	err = v.dir(ctx, tree, tmp)
	if err == nil {
		// What has the view's name is believed, after a power failure too.
		err = syncAll(v.copies, tmp)
	}
	if err == nil {
		fault.At(fault.ViewBuilt)
		err = os.Rename(tmp, path)
		if errors.Is(err, fs.ErrExist) || isNotEmpty(err) {
			// Another made it at the same time.
			err = removeAll(tmp)
		}
	}
	if err != nil {
		return also(err, removeAll(tmp))
	}
	return nil
}

type viewMaker struct {
	s      *Store
	copies []string // files that are neither links nor reflinks
}

// dir fills a directory of the view with the tree.
func (v *viewMaker) dir(ctx context.Context, tree Digest, dir string) error {
	t, err := v.s.Tree(ctx, tree)
	if err != nil {
		return err
	}
	for _, e := range t.Entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := filepath.Join(dir, e.Name)
		switch e.Kind {
		case KindDir:
			if err = os.Mkdir(path, 0o755); err == nil {
				err = v.dir(ctx, e.Digest, path)
			}
		case KindSymlink:
			err = os.Symlink(e.Target, path)
		default:
			err = v.file(ctx, e, path)
		}
		if err != nil {
			return err
		}
	}
	// Others who use the store may have to remove it.
	if err := v.s.shareDir(dir); err != nil || v.s.shared {
		return err
	}
	return os.Chmod(dir, 0o555)
}

func (v *viewMaker) file(ctx context.Context, e Entry, path string) error {
	b, err := v.s.openEntry(ctx, e)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Reference() {
		return os.Symlink(b.Name(), path)
	}
	mode := fs.FileMode(0o444)
	if e.Kind == KindExecutable {
		mode = 0o555
		f, cloned, err := cloneOrCopy(ctx, b.File, path, mode)
		if err != nil {
			return storeError(err)
		}
		defer f.Close()
		if !cloned {
			v.copies = append(v.copies, path)
		}
		return f.Chmod(mode)
	}
	f, err := tryClone(b.File, path, mode)
	if errors.Is(err, errNoClone) {
		target, err := filepath.Rel(filepath.Dir(path), v.s.blobPath(e.Digest))
		if err != nil {
			return err
		}
		return os.Symlink(target, path)
	}
	if err != nil {
		return storeError(err)
	}
	defer f.Close()
	return f.Chmod(mode)
}

// removeAll removes a directory whose directories may be read-only. Root needs
// no modes changed, and changes none: in what another user owns, a name may
// become a link to anywhere at any moment, which [os.RemoveAll] does not follow.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// isNotEmpty: a directory could not be renamed over another.
func isNotEmpty(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY)
}
