package cas

import (
	"context"
	"io"
	"os"
	"sync"
)

// How far a reader that goes through a file in order is read ahead of: not at
// all at its first read, then twice what it has read in order, or four times if
// that is from the file's beginning on, aheadMin bytes at least and aheadMax at
// most. One that jumps begins anew, so that who reads records here and there gets
// little that he does not want. Up to aheadFar what comes best as one is begun,
// if all of it is that near.
const (
	aheadMin   = 256 << 10
	aheadMax   = 32 << 20
	aheadFar   = 96 << 20
	aheadPiece = 8 << 20 // fetched at once
	aheadSlack = 1 << 20 // reads of one reader may come in another order
)

// LazyReader reads a file as one who opened it, in order or not. It may be used
// by several goroutines at once.
type LazyReader struct {
	f *LazyFile

	mu    sync.Mutex
	next  int64 // where a reader in order goes on
	run   int64 // how much it has read in order; 0 after a jump
	more  int64 // how many times as much is read ahead
	begun bool
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
	lo, window := r.plan(off, end)
	if window > 0 && r.f.p != nil {
		if window > aheadMax {
			r.f.farAhead(lo, min(lo+window, r.f.e.Size))
		}
		r.f.ahead(lo, min(lo+min(window, aheadMax), r.f.e.Size))
	}
	return r.f.fetch(ctx, off, end)
}

// plan notes a read, and returns from where on so many bytes are to be read
// ahead of it.
func (r *LazyReader) plan(off, end int64) (lo, window int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.begun || off < r.next-aheadSlack || off > r.next+aheadSlack:
		r.begun, r.next, r.run, r.more = true, end, 0, 2
		if off == 0 {
			r.more = 4
		}
	case end > r.next:
		r.run += end - r.next
		r.next = end
	}
	if r.run > 0 {
		window = min(max(r.more*r.run, aheadMin), aheadFar)
	}
	return r.next, window
}

// farAhead begins to fetch what comes best as one between lo and hi. Where that
// is must be looked for, which no reader waits for.
func (f *LazyFile) farAhead(lo, hi int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seeking || lo >= f.sought[0] && hi < f.sought[1] {
		return
	}
	f.seeking = true
	f.wg.Go(func() {
		next := hi + aheadPiece
		defer func() {
			f.mu.Lock()
			f.seeking, f.sought = false, [2]int64{lo, next}
			f.mu.Unlock()
		}()
		for at := lo; ; {
			at += f.ready(at, hi)
			if at >= hi {
				return
			}
			src, err := f.t.source(f.ctx)
			if err != nil {
				return
			}
			end, err := src.Stretch(f.ctx, f.e, at/groupSize*groupSize)
			if err != nil || end <= at {
				return
			}
			if next = end; end > hi {
				return
			}
			for f.begin(at, end, false) != nil {
			}
			at = end
		}
	})
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
