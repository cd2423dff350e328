package remote

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/curi-store/curi/cas"
)

// A reader that goes through a large file in order wants all of it. Where one
// connection is slower than the link, as to the object stores of clouds, several
// requests at once bring it sooner; where it is not, a whole pack by one request
// costs the server, and everything between, least.

// stretch is where the part of a file ends that begins at at and lies in one
// pack, as it is, in whole groups. A group that lies in two packs belongs to the
// second. It is at itself where that is not more than a segment, unless the pack
// ends there.
func (rc *Recipe) stretch(ctx context.Context, n Node, at int64) (int64, error) {
	p, err := rc.plainFrom(ctx, n, at, n.Size)
	if err == nil && p.none {
		p, err = rc.plainFrom(ctx, n, p.end, n.Size)
	}
	if err != nil || p.none || p.end-at <= segmentSize && !p.edge {
		return at, err
	}
	return p.end, nil
}

// plain is how far a part of a file lies in one pack, one byte after the other
// and as they are.
type plain struct {
	end  int64 // in whole groups; of the first group if not even that does
	none bool  // then
	edge bool  // it ends where the next pack begins
}

func (rc *Recipe) plainFrom(ctx context.Context, n Node, lo, hi int64) (p plain, err error) {
	hi = min(hi, lo+maxPack)
	rows, err := rc.rows(ctx, n.place.at+lo, n.place.at+hi)
	if err != nil {
		return plain{}, err
	}
	p.end = lo
	for i, r := range rows {
		if p.edge = i > 0 && r.pack != rows[0].pack; p.edge {
			break
		}
		if r.enc != encStored || i > 0 && r.off != rows[i-1].off+int64(rows[i-1].stored) {
			break
		}
		p.end = min(hi, r.end()-n.place.at)
	}
	if p.end != n.Size {
		p.end = p.end / cas.GroupSize * cas.GroupSize
	}
	if p.none = p.end <= lo; p.none {
		p.end = min(n.Size, lo+cas.GroupSize)
	}
	return p, nil
}

// fetchFrom fetches the first bytes that lack from lo to hi, and tells how far
// it came: as far as one request reaches, else to the end of the segment.
func (rc *Recipe) fetchFrom(ctx context.Context, n Node, p *cas.Partial, lo, hi int64) (int64, error) {
	if hi > borderOf(lo) {
		run, err := rc.plainFrom(ctx, n, lo, hi)
		if err != nil {
			return lo, err
		}
		switch {
		case run.none:
			hi = run.end
		case run.end > borderOf(lo):
			if err = rc.fetchProven(ctx, n, p, lo, run.end); !errors.Is(err, cas.ErrCorrupt) {
				return run.end, err
			}
			// What did not come, segment by segment: it is not all damaged.
			if lo, hi = p.Missing(lo, run.end-lo); lo == hi {
				return run.end, nil
			}
		}
	}
	hi = min(hi, borderOf(lo))
	wide, err := rc.widen(ctx, n, span{lo, hi})
	if err == nil {
		err = rc.fetchPart(ctx, n, p, wide.lo, wide.hi)
	}
	return hi, err
}

// borderOf is where the segment ends that has the byte at.
func borderOf(at int64) int64 { return (at/segmentSize + 1) * segmentSize }

// pace is how fast one request brings bytes. It may be used by several
// goroutines at once.
type pace struct {
	rate  atomic.Int64 // bytes a second; 0: not known
	least int64        // from which it is fast; 0: fastRate
}

const (
	// fastRate is the rate, in bytes a second, from which one request is as good
	// as several: an answer of a cloud's object store comes at less.
	fastRate = 128 << 20
	// pacedLeast is how much a request brings at least whose pace says something.
	pacedLeast = 4 << 20
)

func (p *pace) note(n int64, took time.Duration) {
	if n >= pacedLeast {
		p.rate.Store(int64(float64(n) / max(took, time.Microsecond).Seconds()))
	}
}

func (p *pace) fast() bool { return p.rate.Load() >= cmp.Or(p.least, fastRate) }
