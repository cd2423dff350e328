package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// CheckoutOptions of [Store.Checkout].
type CheckoutOptions struct {
	Link     bool // hard links to the blobs; refused as root
	ReadOnly bool // modes 0444/0555/0555 instead of 0644/0755/0755
	Progress Progress
}

// Checkout writes the tree below dir, which must not exist or be an empty
// directory ([ErrExists]); parents are made. One that did not exist is there
// only when it is whole, whatever ends this process. Files are reflinks where the
// filesystem has them, else copies. Metadata of files and of the tree is set as
// extended attributes where the filesystem takes them, and modification times
// that the tree keeps are set. What was made is removed again on an error.
//
// With Link files are hard links to blobs: mode 0444, without metadata of
// their own; executables and referenced files are copied all the same. Root is
// refused ([ErrInvalid]), as it could write into the blobs.
func (s *Store) Checkout(ctx context.Context, tree Digest, dir string, o CheckoutOptions) error {
	if o.Link && os.Geteuid() == 0 {
		return fmt.Errorf("check out to %s: hard links are refused for root, who could write into the store through them; check out without links: %w", dir, ErrInvalid)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("check out to %s: %w", dir, err)
	}
	release, err := s.wholeTree(ctx, tree, o.Progress)
	if err != nil {
		return fmt.Errorf("check out to %s: %w", dir, err)
	}
	defer release()
	c := &checkout{s: s, o: o, dir: dir}
	if err := c.run(ctx, tree, dir); err != nil {
		return fmt.Errorf("check out to %s: %w", dir, checkoutSpace(err))
	}
	return nil
}

// checkoutSpace makes a full disk [ErrNoSpace].
func checkoutSpace(err error) error {
	switch {
	case !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT):
		return err
	case !errors.Is(err, ErrNoSpace):
		err = fmt.Errorf("%w: %w", err, ErrNoSpace)
	}
	return fmt.Errorf("%w: free some there or choose another directory", err)
}

// checkout writes one tree.
type checkout struct {
	s   *Store
	o   CheckoutOptions
	dir string // that is filled

	dirs  []checkoutEntry // parents first
	files []checkoutEntry
	links []checkoutEntry
	total int64 // bytes

	bytes, done atomic.Int64
	noXattrs    atomic.Bool // the filesystem takes none
}

type checkoutEntry struct {
	path  string // absolute
	e     Entry
	attrs Attrs // of the entry, and for the file of a single-file tree of the tree
}

func (c *checkout) run(ctx context.Context, tree Digest, dir string) error {
	release, err := c.s.hold(ctx, "a checkout", tree)
	if err != nil {
		return err
	}
	defer release()
	target := checkoutTarget(dir)
	c.dir = target.fill
	if err := c.plan(ctx, tree); err != nil {
		return err
	}
	undo, err := target.make()
	if err != nil {
		return err
	}
	defer target.close()
	fault.At(fault.CheckoutMade)
	if err := c.write(ctx); err != nil {
		return also(err, undo())
	}
	fault.At(fault.CheckoutFilled)
	if err := target.name(); err != nil {
		return also(err, undo())
	}
	return nil
}

// plan lists what is to be made, before anything is.
func (c *checkout) plan(ctx context.Context, tree Digest) error {
	t, err := c.s.Tree(ctx, tree)
	if err != nil {
		return err
	}
	c.dirs = append(c.dirs, checkoutEntry{c.dir, Entry{Kind: KindDir}, t.Attrs})
	return c.s.Walk(ctx, tree, func(path string, e Entry) error {
		ce := checkoutEntry{filepath.Join(c.dir, filepath.FromSlash(path)), e, e.Attrs}
		switch e.Kind {
		case KindDir:
			c.dirs = append(c.dirs, ce)
		case KindSymlink:
			c.links = append(c.links, ce)
		default:
			if t.Single {
				for _, a := range t.Attrs {
					if _, ok := ce.attrs.Get(a.Key); !ok {
						ce.attrs = ce.attrs.With(a.Key, a.Value)
					}
				}
			}
			c.files = append(c.files, ce)
			c.total += e.Size
		}
		return nil
	})
}

func (c *checkout) write(ctx context.Context) error {
	for _, d := range c.dirs[1:] {
		if err := os.Mkdir(d.path, 0o755); err != nil {
			return err
		}
	}
	for _, l := range c.links {
		if err := os.Symlink(l.e.Target, l.path); err != nil {
			return err
		}
	}
	c.report()
	err := parallel(ctx, len(c.files), max(4, runtime.GOMAXPROCS(0)), func(ctx context.Context, i int) error {
		if err := c.file(ctx, c.files[i]); err != nil {
			return err
		}
		c.bytes.Add(c.files[i].e.Size)
		c.done.Add(1)
		c.report()
		return nil
	})
	if err != nil {
		return err
	}
	// Children first: what is made in a directory changes its time.
	for i := len(c.dirs) - 1; i >= 0; i-- {
		mode := fs.FileMode(0o755)
		if c.o.ReadOnly {
			mode = 0o555
		}
		if err := c.finish(c.dirs[i], mode); err != nil {
			return err
		}
	}
	return nil
}

func (c *checkout) report() {
	if c.o.Progress != nil {
		c.o.Progress(c.bytes.Load(), c.total, c.done.Load(), int64(len(c.files)))
	}
}

func (c *checkout) file(ctx context.Context, ce checkoutEntry) error {
	b, err := c.s.openEntry(ctx, ce.e)
	if err != nil {
		return fmt.Errorf("%s: %w", ce.path, err)
	}
	defer b.Close()
	if c.o.Link && ce.e.Kind == KindFile && !b.Reference() {
		if err := os.Link(b.Name(), ce.path); err != nil {
			return fmt.Errorf("%w: check out without links", err)
		}
		return nil
	}
	mode := fs.FileMode(0o644)
	if ce.e.Kind == KindExecutable {
		mode = 0o755
	}
	f, _, err := cloneOrCopy(ctx, b.File, ce.path, mode)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := b.Check(); err != nil { // a referenced file that changed while it was copied
		return fmt.Errorf("%s: %w", ce.path, err)
	}
	if c.o.ReadOnly {
		mode &^= 0o222
	}
	return c.finish(ce, mode)
}

// finish sets attributes, mode and time, in this order: attributes cannot be
// set on what is read-only.
func (c *checkout) finish(ce checkoutEntry, mode fs.FileMode) error {
	for _, a := range ce.attrs {
		if !strings.HasPrefix(a.Key, MetaPrefix) || c.noXattrs.Load() {
			continue
		}
		err := setXattr(ce.path, a.Key, a.Value)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			c.noXattrs.Store(true)
		case err != nil && xattrTooBig(err):
			c.s.log.Warn("metadata is too long for the filesystem and was left out", "err", err)
		case err != nil:
			return err
		}
	}
	if c.o.ReadOnly {
		if err := os.Chmod(ce.path, mode); err != nil {
			return err
		}
	}
	if text, ok := ce.attrs.Get(MtimeAttr); ok {
		if ns, err := strconv.ParseInt(text, 10, 64); err == nil {
			t := time.Unix(0, ns)
			return os.Chtimes(ce.path, t, t)
		}
	}
	return nil
}
