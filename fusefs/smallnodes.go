//go:build linux

package fusefs

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// smallNodes is the filesystem of the connection for trees of small files. Its
// root shows those trees by digest, to those who know one. It keeps the trees
// of the directories that the kernel knows and nothing for each file: the
// number of a node says in which directory, and the how manieth entry, it is.
type smallNodes struct {
	fuse.RawFileSystem // what is not below is not implemented
	f                  *filesystem
	trees              smallTrees

	mu    sync.Mutex
	dirs  map[uint64]*smallDir     // by number
	roots map[cas.Digest]*smallDir // those that the root shows
	last  uint64                   // number given; none is given twice
}

// smallDir is a directory that the kernel knows.
type smallDir struct {
	number   uint64
	ino      uint64 // that programs see; the same each time
	digest   cas.Digest
	attrs    cas.Attrs // of the entry that led here
	given    cas.Attrs // see [treeDir]
	up       *smallDir // nil for a tree's root
	index    int       // in up's tree
	lookups  uint64    // the kernel's, of this directory and its files
	children map[int]*smallDir

	loading sync.Mutex
	tree    *cas.Tree // nil until it is needed
}

// A node's number is that of its directory and, from 1 on, the place of the
// entry in it; 0 is the directory itself. The first is 1, so that none is
// [fuse.FUSE_ROOT_ID].
const (
	entryBits  = 24
	maxEntries = 1<<entryBits - 2
)

func newSmallNodes(f *filesystem) *smallNodes {
	return &smallNodes{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), f: f, trees: smallTrees{store: f.store},
		dirs: map[uint64]*smallDir{}, roots: map[cas.Digest]*smallDir{},
	}
}

func (n *smallNodes) String() string { return "curi" }

// smallNode is what a number stands for.
type smallNode struct {
	dir   *smallDir // the node, or where it is
	index int       // of a file or link in dir; -1 for dir itself
	entry cas.Entry // unless it is dir itself
	given cas.Attrs // what a [cas.Tree.Single] tree gives its file
}

// node finds the node of a number other than the root's.
func (n *smallNodes) node(id uint64) (smallNode, syscall.Errno) {
	n.mu.Lock()
	d := n.dirs[id>>entryBits]
	n.mu.Unlock()
	if d == nil {
		return smallNode{}, syscall.ESTALE
	}
	index := int(id&(1<<entryBits-1)) - 1
	if index < 0 {
		return smallNode{dir: d, index: -1}, 0
	}
	t, errno := n.load(d)
	if errno != 0 {
		return smallNode{}, errno
	}
	if index >= len(t.Entries) {
		return smallNode{}, syscall.ESTALE
	}
	return d.node(t, index), 0
}

func (d *smallDir) node(t *cas.Tree, index int) smallNode {
	given := d.given
	if t.Single {
		given = t.Attrs
	}
	return smallNode{dir: d, index: index, entry: t.Entries[index], given: given}
}

// load reads the tree of a directory once.
func (n *smallNodes) load(d *smallDir) (*cas.Tree, syscall.Errno) {
	d.loading.Lock()
	defer d.loading.Unlock()
	if d.tree == nil {
		t, err := n.f.store.Tree(context.Background(), d.digest)
		if err != nil {
			return nil, n.f.damaged("a directory", err)
		}
		d.tree = t
	}
	return d.tree, 0
}

func (n *smallNodes) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if header.NodeId == fuse.FUSE_ROOT_ID {
		return n.lookupRoot(name, out)
	}
	node, errno := n.node(header.NodeId)
	if errno != 0 {
		return fuse.Status(errno)
	}
	t, errno := n.load(node.dir)
	if errno != 0 {
		return fuse.Status(errno)
	}
	index, ok := slices.BinarySearchFunc(t.Entries, name, func(e cas.Entry, name string) int { return strings.Compare(e.Name, name) })
	if !ok {
		out.SetEntryTimeout(forever) // nothing appears in a tree
		return fuse.OK
	}
	n.answer(node.dir.node(t, index), out)
	return fuse.OK
}

// lookupRoot finds a whole tree. The kernel asks each time, so that the answer
// holds when it is given: programs begin below.
func (n *smallNodes) lookupRoot(name string, out *fuse.EntryOut) fuse.Status {
	digest, err := cas.ParseDigest(name)
	if err != nil {
		return fuse.ENOENT
	}
	if ok, err := n.trees.fit(context.Background(), digest); err != nil {
		return fuse.Status(toErrno(err))
	} else if !ok {
		return fuse.ENOENT
	}
	n.mu.Lock()
	d := n.roots[digest]
	if d == nil {
		d = n.add(&smallDir{digest: digest, ino: mixIno(binary.BigEndian.Uint64(digest[:]), 0)})
		n.roots[digest] = d
	}
	d.lookups++
	n.mu.Unlock()
	n.fill(smallNode{dir: d, index: -1}, d.number<<entryBits, out)
	out.SetEntryTimeout(0)
	return fuse.OK
}

// answer tells the kernel of a node, which then counts as known to it.
func (n *smallNodes) answer(node smallNode, out *fuse.EntryOut) {
	n.mu.Lock()
	d := node.dir
	id := d.number<<entryBits | uint64(node.index+1)
	if node.entry.Kind == cas.KindDir {
		d = n.child(node)
		id = d.number << entryBits
		node = smallNode{dir: d, index: -1}
	}
	d.lookups++
	n.mu.Unlock()
	n.fill(node, id, out)
}

// add gives d a number; the caller holds mu.
func (n *smallNodes) add(d *smallDir) *smallDir {
	n.last++
	d.number = n.last
	n.dirs[d.number] = d
	return d
}

// child is the directory of an entry; the caller holds mu.
func (n *smallNodes) child(node smallNode) *smallDir {
	up := node.dir
	if d := up.children[node.index]; d != nil {
		return d
	}
	if up.children == nil {
		up.children = map[int]*smallDir{}
	}
	d := n.add(&smallDir{digest: node.entry.Digest, attrs: node.entry.Attrs, given: node.given, up: up, index: node.index, ino: mixIno(up.ino, node.index)})
	up.children[node.index] = d
	return d
}

func (n *smallNodes) fill(node smallNode, id uint64, out *fuse.EntryOut) {
	out.NodeId, out.Generation = id, 1
	out.Attr = n.attr(node)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
}

// Forget lets a directory go when the kernel knows neither it nor a file in it.
func (n *smallNodes) Forget(id, lookups uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.dirs[id>>entryBits]
	if d == nil {
		return
	}
	if d.lookups -= min(lookups, d.lookups); d.lookups > 0 {
		return
	}
	delete(n.dirs, d.number)
	if d.up != nil {
		delete(d.up.children, d.index)
	} else {
		delete(n.roots, d.digest)
	}
}

func (n *smallNodes) attr(node smallNode) fuse.Attr {
	f, d := n.f, node.dir
	if node.index < 0 {
		return dated(f.fixed(syscall.S_IFDIR|0o555, 0, d.ino), d.attrs)
	}
	e := node.entry
	if e.Kind == cas.KindSymlink {
		return f.fixed(syscall.S_IFLNK|0o777, int64(len(e.Target)), mixIno(d.ino, node.index))
	}
	return dated(f.fixed(fileMode(e), e.Size, mixIno(d.ino, node.index)), fileAttrs(e, node.given))
}

// mixIno is the inode number that programs see of the entry at index in a
// directory: the same each time, and hardly ever one of another entry. The
// numbers lie in the range of those of all files; see [fileID].
func mixIno(dir uint64, index int) uint64 {
	x := dir + uint64(index+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (x^x>>31)>>2 | 1<<62
}

func (n *smallNodes) GetAttr(cancel <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.SetTimeout(forever)
	if input.NodeId == fuse.FUSE_ROOT_ID {
		out.Attr = n.f.fixed(syscall.S_IFDIR|0o555, 0, fuse.FUSE_ROOT_ID)
		return fuse.OK
	}
	node, errno := n.node(input.NodeId)
	if errno != 0 {
		return fuse.Status(errno)
	}
	out.Attr = n.attr(node)
	return fuse.OK
}
