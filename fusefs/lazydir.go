//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A tree that only a remote has is shown by nodes of its own: that its names
// and bytes are there is known, but they may take a while to come, or not come
// now. They share no inode with the files of trees that are here.

// lazyDir is a directory of a tree that is not here whole. Nothing in it ever
// changes.
type lazyDir struct {
	readOnly
	digest cas.Digest
	attrs  cas.Attrs // of the entry that led here
	given  cas.Attrs // see [treeDir]
	// open opens the tree that the directory is in, and finds it there.
	open func(ctx context.Context) (*cas.LazyTree, cas.LazyEntry, error)

	loading chan struct{} // holds a value unless somebody loads
	// Of the directory once it was read whole; both nil before.
	tree    *cas.Tree
	entries []cas.LazyEntry
	talk    quietly
}

// isLazy reports whether only a remote has a tree.
func (f *filesystem) isLazy(d cas.Digest) bool {
	return !f.store.HasTree(d) && f.store.HasLazyTree(d)
}

// shownLazyTree is the tree d, which a remote has, as a directory; "" is for the
// one that the store knows.
func (f *filesystem) shownLazyTree(remote string, d cas.Digest, attrs cas.Attrs) shown {
	open := func(ctx context.Context) (*cas.LazyTree, cas.LazyEntry, error) {
		var t *cas.LazyTree
		var err error
		if remote == "" {
			t, err = f.store.OpenLazyTree(ctx, d)
		} else {
			t, err = f.store.OpenTreeOf(ctx, remote, d)
		}
		if err != nil {
			return nil, cas.LazyEntry{}, err
		}
		root, err := t.Root(ctx)
		return t, root, err
	}
	return f.shownLazyDir(cas.Entry{Kind: cas.KindDir, Digest: d, Attrs: attrs}, nil, open)
}

func (f *filesystem) shownLazyDir(e cas.Entry, given cas.Attrs, open func(context.Context) (*cas.LazyTree, cas.LazyEntry, error)) shown {
	f.interrupts.used.Store(true)
	ident := "lazy:" + e.Digest.String() + attrIdent(e.Attrs)
	return shown{
		ident:  ident,
		stable: fs.StableAttr{Mode: syscall.S_IFDIR},
		attr:   dated(f.fixed(syscall.S_IFDIR|0o555, 0, 0), e.Attrs),
		make: func() fs.InodeEmbedder {
			n := &lazyDir{readOnly: readOnly{f: f, ident: ident}, digest: e.Digest, attrs: e.Attrs, given: given, open: open, loading: make(chan struct{}, 1)}
			n.loading <- struct{}{}
			return n
		},
	}
}

// shownLazyEntry is an entry of a directory of t; given as for shownEntry.
func (f *filesystem) shownLazyEntry(t *cas.LazyTree, e cas.LazyEntry, given cas.Attrs) shown {
	switch {
	case e.Kind == cas.KindDir:
		return f.shownLazyDir(e.Entry, given, func(context.Context) (*cas.LazyTree, cas.LazyEntry, error) { return t, e, nil })
	case e.Kind == cas.KindSymlink:
		return f.shownLink(e.Target, e.Attrs)
	}
	return f.shownLazyFile(t, e, given)
}

// shownInside is what a tree has under a name, whether the tree is here or not.
func (f *filesystem) shownInside(ctx context.Context, tree cas.Digest, name string) (shown, error) {
	if !f.isLazy(tree) {
		e, err := f.store.Lookup(ctx, tree, name)
		if err != nil {
			return shown{}, err
		}
		return f.shownEntry(e, nil), nil
	}
	t, err := f.store.OpenLazyTree(ctx, tree)
	if err != nil {
		return shown{}, err
	}
	root, err := t.Root(ctx)
	if err != nil {
		return shown{}, err
	}
	e, err := t.Lookup(ctx, root, name)
	if err != nil {
		return shown{}, err
	}
	return f.shownLazyEntry(t, e, nil), nil
}

// held takes the right to load.
func (n *lazyDir) hold(ctx context.Context) (release func(), err error) {
	select {
	case <-n.loading:
		return func() { n.loading <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// load reads the directory whole, once.
func (n *lazyDir) load(ctx context.Context) (*cas.Tree, []cas.LazyEntry, *cas.LazyTree, error) {
	release, err := n.hold(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	defer release()
	t, at, err := n.open(ctx)
	if err == nil && n.tree == nil {
		n.tree, n.entries, err = t.Tree(ctx, at)
	}
	return n.tree, n.entries, t, err
}

func (n *lazyDir) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = dated(n.f.fixed(syscall.S_IFDIR|0o555, 0, n.StableAttr().Ino), n.attrs)
	out.SetTimeout(forever)
	return 0
}

// find finds a name, in a large directory without reading it whole.
func (n *lazyDir) find(ctx context.Context, name string) (shown, error) {
	release, err := n.hold(ctx)
	if err != nil {
		return shown{}, err
	}
	whole := n.tree != nil
	release()
	if !whole {
		t, at, err := n.open(ctx)
		if err != nil {
			return shown{}, err
		}
		large, err := t.Large(ctx, at)
		if err != nil {
			return shown{}, err
		}
		if large { // and so not [cas.Tree.Single]
			e, err := t.Lookup(ctx, at, name)
			if err != nil {
				return shown{}, err
			}
			return n.f.shownLazyEntry(t, e, n.given), nil
		}
	}
	tree, entries, t, err := n.load(ctx)
	if err != nil {
		return shown{}, err
	}
	i, ok := slices.BinarySearchFunc(entries, name, func(e cas.LazyEntry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		return shown{}, fmt.Errorf("%s: %w", name, cas.ErrNotFound)
	}
	given := n.given
	if tree.Single {
		given = tree.Attrs
	}
	return n.f.shownLazyEntry(t, entries[i], given), nil
}

func (n *lazyDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	wait, done := n.f.untilKilled(ctx)
	defer done()
	s, err := n.find(wait, name)
	if errors.Is(err, cas.ErrNotFound) {
		// Never to be asked again: nothing appears in a tree.
		out.SetEntryTimeout(forever)
		return nil, syscall.ENOENT
	}
	if err != nil {
		return nil, n.failed(err)
	}
	ch := n.GetChild(name)
	if ch == nil {
		ch = n.NewInode(ctx, s.make(), s.stable)
	}
	out.Attr = s.attr
	out.Attr.Ino = ch.StableAttr().Ino
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return ch, 0
}

func (n *lazyDir) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	wait, done := n.f.untilKilled(ctx)
	defer done()
	tree, _, _, err := n.load(wait)
	if err != nil {
		return nil, 0, n.failed(err)
	}
	list := make([]fuse.DirEntry, 0, len(tree.Entries))
	for _, e := range tree.Entries {
		list = append(list, fuse.DirEntry{Name: e.Name, Mode: kindMode(e.Kind)})
	}
	return fs.NewListDirStream(withDots(list)), fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

func (n *lazyDir) shownAttrs(ctx context.Context) (cas.Attrs, syscall.Errno) {
	wait, done := n.f.untilKilled(ctx)
	defer done()
	tree, _, _, err := n.load(wait)
	if err != nil {
		return nil, n.failed(err)
	}
	return dirAttrs(tree, n.attrs), 0
}

func (n *lazyDir) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if !isUserAttr(attr) {
		return 0, noAttr(attr) // "ls -l" asks for others: not worth a request
	}
	attrs, errno := n.shownAttrs(ctx)
	if errno != 0 {
		return 0, errno
	}
	return getAttr(attrs, attr, dest)
}

func (n *lazyDir) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	attrs, errno := n.shownAttrs(ctx)
	if errno != 0 {
		return 0, errno
	}
	return listAttrs(attrs, dest)
}

func (n *lazyDir) failed(err error) syscall.Errno {
	return n.f.notHad(&n.talk, "a directory", n.digest, err)
}
