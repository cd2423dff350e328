package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/curi-store/curi/cas"
)

// A recipe tells where everything of one tree lies (docs/format.md, "Recipe").
// Two streams are thought of: the encodings of all directories one after the
// other, parents before what is in them, and the bytes of all files. The first
// stands in the recipe itself, in tree pages, and each entry in it has its
// place: where in one of the streams its directory or file begins. The second
// is cut into chunks, which lie in packs; the chunk pages list them in order.
//
//	recipe = fixed head treePage* chunkPage*
//
// Head and pages are zstd frames. Numbers are LEB128, in fixed little-endian.
const (
	recipeMagic   = "curirecp"
	recipeVersion = 1
	recipeFixed   = 64

	maxHead = 32 << 20 // bytes of a head, decompressed
	maxPage = 1 << 20  // bytes of a page, decompressed
	// maxPages bounds the pages of each kind: 64 GiB of directories, 32 TiB of
	// files. A head of so many takes a quarter of a GiB of memory, and is the
	// most that a hostile one can make a reader take.
	maxPages = 1 << 21
	// maxStored is the most bytes that the stored form of a page or a chunk has.
	maxStored = maxPage + maxPage/64
	// maxStream bounds both streams.
	maxStream = 1 << 60
)

// pageInfo is where a page lies.
type pageInfo struct {
	at, stored int64 // in the recipe
	raw        int   // decompressed
}

// treePageInfo is what the head says of a tree page.
type treePageInfo struct {
	pageInfo
	start  int64  // position in the tree stream of the first byte that begins here
	first  string // of a page that continues a directory: the first name in it
	lo, hi int64  // the files in it that come first here lie in this part of the file stream
}

// chunkPageInfo is what the head says of a chunk page.
type chunkPageInfo struct {
	pageInfo
	start, end int64 // in the file stream
}

// recipeHead is the head of a recipe, parsed.
type recipeHead struct {
	root       cas.Digest
	rootLen    int64 // of the root's encoding, at 0 of the tree stream
	files      int64
	bytes      int64
	trees      int64 // length of the tree stream
	stream     int64 // length of the file stream
	treePages  []treePageInfo
	chunkPages []chunkPageInfo
	size       int64 // of the whole recipe
}

// fixedHead is the beginning of a recipe.
func (h *recipeHead) fixedHead(stored, raw int) []byte {
	b := make([]byte, recipeFixed)
	copy(b, recipeMagic)
	b[8] = recipeVersion
	binary.LittleEndian.PutUint32(b[16:], uint32(stored))
	binary.LittleEndian.PutUint32(b[20:], uint32(raw))
	binary.LittleEndian.PutUint64(b[24:], uint64(h.size))
	copy(b[32:], h.root[:])
	return b
}

// parseFixed returns the lengths of the head and of the recipe.
func parseFixed(b []byte, root cas.Digest) (stored, raw int, size int64, err error) {
	bad := func(why string) error { return fmt.Errorf("recipe of %s: %s: %w", root.Short(), why, cas.ErrCorrupt) }
	if len(b) < recipeFixed || string(b[:8]) != recipeMagic {
		return 0, 0, 0, bad("does not begin like one")
	}
	if b[8] != recipeVersion {
		return 0, 0, 0, fmt.Errorf("recipe of %s: version %d is unknown to this Curi; use a newer Curi: %w", root.Short(), b[8], cas.ErrFormat)
	}
	stored, raw = int(binary.LittleEndian.Uint32(b[16:])), int(binary.LittleEndian.Uint32(b[20:]))
	size = int64(binary.LittleEndian.Uint64(b[24:]))
	switch {
	case cas.Digest(b[32:64]) != root:
		return 0, 0, 0, bad("it is that of another tree")
	case stored > maxHead || raw > maxHead || size < recipeFixed+int64(stored):
		return 0, 0, 0, bad("impossible lengths")
	}
	return stored, raw, size, nil
}

func (h *recipeHead) encode() []byte {
	var b []byte
	num := func(vs ...int64) {
		for _, v := range vs {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	num(h.rootLen, h.files, h.bytes, h.trees, h.stream)
	num(int64(len(h.treePages)))
	var at int64
	for _, p := range h.treePages {
		num(p.stored, int64(p.raw), p.start-at, p.lo, p.hi-p.lo, int64(len(p.first)))
		b = append(b, p.first...)
		at = p.start
	}
	num(int64(len(h.chunkPages)))
	for _, p := range h.chunkPages {
		num(p.stored, int64(p.raw), p.end-p.start)
	}
	return b
}

// parseHead parses a head; at is where the first page begins, size the length
// of the recipe, which the pages fill.
func parseHead(b []byte, root cas.Digest, at, size int64) (*recipeHead, error) {
	d := &decoder{b: b}
	h := &recipeHead{root: root, size: size}
	h.rootLen, h.files, h.bytes = d.num(maxStream), d.num(math.MaxInt64), d.num(math.MaxInt64)
	h.trees, h.stream = d.num(maxStream), d.num(maxStream)
	if n := d.pages(6); n > 0 {
		h.treePages = make([]treePageInfo, 0, n)
		var start int64
		for range n {
			p := treePageInfo{pageInfo: pageInfo{at, d.num(maxStored), int(d.num(maxPage))}, start: start + d.num(maxStream)}
			p.lo = d.num(h.stream)
			p.hi = p.lo + d.num(h.stream-p.lo)
			p.first = string(d.take(d.count(1)))
			if p.start > h.trees || p.start == start && len(h.treePages) > 0 || p.stored > size-at {
				d.fail("a tree page out of order")
			}
			if d.err != nil {
				break
			}
			at, start = at+p.stored, p.start
			h.treePages = append(h.treePages, p)
		}
	}
	if n := d.pages(3); n > 0 {
		h.chunkPages = make([]chunkPageInfo, 0, n)
		var start int64
		for range n {
			p := chunkPageInfo{pageInfo: pageInfo{at, d.num(maxStored), int(d.num(maxPage))}, start: start}
			p.end = start + d.num(h.stream-start)
			if p.stored > size-at || p.end == p.start {
				d.fail("a chunk page out of order")
			}
			if d.err != nil {
				break
			}
			at, start = at+p.stored, p.end
			h.chunkPages = append(h.chunkPages, p)
		}
		if d.err == nil && start != h.stream {
			d.fail("the chunk pages end before the files do")
		}
	} else if h.stream != 0 {
		d.fail("no chunk pages")
	}
	switch {
	case d.err != nil:
	case len(d.b) != 0:
		d.fail("something follows the head")
	case at != size:
		d.fail("the pages do not fill it")
	case len(h.treePages) == 0 || h.treePages[0].start != 0 || h.rootLen > h.trees || h.rootLen == 0:
		d.fail("the root is missing")
	}
	if d.err != nil {
		return nil, fmt.Errorf("recipe of %s: %w: %w", root.Short(), d.err, cas.ErrCorrupt)
	}
	return h, nil
}

// decoder takes values off the front of b; after the first error it yields
// zero values.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = errors.New(why)
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if d.err != nil || n < 0 || n > len(d.b) {
		d.fail("cut off")
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

// num reads a number of at most limit.
func (d *decoder) num(limit int64) int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("cut off or too large a number")
		return 0
	}
	if v > uint64(limit) {
		d.fail(fmt.Sprintf("the number %d is out of bounds", v))
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

// pages reads how many pages are described, each by at least size bytes.
func (d *decoder) pages(size int) int {
	n := d.count(size)
	if n > maxPages {
		d.fail(fmt.Sprintf("%d pages, at most %d can be", n, maxPages))
		return 0
	}
	return n
}

// count reads how many items follow, each of at least size bytes.
func (d *decoder) count(size int) int {
	return int(d.num(int64(len(d.b) / size)))
}
