//go:build linux

package fusefs

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// treeDir is a directory of a stored tree. Nothing in it ever changes.
type treeDir struct {
	readOnly
	digest cas.Digest
	attrs  cas.Attrs // of the entry that led here
	// given is what the file of a [cas.Tree.Single] tree shows of the tree's
	// own attributes, on its way through the directories above the file.
	given cas.Attrs

	mu   sync.Mutex
	tree *cas.Tree
}

// shownTree is the tree d as a directory.
func (f *filesystem) shownTree(d cas.Digest, attrs cas.Attrs) shown {
	if f.isLazy(d) {
		return f.shownLazyTree("", d, attrs)
	}
	return f.shownDir(cas.Entry{Kind: cas.KindDir, Digest: d, Attrs: attrs}, nil)
}

func (f *filesystem) shownDir(e cas.Entry, given cas.Attrs) shown {
	ident := "tree:" + e.Digest.String() + attrIdent(e.Attrs)
	return shown{
		ident:  ident,
		stable: fs.StableAttr{Mode: syscall.S_IFDIR},
		attr:   dated(f.fixed(syscall.S_IFDIR|0o555, 0, 0), e.Attrs),
		make: func() fs.InodeEmbedder {
			return &treeDir{readOnly: readOnly{f: f, ident: ident}, digest: e.Digest, attrs: e.Attrs, given: given}
		},
	}
}

// shownEntry is an entry of a tree; given goes to the file of a Single tree.
func (f *filesystem) shownEntry(e cas.Entry, given cas.Attrs) shown {
	switch e.Kind {
	case cas.KindDir:
		return f.shownDir(e, given)
	case cas.KindSymlink:
		return f.shownLink(e.Target, e.Attrs)
	}
	return f.shownFile(e, given)
}

func (f *filesystem) shownFile(e cas.Entry, given cas.Attrs) shown {
	attrs, mode := fileAttrs(e, given), fileMode(e)
	stable := fileID(e.Digest, mode, attrs)
	ident := "file:" + e.Digest.String() + attrIdent(attrs)
	if e.Kind == cas.KindExecutable {
		ident += "x"
	}
	return shown{
		ident: ident, stable: stable, attr: dated(f.fixed(mode, e.Size, stable.Ino), attrs),
		make: func() fs.InodeEmbedder {
			return &treeFile{readOnly: readOnly{f: f, ident: ident}, digest: e.Digest, mode: mode, size: e.Size, attrs: attrs}
		},
	}
}

// fileAttrs is the attributes of a file; its own win over those it is given.
func fileAttrs(e cas.Entry, given cas.Attrs) cas.Attrs {
	attrs := given
	for _, a := range e.Attrs {
		attrs = attrs.With(a.Key, a.Value)
	}
	return attrs
}

func fileMode(e cas.Entry) uint32 {
	if e.Kind == cas.KindExecutable {
		return syscall.S_IFREG | 0o555
	}
	return syscall.S_IFREG | 0o444
}

func (f *filesystem) shownLink(target string, attrs cas.Attrs) shown {
	ident := "link:" + target
	return shown{
		ident: ident, stable: fs.StableAttr{Mode: syscall.S_IFLNK},
		attr: f.fixed(syscall.S_IFLNK|0o777, int64(len(target)), 0),
		make: func() fs.InodeEmbedder {
			return &link{readOnly: readOnly{f: f, ident: ident}, target: target, attrs: attrs}
		},
	}
}

func attrIdent(attrs cas.Attrs) string {
	var b strings.Builder
	for _, a := range attrs {
		b.WriteString("\x00" + a.Key + "\x00" + a.Value)
	}
	return b.String()
}

// fileID is the inode of a file by what it shows: equal files share one, and
// with it their pages in the cache. Another 64 bits of the hash are the
// generation, so that two files whose inode numbers collide stay two nodes.
// The numbers lie in 1<<62 up to 1<<63, above those of staging files and below
// those given to directories.
func fileID(d cas.Digest, mode uint32, attrs cas.Attrs) fs.StableAttr {
	if mode&0o111 != 0 || len(attrs) > 0 {
		b := binary.BigEndian.AppendUint32(d[:], mode)
		for _, a := range attrs {
			b = binary.BigEndian.AppendUint32(b, uint32(len(a.Key)))
			b = append(b, a.Key...)
			b = binary.BigEndian.AppendUint32(b, uint32(len(a.Value)))
			b = append(b, a.Value...)
		}
		d = cas.Sum(b)
	}
	return fs.StableAttr{
		Mode: syscall.S_IFREG,
		Ino:  binary.BigEndian.Uint64(d[:])>>2 | 1<<62,
		Gen:  binary.BigEndian.Uint64(d[8:]),
	}
}

// dated gives a the modification time that a snapshot of a work directory kept:
// programs choose the newest checkpoint by it.
func dated(a fuse.Attr, attrs cas.Attrs) fuse.Attr {
	v, ok := attrs.Get(cas.MtimeAttr)
	if !ok {
		return a
	}
	if ns, err := strconv.ParseInt(v, 10, 64); err == nil && ns >= 0 {
		a.Mtime, a.Mtimensec = uint64(ns/1e9), uint32(ns%1e9)
	}
	return a
}

// load reads the tree once and keeps it for as long as the kernel knows the node.
func (n *treeDir) load(ctx context.Context) (*cas.Tree, syscall.Errno) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tree == nil {
		t, err := n.f.store.Tree(ctx, n.digest)
		if err != nil {
			return nil, n.f.damaged("a directory", err)
		}
		n.tree = t
	}
	return n.tree, 0
}

func (n *treeDir) OnForget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tree = nil
}

func (n *treeDir) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = dated(n.f.fixed(syscall.S_IFDIR|0o555, 0, n.StableAttr().Ino), n.attrs)
	out.SetTimeout(forever)
	return 0
}

func (n *treeDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	t, errno := n.load(ctx)
	if errno != 0 {
		return nil, errno
	}
	e, ok := t.Lookup(name)
	if !ok {
		// Never to be asked again: nothing appears in a tree.
		out.SetEntryTimeout(forever)
		return nil, syscall.ENOENT
	}
	given := n.given
	if t.Single {
		given = t.Attrs
	}
	s := n.f.shownEntry(e, given)
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

func (n *treeDir) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	t, errno := n.load(ctx)
	if errno != 0 {
		return nil, 0, errno
	}
	list := make([]fuse.DirEntry, 0, len(t.Entries))
	for _, e := range t.Entries {
		list = append(list, fuse.DirEntry{Name: e.Name, Mode: kindMode(e.Kind)})
	}
	return fs.NewListDirStream(withDots(list)), fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

func kindMode(k cas.Kind) uint32 {
	switch k {
	case cas.KindDir:
		return syscall.S_IFDIR
	case cas.KindSymlink:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// shownAttrs is the entry's attributes and those in the tree's header.
func (n *treeDir) shownAttrs(ctx context.Context) (cas.Attrs, syscall.Errno) {
	t, errno := n.load(ctx)
	if errno != 0 {
		return nil, errno
	}
	return dirAttrs(t, n.attrs), 0
}

// dirAttrs adds the attributes in a tree's header to those of the entry that
// led to it.
func dirAttrs(t *cas.Tree, attrs cas.Attrs) cas.Attrs {
	for _, a := range t.Attrs {
		attrs = attrs.With(a.Key, a.Value)
	}
	return attrs
}

func (n *treeDir) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	attrs, errno := n.shownAttrs(ctx)
	if errno != 0 {
		return 0, errno
	}
	return getAttr(attrs, attr, dest)
}

func (n *treeDir) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	attrs, errno := n.shownAttrs(ctx)
	if errno != 0 {
		return 0, errno
	}
	return listAttrs(attrs, dest)
}

// Only attributes of the user namespace are shown; the others are Curi's own.
func isUserAttr(key string) bool { return strings.HasPrefix(key, "user.") }

// noAttr is the answer for an attribute that is not there: there are no
// namespaces but the system's.
func noAttr(key string) syscall.Errno {
	for _, namespace := range []string{"user.", "security.", "system.", "trusted."} {
		if strings.HasPrefix(key, namespace) {
			return syscall.ENODATA
		}
	}
	return syscall.EOPNOTSUPP
}

func getAttr(attrs cas.Attrs, key string, dest []byte) (uint32, syscall.Errno) {
	v, ok := attrs.Get(key)
	if !ok || !isUserAttr(key) {
		return 0, noAttr(key)
	}
	return attrValue([]byte(v), dest)
}

func listAttrs(attrs cas.Attrs, dest []byte) (uint32, syscall.Errno) {
	var b []byte
	for _, a := range attrs {
		if isUserAttr(a.Key) {
			b = append(append(b, a.Key...), 0)
		}
	}
	return attrValue(b, dest)
}

// link is a symbolic link that nobody can change.
type link struct {
	readOnly
	target string
	attrs  cas.Attrs
}

func (n *link) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = n.f.fixed(syscall.S_IFLNK|0o777, int64(len(n.target)), n.StableAttr().Ino)
	out.SetTimeout(forever)
	return 0
}

func (n *link) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	return slices.Clone([]byte(n.target)), 0
}
