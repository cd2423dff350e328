package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/curi-store/curi/cas"
)

// place is where the directory or file behind an entry begins: in the tree
// stream, with the length of its encoding, or in the file stream.
type place struct {
	at     int64
	length int64 // of a directory's encoding; 0 of a file
}

// Tree pages are closed when they have treePageSize bytes. A directory with a
// longer encoding has pages of its own.
const treePageSize = 32 << 10

// Kinds of tree pages.
const (
	wholeTrees = 1
	partOfTree = 2
)

// A page of whole trees:
//
//	kind count tree*
//	tree = length encoding places
//
// A page with a part of one tree:
//
//	kind size offset length first count bytes nodes node*64 places
//
// size is the length of the tree's encoding. The bytes are whole groups of
// 16 KiB of it, from offset on, and the nodes are those of its outboard that
// lead from the digest to them, in the order in which a reader needs them.
// count entries begin at first, counted from offset, and end in the page.
//
// places has for each entry that is a file the number of bytes from where the
// file before it in the page ended in the stream to where it begins, for each
// directory where it begins in the tree stream and how long it is, for a
// symbolic link nothing. A file's number is signed: shifted left by one, the
// bits inverted if it is negative.

// appendPlaces appends the places of the entries; next is where a file lies
// that takes no more than one byte to say so.
func appendPlaces(b []byte, entries []cas.Entry, places []place, next int64) ([]byte, int64) {
	for i, e := range entries {
		switch {
		case e.IsRegular():
			b = binary.AppendVarint(b, places[i].at-next)
			next = places[i].at + e.Size
		case e.Kind == cas.KindDir:
			b = binary.AppendUvarint(b, uint64(places[i].at))
			b = binary.AppendUvarint(b, uint64(places[i].length))
		}
	}
	return b, next
}

func (d *decoder) places(entries []cas.Entry, next int64, h *recipeHead) ([]place, int64) {
	places := make([]place, len(entries))
	for i, e := range entries {
		p := &places[i]
		switch {
		case e.IsRegular():
			v, n := binary.Varint(d.b)
			if n <= 0 {
				d.fail("cut off or too large a number")
				return nil, 0
			}
			d.b = d.b[n:]
			// Both are below 2^60, or the next line refuses them.
			if v < -maxStream || v > maxStream {
				d.fail("a file outside the stream")
				return nil, 0
			}
			p.at = next + v
			if p.at < 0 || e.Size > h.stream || p.at > h.stream-e.Size {
				d.fail("a file outside the stream")
				return nil, 0
			}
			next = p.at + e.Size
		case e.Kind == cas.KindDir:
			p.at = d.num(h.trees)
			p.length = d.num(h.trees - p.at)
		}
	}
	return places, next
}

// placedTree is a directory whose entries have places.
type placedTree struct {
	tree   *cas.Tree
	places []place
}

// pageTree is a tree of a page of whole trees. It is not verified.
type pageTree struct {
	at  int64 // in the tree stream
	enc []byte
	placedTree
}

// parseWhole parses a page of whole trees that begins at start of the tree
// stream, and whose files begin at lo.
func parseWhole(page []byte, start, lo int64, h *recipeHead) ([]pageTree, error) {
	d := &decoder{b: page}
	fail := func(err error) ([]pageTree, error) {
		if !errors.Is(err, cas.ErrFormat) {
			err = fmt.Errorf("%w: %w", err, cas.ErrCorrupt)
		}
		return nil, fmt.Errorf("tree page: %w", err)
	}
	if k := d.take(1); k == nil || k[0] != wholeTrees {
		return fail(errors.New("no whole trees in it"))
	}
	n := d.count(2)
	list := make([]pageTree, 0, min(n, 256))
	next := lo
	for range n {
		p := pageTree{at: start, enc: d.take(d.count(1))}
		if d.err != nil {
			return fail(d.err)
		}
		var err error
		if p.tree, err = cas.ParseTree(p.enc); err != nil {
			return fail(err)
		}
		if p.places, next = d.places(p.tree.Entries, next, h); d.err != nil {
			return fail(d.err)
		}
		start += int64(len(p.enc))
		list = append(list, p)
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail("something follows the last tree")
	}
	if d.err != nil {
		return fail(d.err)
	}
	return list, nil
}

// treePart is a part of a directory, verified.
type treePart struct {
	offset  int64 // in the encoding
	bytes   []byte
	first   int // where in bytes the first entry begins
	entries []cas.Entry
	places  []place
}

// parsePart parses and verifies a page with a part of the tree digest, whose
// encoding has size bytes.
func parsePart(page []byte, lo int64, digest cas.Digest, size int64, h *recipeHead) (treePart, error) {
	d := &decoder{b: page}
	var p treePart
	fail := func(err error) (treePart, error) {
		return treePart{}, fmt.Errorf("tree page for %s: %w: %w", digest.Short(), err, cas.ErrCorrupt)
	}
	if k := d.take(1); k == nil || k[0] != partOfTree {
		return fail(errors.New("no part of a tree in it"))
	}
	if d.num(maxStream) != size {
		d.fail("of a tree of another size")
	}
	p.offset = d.num(size)
	length := d.count(1)
	p.first = int(d.num(int64(length)))
	n := int(d.num(int64(length)))
	p.bytes = d.take(length)
	nodes := d.take(d.count(64) * 64)
	if d.err != nil {
		return fail(d.err)
	}
	o, err := cas.ParseOutboard(&replayedNodes{head: cas.OutboardHead(size), nodes: nodes}, cas.OutboardSize(size), digest)
	if err == nil {
		err = o.Verify(p.bytes, p.offset)
	}
	if err != nil {
		return fail(err)
	}
	if p.entries, _, err = cas.ParseEntries(p.bytes[p.first:], n); err != nil {
		return fail(err)
	}
	if p.places, _ = d.places(p.entries, lo, h); d.err == nil && len(d.b) != 0 {
		d.fail("something follows the page")
	}
	if d.err != nil {
		return fail(d.err)
	}
	return p, nil
}

// replayedNodes yields nodes of an outboard in the order in which they were
// recorded, wherever in the outboard they lie.
type replayedNodes struct {
	head  []byte
	nodes []byte
}

func (r *replayedNodes) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		return copy(p, r.head), nil
	}
	if len(r.nodes) < len(p) {
		return 0, io.EOF
	}
	n := copy(p, r.nodes)
	r.nodes = r.nodes[n:]
	return n, nil
}

// recordedNodes notes the nodes that are read of an outboard.
type recordedNodes struct {
	*bytes.Reader
	nodes []byte
}

func (r *recordedNodes) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.Reader.ReadAt(p, off)
	if off != 0 {
		r.nodes = append(r.nodes, p[:n]...)
	}
	return n, err
}

// pageOf finds the tree page in which position at of the tree stream begins.
func (h *recipeHead) pageOf(at int64) int {
	return sort.Search(len(h.treePages), func(i int) bool { return h.treePages[i].start > at }) - 1
}

// isPart reports whether the directory at at has pages of its own; they are
// from to to.
func (h *recipeHead) partPages(at, length int64) (from, to int) {
	from = h.pageOf(at)
	for to = from; to < len(h.treePages) && h.treePages[to].start < at+length; to++ {
	}
	return from, to
}
