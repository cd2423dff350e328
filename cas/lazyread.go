package cas

import (
	"context"
	"io"
	"os"
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
	if err := r.bring(ctx, off, off+int64(len(want))); err != nil {
		return 0, err
	}
	n, err := r.f.read(want, off)
	if n == len(want) && n < len(b) {
		err = io.EOF
	}
	return n, err
}

// Bring waits until n bytes from off on, as far as the file has them, are here
// and verified, and returns the file on the disk that holds them at the same
// place; nil where memory holds them. It stays open as long as the LazyFile.
func (r *LazyReader) Bring(ctx context.Context, off, n int64) (*os.File, error) {
	size := r.f.e.Size
	if off < 0 || off >= size {
		return nil, io.EOF
	}
	if err := r.bring(ctx, off, off+min(n, size-off)); err != nil || r.f.p == nil {
		return nil, err
	}
	return r.f.p.data, nil
}

func (r *LazyReader) bring(ctx context.Context, off, end int64) error {
	lo, hi := r.plan(off, end)
	if lo < hi && r.f.p != nil {
		r.f.ahead(lo, hi)
	}
	return r.f.fetch(ctx, off, end)
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
// requests would cost more than they gain. A wide window goes on piece by piece,
// so that while the reader takes one the next ones are on their way.
func (f *LazyFile) ahead(lo, hi int64) {
	if hi-lo > 2*aheadPiece && hi < f.e.Size {
		hi = hi / aheadPiece * aheadPiece
	}
	if lack := hi - lo - f.ready(lo, hi); lack < min((hi-lo)/2, aheadPiece) || lack == 0 {
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
