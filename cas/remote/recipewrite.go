package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// recipeTree is one directory of a recipe that is being written.
type recipeTree struct {
	digest cas.Digest
	enc    []byte
	tree   *cas.Tree
	places []place
	at     int64 // in the tree stream
}

// recipeWriter gathers what a recipe says. Its trees are in the order of the
// tree stream, the root first; its rows in that of the file stream.
type recipeWriter struct {
	head  recipeHead
	trees []*recipeTree
	rows  []row

	pages   [][]byte // stored
	open    []byte   // trees of the page that is not closed yet
	openN   int
	openAt  int64
	openRaw int
	openLo  int64
	next    int64 // in the file stream: what the last file ended at
}

// encode returns the recipe.
func (w *recipeWriter) encode(ctx context.Context) ([]byte, error) {
	h := &w.head
	h.treePages, h.chunkPages, w.pages = nil, nil, nil
	h.root, h.rootLen = w.trees[0].digest, int64(len(w.trees[0].enc))
	h.trees, h.stream = 0, 0
	for _, t := range w.trees {
		t.at = h.trees
		h.trees += int64(len(t.enc))
	}
	if n := len(w.rows); n > 0 {
		h.stream = w.rows[n-1].end()
	}
	for _, t := range w.trees {
		if len(t.enc) > treePageSize {
			w.closePage()
			if err := w.addParts(ctx, t); err != nil {
				return nil, err
			}
			continue
		}
		w.addWhole(t)
	}
	w.closePage()
	for rest := w.rows; len(rest) > 0; {
		n := min(len(rest), rowsPerPage)
		raw := encodeChunkPage(rest[:n])
		stored := zstdPage(raw)
		w.pages = append(w.pages, stored)
		h.chunkPages = append(h.chunkPages, chunkPageInfo{pageInfo: pageInfo{stored: int64(len(stored)), raw: len(raw)}, start: rest[0].start, end: rest[n-1].end()})
		rest = rest[n:]
	}
	raw := h.encode()
	if len(raw) > maxHead || len(h.treePages) > maxPages || len(h.chunkPages) > maxPages {
		return nil, fmt.Errorf("recipe of %s: %d directories and %d chunks are more than one recipe can list: %w", h.root.Short(), len(w.trees), len(w.rows), cas.ErrInvalid)
	}
	stored := zstdPage(raw)
	h.size = recipeFixed + int64(len(stored))
	for _, p := range w.pages {
		h.size += int64(len(p))
	}
	b := append(make([]byte, 0, h.size), h.fixedHead(len(stored), len(raw))...)
	b = append(b, stored...)
	for _, p := range w.pages {
		b = append(b, p...)
	}
	return b, nil
}

// addWhole puts a directory into the open page.
func (w *recipeWriter) addWhole(t *recipeTree) {
	if w.openRaw > 0 && w.openRaw+len(t.enc) > treePageSize {
		w.closePage()
	}
	if w.openN == 0 {
		w.openAt, w.openLo = t.at, w.next
	}
	w.open = binary.AppendUvarint(w.open, uint64(len(t.enc)))
	w.open = append(w.open, t.enc...)
	w.open, w.next = appendPlaces(w.open, t.tree.Entries, t.places, w.next)
	w.openN++
	w.openRaw += len(t.enc)
}

func (w *recipeWriter) closePage() {
	if w.openN == 0 {
		return
	}
	raw := append(binary.AppendUvarint([]byte{wholeTrees}, uint64(w.openN)), w.open...)
	w.addPage(raw, treePageInfo{start: w.openAt, lo: w.openLo, hi: max(w.next, w.openLo)})
	w.open, w.openN, w.openRaw = nil, 0, 0
}

func (w *recipeWriter) addPage(raw []byte, info treePageInfo) {
	stored := zstdPage(raw)
	info.stored, info.raw = int64(len(stored)), len(raw)
	w.pages = append(w.pages, stored)
	w.head.treePages = append(w.head.treePages, info)
}

// addParts gives a large directory pages of its own.
func (w *recipeWriter) addParts(ctx context.Context, t *recipeTree) error {
	size := int64(len(t.enc))
	outboard := newMemFile(cas.OutboardSize(size))
	if _, err := cas.SumAt(ctx, bytes.NewReader(t.enc), size, outboard); err != nil {
		return err
	}
	_, n, at, err := cas.ParseTreeHead(t.enc)
	if err != nil {
		return err
	}
	const group = cas.GroupSize
	for done := 0; done < n; {
		// The entries that begin in the next two groups.
		first, count := at, 0
		for stop := at/group*group + treePageSize; done+count < n && at < stop; count++ {
			_, used, err := cas.ParseEntries(t.enc[at:], 1)
			if err != nil {
				return err
			}
			at += used
		}
		offset := first / group * group
		end := min(len(t.enc), (at+group-1)/group*group)
		nodes := &recordedNodes{Reader: bytes.NewReader(outboard.b)}
		o, err := cas.ParseOutboard(nodes, int64(len(outboard.b)), t.digest)
		if err == nil {
			err = o.Verify(t.enc[offset:end], int64(offset))
		}
		if err != nil {
			return err
		}
		entries := t.tree.Entries[done : done+count]
		raw := []byte{partOfTree}
		for _, v := range []int{len(t.enc), offset, end - offset, first - offset, count} {
			raw = binary.AppendUvarint(raw, uint64(v))
		}
		raw = append(raw, t.enc[offset:end]...)
		raw = binary.AppendUvarint(raw, uint64(len(nodes.nodes)/64))
		raw = append(raw, nodes.nodes...)
		info := treePageInfo{start: t.at + int64(first), lo: w.next}
		if done == 0 {
			info.start = t.at
		} else {
			info.first = entries[0].Name
		}
		raw, w.next = appendPlaces(raw, entries, t.places[done:done+count], w.next)
		info.hi = max(w.next, info.lo)
		w.addPage(raw, info)
		done += count
	}
	return nil
}

// memFile is a file in memory of a size that is known.
type memFile struct{ b []byte }

func newMemFile(size int64) *memFile { return &memFile{make([]byte, size)} }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }
