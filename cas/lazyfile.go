package cas

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// LazyFile is an open file of a lazy tree, whose bytes come when they are read.
// What came stays in the store; a large file is there as a partial blob, and as
// any other once it is whole. It may be used by several goroutines at once.
//
// Each range is fetched once, however many readers ask for it, and goes on to
// come for the others where one of them gives up.
type LazyFile struct {
	t *LazyTree
	e LazyEntry
	p *Partial // nil of a small file

	unkept error // why what comes does not stay in the store; nil if it does

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // of flights

	mu       sync.Mutex
	flights  []*flight
	small    []byte   // of a small file, once it is here
	here     bool     // small is set
	seeking  bool     // farAhead is under way
	sought   [2]int64 // within, farAhead finds nothing new
	promoted bool     // or about to be
}

// flight is a range that is being fetched.
type flight struct {
	lo, hi int64
	done   chan struct{} // closed with err set
	err    error
}

// OpenFile opens a file of the tree; of a large one, what is here already is
// found again. The remote is not asked.
func (t *LazyTree) OpenFile(ctx context.Context, e LazyEntry) (*LazyFile, error) {
	if !e.IsRegular() {
		return nil, fmt.Errorf("open %q of tree %s: it is a %s: %w", e.Name, t.root.Short(), e.Kind, ErrInvalid)
	}
	f := &LazyFile{t: t, e: e}
	if e.Size > MinOutboard {
		var err error
		f.p, err = t.s.OpenPartial(ctx, e.Digest, e.Size)
		if cannotWrite(err) && t.s.scratch != "" {
			f.unkept = err
			f.p, err = t.s.openScratch(ctx, e.Digest, e.Size)
		}
		if err != nil {
			return nil, err
		}
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	if f.p != nil && f.p.Whole() {
		f.promote() // whoever brought the rest died before
	}
	return f, nil
}

// Close ends what is being fetched. No other call may be under way.
func (f *LazyFile) Close() error {
	f.cancel()
	f.wg.Wait()
	if f.p != nil {
		return f.p.Close()
	}
	return nil
}

// Local is how many of the file's bytes are here.
func (f *LazyFile) Local() int64 {
	if f.p != nil {
		return f.p.Local()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.small))
}

// fetch waits until the bytes from lo to hi are here.
func (f *LazyFile) fetch(ctx context.Context, lo, hi int64) error {
	for {
		var more <-chan struct{} // the bytes may be here before all of a flight is
		if f.p != nil {
			more = f.p.more()
		}
		fl := f.begin(lo, hi, true)
		if fl == nil {
			return nil
		}
		select {
		case <-fl.done:
		case <-more:
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		if fl.err != nil && f.lacks(lo, hi) {
			return f.t.failed("file "+f.e.Digest.String(), fl.err)
		}
	}
}

func (f *LazyFile) lacks(lo, hi int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, b := f.gap(lo, hi)
	return a < b
}

// begin returns a flight that brings the first of the bytes from lo to hi that
// lack, of which it may be a part only; nil if none lack. Without any, only a
// new one is returned.
func (f *LazyFile) begin(lo, hi int64, any bool) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if lo, hi = f.gap(lo, hi); lo >= hi {
			return nil
		}
		end := hi
		var over *flight
		for _, fl := range f.flights {
			switch {
			case fl.lo <= lo && lo < fl.hi:
				over = fl
			case fl.lo > lo:
				end = min(end, fl.lo)
			}
		}
		switch {
		case over != nil && any:
			return over
		case over != nil:
			lo, hi = over.hi, max(hi, over.hi)
			continue
		}
		fl := &flight{lo: lo, hi: end, done: make(chan struct{})}
		f.flights = append(f.flights, fl)
		f.wg.Go(func() { f.fly(fl) })
		return fl
	}
}

// gap returns the first of the bytes from lo to hi that lack; called with mu held.
func (f *LazyFile) gap(lo, hi int64) (int64, int64) {
	if f.p == nil {
		if f.here {
			return hi, hi
		}
		return lo, hi
	}
	return f.p.Missing(lo, hi-lo)
}

// fly fetches what a flight is for.
func (f *LazyFile) fly(fl *flight) {
	fl.err = f.bring(fl.lo, fl.hi)
	f.mu.Lock()
	for i := range f.flights {
		if f.flights[i] == fl {
			f.flights = append(f.flights[:i], f.flights[i+1:]...)
			break
		}
	}
	f.mu.Unlock()
	close(fl.done)
	if fl.err == nil && f.p != nil && f.p.Whole() {
		f.promote()
	}
}

func (f *LazyFile) bring(lo, hi int64) error {
	if f.p == nil {
		return f.bringSmall()
	}
	src, err := f.t.source(f.ctx)
	if err != nil {
		return err
	}
	return src.Range(f.ctx, f.e, f.p, lo, hi)
}

// bringSmall brings a small file: from where it was put a moment ago, else the
// store, else the remote.
func (f *LazyFile) bringSmall() error {
	b, ok := f.t.keep.find(f.e.Digest)
	if !ok {
		b, ok = f.stored()
	}
	if !ok {
		src, err := f.t.source(f.ctx)
		if err != nil {
			return err
		}
		if b, err = src.Small(f.ctx, f.e); err != nil {
			return err
		}
		f.t.keep.add(f.e.Digest, b)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.small, f.here = b, true
	return nil
}

// stored reads a small file that the store has.
func (f *LazyFile) stored() ([]byte, bool) {
	if !f.t.s.HasLocalBlob(f.e.Digest, f.e.Size) {
		return nil, false
	}
	b, err := f.t.s.OpenBlob(f.ctx, f.e.Digest)
	if err != nil {
		return nil, false
	}
	defer b.Close()
	p := make([]byte, f.e.Size)
	if _, err := io.ReadFull(b, p); err != nil || Sum(p) != f.e.Digest {
		return nil, false
	}
	return p, true
}

// promote makes the blob, which is whole, one of the store.
func (f *LazyFile) promote() {
	f.mu.Lock()
	done := f.promoted
	f.promoted = true
	f.mu.Unlock()
	if done {
		return
	}
	f.wg.Go(func() {
		if err := f.promoteNow(context.WithoutCancel(f.ctx)); err != nil {
			f.t.s.log.Warn("a file came whole from a remote and stays a partial blob", "blob", f.e.Digest, "err", err)
		}
	})
}

func (f *LazyFile) promoteNow(ctx context.Context) error {
	if f.unkept != nil {
		return nil
	}
	if err := f.t.pages.NoteCame(f.e.Digest); err != nil {
		return err
	}
	return f.p.Promote(ctx)
}

// completeAtOnce is how many ranges of a file are fetched at once by Complete.
const completeAtOnce = 3

// Complete brings all of the file, durably.
func (f *LazyFile) Complete(ctx context.Context, progress Progress) error {
	if f.p == nil {
		if err := f.fetch(ctx, 0, max(1, f.e.Size)); err != nil {
			return err
		}
		return f.t.keep.flush(ctx)
	}
	var lacking []int64
	for lo := int64(0); lo < f.e.Size; lo += aheadPiece {
		if a, b := f.p.Missing(lo, aheadPiece); a != b {
			lacking = append(lacking, lo)
		}
	}
	err := parallel(ctx, len(lacking), completeAtOnce, func(ctx context.Context, i int) error {
		if err := f.fetch(ctx, lacking[i], min(f.e.Size, lacking[i]+aheadPiece)); err != nil {
			return err
		}
		f.p.WriteBack(lacking[i], aheadPiece)
		if progress != nil {
			progress(f.p.Local(), f.e.Size, 0, 1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.promoteNow(ctx)
}

// read copies bytes that are here.
func (f *LazyFile) read(b []byte, off int64) (int, error) {
	if f.p != nil {
		return f.p.data.ReadAt(b, off)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return copy(b, f.small[off:]), nil
}
