package remote

import (
	"encoding/binary"
	"fmt"

	"github.com/curi-store/curi/cas"
)

const (
	rowsPerPage = 256
	// maxPack bounds where in a pack a chunk may lie. Packs are closed at
	// packSize, and one that is written has at most one chunk more.
	packSize = 64 << 20
	maxPack  = packSize + 2*maxChunk
)

// row is one chunk of the file stream: which part of it, and where it lies.
type row struct {
	start  int64 // in the file stream
	raw    int   // bytes there
	digest cas.Digest
	spot
}

func (r *row) end() int64 { return r.start + int64(r.raw) }

// spot is where the stored form of a chunk lies.
type spot struct {
	pack   cas.Digest
	off    int64
	stored int
	enc    encoding
}

// A chunk page:
//
//	count pack*32          the packs that its chunks lie in
//	count row*             in order of the stream
//	row = pack offset stored raw encoding digest*32 bases
//
// bases is the number of chunks that the encoding builds on, 0 so far; their
// rows would follow.
func encodeChunkPage(rows []row) []byte {
	var b []byte
	packs := map[cas.Digest]int{}
	var order []cas.Digest
	for i := range rows {
		if _, ok := packs[rows[i].pack]; !ok {
			packs[rows[i].pack] = len(order)
			order = append(order, rows[i].pack)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(order)))
	for _, d := range order {
		b = append(b, d[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(rows)))
	for i := range rows {
		r := &rows[i]
		b = binary.AppendUvarint(b, uint64(packs[r.pack]))
		b = binary.AppendUvarint(b, uint64(r.off))
		b = binary.AppendUvarint(b, uint64(r.stored))
		b = binary.AppendUvarint(b, uint64(r.raw))
		b = append(b, byte(r.enc))
		b = append(b, r.digest[:]...)
		b = append(b, 0)
	}
	return b
}

// parseChunkPage returns the rows, which cover the stream from start to end.
func parseChunkPage(b []byte, start, end int64) ([]row, error) {
	d := &decoder{b: b}
	packs := make([]cas.Digest, d.count(cas.DigestSize))
	for i := range packs {
		copy(packs[i][:], d.take(cas.DigestSize))
	}
	rows := make([]row, 0, d.count(5+cas.DigestSize+1))
	for range cap(rows) {
		r := row{start: start}
		k := d.num(int64(len(packs)))
		r.off, r.stored = d.num(maxPack), int(d.num(maxPack))
		r.raw = int(d.num(maxChunk))
		if e := d.take(1); e != nil {
			r.enc = encoding(e[0])
		}
		copy(r.digest[:], d.take(cas.DigestSize))
		bases := d.num(0)
		switch {
		case d.err != nil:
		case k == int64(len(packs)):
			d.fail("a chunk in no pack")
		case r.off+int64(r.stored) > maxPack || r.stored > maxStored:
			d.fail("a chunk beyond its pack")
		case r.enc == encStored && r.stored != r.raw:
			d.fail("a chunk that is longer or shorter than what it holds")
		case r.raw == 0 || int64(r.raw) > end-start:
			d.fail("a chunk beyond the page's part of the stream")
		case bases != 0:
			d.fail("a chunk that builds on others")
		}
		if d.err != nil {
			break
		}
		r.pack = packs[k]
		start += int64(r.raw)
		rows = append(rows, r)
	}
	if d.err == nil && (start != end || len(d.b) != 0) {
		d.fail("the chunks do not fill the page's part of the stream")
	}
	if d.err != nil {
		return nil, fmt.Errorf("chunk page: %w: %w", d.err, cas.ErrCorrupt)
	}
	return rows, nil
}
