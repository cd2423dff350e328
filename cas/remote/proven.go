package remote

import (
	"context"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// unproven hands out a part of the file stream for who proves it himself, one
// piece after the other: chunks are not compared with their digests, and of
// those that are stored as they are only what is wanted is fetched. A piece is
// got's for the call; all but the last have a multiple of [cas.GroupSize] bytes.
func (rc *Recipe) unproven(ctx context.Context, at span, got func([]byte) error) error {
	rows, err := rc.rows(ctx, at.lo, at.hi)
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].start > at.lo || rows[len(rows)-1].end() < at.hi {
		return fmt.Errorf("%s: its chunks end before byte %d of the file stream: %w", rc.key, at.hi, cas.ErrCorrupt)
	}
	for i := range rows {
		rows[i].trim(at)
	}
	list := fetches(rows, int(at.hi-at.lo)+maxStored)
	if len(list) == 1 && list[0].plain() {
		return packPieces(ctx, rc.b, list[0].pack, list[0].off, int64(list[0].stored), got)
	}
	p := getBody(int(at.hi - at.lo))
	defer putBody(p)
	err = each(ctx, len(list), fetchers, func(ctx context.Context, i int) error { return list[i].decode(ctx, rc.b, p, at.lo) })
	if err != nil {
		return err
	}
	return got(p)
}

// trim leaves of a chunk that is stored as it is what lies in at. Its digest
// then means nothing.
func (r *row) trim(at span) {
	if r.enc != encStored {
		return
	}
	lo, hi := max(r.start, at.lo), min(r.end(), at.hi)
	r.off += lo - r.start
	r.start, r.raw, r.stored = lo, int(hi-lo), int(hi-lo)
}

// plain reports whether the bytes of the fetch are those of its chunks.
func (f *fetch) plain() bool {
	n := 0
	for i := range f.rows {
		if f.rows[i].enc != encStored {
			return false
		}
		n += f.rows[i].raw
	}
	return n == f.stored
}

// decode reads the chunks of a fetch into p, which has the file stream from
// start on.
func (f *fetch) decode(ctx context.Context, b Bucket, p []byte, start int64) error {
	stored, err := borrowPart(ctx, b, f.pack, f.off, f.stored)
	if err != nil {
		return err
	}
	defer stored.back()
	for i := range f.rows {
		r := &f.rows[i]
		lo, hi := max(r.start, start), min(r.end(), start+int64(len(p)))
		to := p[lo-start : hi-start]
		raw := to
		if len(raw) < r.raw {
			raw = getBody(r.raw)
		}
		at := r.off - f.off
		if err := decodeChunk(raw, stored.b[at:at+int64(r.stored)], r.enc); err != nil {
			return fmt.Errorf("%s, chunk at %d: %w", packKey(f.pack), r.off, err)
		}
		if len(to) < r.raw {
			copy(to, raw[lo-r.start:])
			putBody(raw)
		}
	}
	return nil
}
