package cas

import (
	"context"
	"io"
	"sync"
)

// How far a reader that goes through a file in order is read ahead of: not at
// all at its first read, then aheadMin bytes, doubled with each read that goes
// on where the one before ended, up to aheadMax. One that jumps begins anew.
const (
	aheadMin   = 256 << 10
	aheadMax   = 32 << 20
	aheadPiece = 8 << 20 // fetched at once
	aheadSlack = 1 << 20 // reads of one reader may come in another order
)

// LazyReader reads a file as one who opened it, in order or not. It may be used
// by several goroutines at once.
type LazyReader struct {
	f *LazyFile

	mu     sync.Mutex
	next   int64 // where a reader in order goes on
	window int64 // how far ahead of it is read
	begun  bool
}

// Reader makes a reader of the file, which has to stay open.
func (f *LazyFile) Reader() *LazyReader { return &LazyReader{f: f} }

// ReadAt waits until the bytes are here, and reads them. Nothing is returned
// that was not verified. The context ends the waiting.
func (r *LazyReader) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	size := r.f.e.Size
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	want := b[:min(int64(len(b)), size-off)]
	end := off + int64(len(want))
	lo, hi := r.plan(off, end)
	if lo < hi && r.f.p != nil {
		r.f.ahead(lo, hi)
	}
	if err := r.f.fetch(ctx, off, end); err != nil {
		return 0, err
	}
	n, err := r.f.read(want, off)
	if n == len(want) && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// plan notes a read, and returns what is to be read ahead of it.
func (r *LazyReader) plan(off, end int64) (lo, hi int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.begun:
		r.begun, r.next = true, end
	case off < r.next-aheadSlack || off > r.next+aheadSlack:
		r.next, r.window = end, 0
	case end > r.next:
		r.next = end
		r.window = min(max(2*r.window, aheadMin), aheadMax)
	}
	return r.next, min(r.next+r.window, r.f.e.Size)
}

// ahead begins to fetch from lo to hi, once much of that lacks: many small
// requests would cost more than they gain.
func (f *LazyFile) ahead(lo, hi int64) {
	if f.ready(lo, hi) > (hi-lo)/2 {
		return
	}
	for at := lo; at < hi; {
		end := min(hi, (at/aheadPiece+1)*aheadPiece)
		for f.begin(at, end, false) != nil {
		}
		at = end
	}
}

// ready is how much from lo to hi is here or on its way, in one piece.
func (f *LazyFile) ready(lo, hi int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := lo
	for at < hi {
		f.p.mu.Lock()
		gap, end := f.p.gap(at, hi-at)
		f.p.mu.Unlock()
		if gap == end {
			return hi - lo
		}
		at = gap
		for _, fl := range f.flights {
			if fl.lo <= at && at < fl.hi {
				at = fl.hi
			}
		}
		if at == gap {
			break
		}
	}
	return max(0, min(at, hi)-lo)
}
