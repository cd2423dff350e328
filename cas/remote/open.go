package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"

	"github.com/curi-store/curi/cas"
)

// firstRead is how much of a recipe is read at once to begin with, in bytes.
// A small tree's recipe is not longer, and the head of most others.
const firstRead = 64 << 10

// Recipe is an open recipe: what a remote has of one tree. It may be used by
// several goroutines at once, and keeps the pages that it read.
type Recipe struct {
	b    Bucket
	key  string
	head *recipeHead
	keep *cas.Pages // where what is read of it is kept; nil: nowhere

	nodes nodeCache

	mu     sync.Mutex
	begin  []byte // the first bytes of the recipe
	pages  map[int64][]byte
	parsed map[int][]pageTree
	held   int64 // bytes in pages and parsed
}

// maxHeld bounds the pages that a recipe keeps, in bytes.
const maxHeld = 64 << 20

// Recipe opens the recipe of a tree; [cas.ErrNotFound] if the remote has none.
// It costs one request, two for trees of several hundred thousand files.
func (r *Remote) Recipe(ctx context.Context, root cas.Digest) (*Recipe, error) {
	return openRecipe(ctx, r.b, root, firstRead, nil)
}

// openRecipe opens a recipe, by a first read of so many bytes, and keeps what
// is read of it in keep, unless that is nil.
func openRecipe(ctx context.Context, b Bucket, root cas.Digest, first int, keep *cas.Pages) (*Recipe, error) {
	var rc *Recipe
	err := again(ctx, func() (err error) {
		rc = &Recipe{b: b, key: recipeKey(root), keep: keep, pages: map[int64][]byte{}, parsed: map[int][]pageTree{}}
		err = rc.open(ctx, root, first)
		if errors.Is(err, cas.ErrCorrupt) && keep != nil {
			keep.Clear() // it may be what is damaged
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rc, nil
}

func (rc *Recipe) open(ctx context.Context, root cas.Digest, first int) error {
	if rc.keep != nil {
		rc.begin = rc.keep.Read(0)
	}
	all := int64(-1) // the length of the object, where it is known
	if rc.begin == nil {
		b := make([]byte, first)
		n, err := rc.b.ReadAt(ctx, rc.key, b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		rc.begin = b[:n]
		if n < first {
			all = int64(n)
		}
		if rc.keep != nil {
			rc.keep.Write(0, rc.begin)
		}
	}
	stored, raw, size, err := parseFixed(rc.begin, root)
	if err != nil {
		return err
	}
	if all >= 0 && size != all {
		// Before memory is taken for what it promises.
		return fmt.Errorf("recipe of %s: it has %d bytes and says %d: %w", root.Short(), all, size, cas.ErrCorrupt)
	}
	packed, err := rc.bytes(ctx, recipeFixed, int64(stored))
	if err != nil {
		return err
	}
	head := make([]byte, raw)
	if err := zstdInto(head, packed); err != nil {
		return fmt.Errorf("recipe of %s: %w", root.Short(), err)
	}
	rc.head, err = parseHead(head, root, recipeFixed+int64(stored), size)
	return err
}

// Root is the tree that the recipe is of.
func (rc *Recipe) Root() Node {
	h := rc.head
	return Node{cas.Entry{Kind: cas.KindDir, Digest: h.root, Size: h.bytes}, place{0, h.rootLen}}
}

// Files is how many files the tree has, as the recipe has it.
func (rc *Recipe) Files() int64 { return rc.head.files }

// Bytes is how many bytes the files of the tree have, as the recipe has it.
func (rc *Recipe) Bytes() int64 { return rc.head.bytes }

// Node is an entry of a tree, verified, and where what it names lies.
type Node struct {
	cas.Entry
	place place
}

// bytes returns a part of the recipe.
func (rc *Recipe) bytes(ctx context.Context, at, n int64) ([]byte, error) {
	rc.mu.Lock()
	begin := rc.begin
	rc.mu.Unlock()
	if at+n <= int64(len(begin)) {
		return begin[at : at+n], nil
	}
	p := make([]byte, n)
	k := 0
	if at < int64(len(begin)) {
		k = copy(p, begin[at:])
	}
	return p, rc.fill(ctx, p[k:], at+int64(k))
}

// has reports whether a page is in memory.
func (rc *Recipe) has(at int64) bool {
	rc.mu.Lock()
	defer rc.mu.Unlock()
	return rc.pages[at] != nil
}

// page returns a page, decompressed.
func (rc *Recipe) page(ctx context.Context, at, stored int64, raw int) ([]byte, error) {
	rc.mu.Lock()
	p, ok := rc.pages[at]
	rc.mu.Unlock()
	if ok {
		return p, nil
	}
	p = make([]byte, raw)
	err := again(ctx, func() error {
		packed, err := rc.bytes(ctx, at, stored)
		if err != nil {
			return err
		}
		if err := zstdInto(p, packed); err != nil {
			rc.distrust(at)
			return fmt.Errorf("%s, page at %d: %w", rc.key, at, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.room(len(p))
	rc.pages[at] = p
	return p, nil
}

// room forgets pages if there are too many; called with mu held.
func (rc *Recipe) room(n int) {
	if rc.held += int64(n); rc.held > maxHeld {
		clear(rc.pages)
		clear(rc.parsed)
		rc.held = int64(n)
	}
}

// Tree reads a directory, whole and verified.
func (rc *Recipe) Tree(ctx context.Context, dir Node) (*cas.Tree, []Node, error) {
	t, places, err := rc.tree(ctx, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read tree %s: %w", dir.Digest, err)
	}
	nodes := make([]Node, len(t.Entries))
	for i, e := range t.Entries {
		nodes[i] = Node{e, places[i]}
	}
	return t, nodes, nil
}

func (rc *Recipe) tree(ctx context.Context, dir Node) (*cas.Tree, []place, error) {
	h := rc.head
	from, to := h.partPages(dir.place.at, dir.place.length)
	if dir.place.length <= treePageSize {
		t, err := rc.whole(ctx, from, dir)
		return t.tree, t.places, err
	}
	// What the pages say together is one encoding: the bytes of each are
	// verified, and they have to meet.
	enc := make([]byte, 0, min(dir.place.length, 16<<20))
	var places []place
	if err := rc.gather(ctx, to-from, func(i int) pageInfo { return h.treePages[from+i].pageInfo }); err != nil {
		return nil, nil, err
	}
	for i := from; i < to; i++ {
		p, err := rc.part(ctx, i, dir)
		if err != nil {
			return nil, nil, err
		}
		// Pages overlap, as entries do not end where groups do.
		if p.offset > int64(len(enc)) {
			return nil, nil, fmt.Errorf("tree pages leave a gap: %w", cas.ErrCorrupt)
		}
		if known := int64(len(enc)) - p.offset; known < int64(len(p.bytes)) {
			enc = append(enc, p.bytes[known:]...)
		}
		places = append(places, p.places...)
	}
	if int64(len(enc)) != dir.place.length || cas.Sum(enc) != dir.Digest {
		return nil, nil, fmt.Errorf("its bytes do not match the digest: %w", cas.ErrCorrupt)
	}
	t, err := cas.ParseTree(enc)
	if err == nil && len(t.Entries) != len(places) {
		err = fmt.Errorf("%d entries have %d places: %w", len(t.Entries), len(places), cas.ErrCorrupt)
	}
	return t, places, err
}

// whole returns a directory of a page of whole trees.
func (rc *Recipe) whole(ctx context.Context, page int, dir Node) (placedTree, error) {
	rc.mu.Lock()
	list, ok := rc.parsed[page]
	rc.mu.Unlock()
	if !ok {
		info := rc.head.treePages[page]
		raw, err := rc.page(ctx, info.at, info.stored, info.raw)
		if err == nil {
			list, err = parseWhole(raw, info.start, info.lo, rc.head)
		}
		if err != nil {
			return placedTree{}, err
		}
		rc.mu.Lock()
		rc.room(8 * len(raw))
		rc.parsed[page] = list
		rc.mu.Unlock()
	}
	i := sort.Search(len(list), func(i int) bool { return list[i].at >= dir.place.at })
	if i == len(list) || list[i].at != dir.place.at || cas.Sum(list[i].enc) != dir.Digest {
		return placedTree{}, fmt.Errorf("what the recipe has in its place is another: %w", cas.ErrCorrupt)
	}
	return list[i].placedTree, nil
}

// part returns page i, which holds a part of dir.
func (rc *Recipe) part(ctx context.Context, i int, dir Node) (treePart, error) {
	info := rc.head.treePages[i]
	raw, err := rc.page(ctx, info.at, info.stored, info.raw)
	if err != nil {
		return treePart{}, err
	}
	return parsePart(raw, info.lo, dir.Digest, dir.place.length, rc.head)
}

// Lookup finds a name in a directory. Of a large directory it reads the page
// that holds the name; its bytes are verified. [cas.ErrNotFound].
func (rc *Recipe) Lookup(ctx context.Context, dir Node, name string) (Node, error) {
	n, err := rc.lookup(ctx, dir, name)
	if err != nil {
		return Node{}, fmt.Errorf("look up %q in tree %s: %w", name, dir.Digest.Short(), err)
	}
	return n, nil
}

func (rc *Recipe) lookup(ctx context.Context, dir Node, name string) (Node, error) {
	if dir.place.length > treePageSize {
		n, err := rc.lookupPart(ctx, dir, name)
		if !errors.Is(err, cas.ErrNotFound) {
			return n, err
		}
		// That a name is missing is believed only of the whole directory.
	}
	t, places, err := rc.tree(ctx, dir)
	if err != nil {
		return Node{}, err
	}
	return pick(t.Entries, places, name)
}

// lookupPart looks into the one page that should hold the name.
func (rc *Recipe) lookupPart(ctx context.Context, dir Node, name string) (Node, error) {
	from, to := rc.head.partPages(dir.place.at, dir.place.length)
	// The last page that does not begin behind the name.
	i := from + sort.Search(to-from, func(i int) bool { return i > 0 && rc.head.treePages[from+i].first > name }) - 1
	p, err := rc.part(ctx, max(i, from), dir)
	if err != nil {
		return Node{}, err
	}
	return pick(p.entries, p.places, name)
}

func pick(entries []cas.Entry, places []place, name string) (Node, error) {
	i, ok := sort.Find(len(entries), func(i int) int { return strings.Compare(name, entries[i].Name) })
	if !ok {
		return Node{}, cas.ErrNotFound
	}
	return Node{entries[i], places[i]}, nil
}

// Chunks have 4 KiB at least where they are cut by what they hold, so that a
// part of the stream has fewer of them than this, whatever it is: a recipe of
// chunks of a byte each would take a hundred times the memory of the bytes.
const (
	leastAverage = 1 << 10 // bytes of a chunk
	tinyChunks   = 4096    // that a part may have besides
)

const (
	// pagesAtOnce is how many chunk pages are read at once at most; of chunks of
	// the usual size they cover more than a GiB.
	pagesAtOnce = 64
	// pagesAhead is how many follow at once for who reads one after the other.
	pagesAhead = 8
)

// rows returns the chunks that cover the file stream from lo to hi.
func (rc *Recipe) rows(ctx context.Context, lo, hi int64) ([]row, error) {
	pages := rc.head.chunkPages
	from := sort.Search(len(pages), func(i int) bool { return pages[i].end > lo })
	to := sort.Search(len(pages), func(i int) bool { return pages[i].start >= hi })
	if from >= to {
		return nil, nil
	}
	end := min(to, from+pagesAtOnce)
	if from > 0 && rc.has(pages[from-1].at) && !rc.has(pages[end-1].at) {
		end = min(len(pages), end-1+pagesAhead)
	}
	if err := rc.gather(ctx, end-from, func(i int) pageInfo { return pages[from+i].pageInfo }); err != nil {
		return nil, err
	}
	pages = pages[from:to]
	var all []row
	for _, p := range pages {
		raw, err := rc.page(ctx, p.at, p.stored, p.raw)
		if err != nil {
			return nil, err
		}
		rows, err := parseChunkPage(raw, p.start, p.end)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rc.key, err)
		}
		from := sort.Search(len(rows), func(i int) bool { return rows[i].end() > lo })
		to := sort.Search(len(rows), func(i int) bool { return rows[i].start >= hi })
		all = append(all, rows[from:to]...)
		if int64(len(all)) > tinyChunks+(hi-lo)/leastAverage {
			return nil, fmt.Errorf("%s: more than %d chunks for %d bytes of the file stream: %w", rc.key, tinyChunks+(hi-lo)/leastAverage, hi-lo, cas.ErrCorrupt)
		}
	}
	return all, nil
}
