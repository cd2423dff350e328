package remote

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/curi-store/curi/cas"
)

const (
	// A fetch reads chunks that lie close to each other in a pack at once.
	fetchSize = 4 << 20  // bytes of stored chunks, at most; they hold twice as much, at most
	fetchGap  = 64 << 10 // bytes between two chunks that are read and thrown away
	// fetchers is how many run at once; each takes up to three times fetchSize
	// bytes of memory.
	fetchers = 8
)

// span is a part of the file stream.
type span struct{ lo, hi int64 }

// fetch is a part of a pack that is read at once.
type fetch struct {
	pack   cas.Digest
	off    int64
	stored int
	rows   []row
}

// fetches groups rows, in their order, into fetches of at most size bytes.
func fetches(rows []row, size int) []fetch {
	var list []fetch
	raw := 0
	for _, r := range rows {
		if n := len(list); n > 0 {
			f := &list[n-1]
			gap := r.off - f.off - int64(f.stored)
			if r.pack == f.pack && gap >= 0 && gap <= fetchGap && f.stored+int(gap)+r.stored <= size && raw+r.raw <= 2*size {
				f.stored += int(gap) + r.stored
				f.rows = append(f.rows, r)
				raw += r.raw
				continue
			}
		}
		list = append(list, fetch{r.pack, r.off, r.stored, []row{r}})
		raw = r.raw
	}
	return list
}

// load reads the chunks of a fetch, and returns their bytes, joined. A chunk
// that is not what it should be is read once more: what damaged it may have
// been the way.
func (f *fetch) load(ctx context.Context, b Bucket) ([]byte, error) {
	var p []byte
	err := again(ctx, func() (err error) {
		p, err = f.loadOnce(ctx, b)
		return err
	})
	return p, err
}

func (f *fetch) loadOnce(ctx context.Context, b Bucket) ([]byte, error) {
	key := packKey(f.pack)
	stored, err := borrowPart(ctx, b, f.pack, f.off, f.stored)
	if err != nil {
		return nil, err
	}
	defer stored.back()
	total := 0
	for i := range f.rows {
		total += f.rows[i].raw
	}
	raw := getBody(total)
	rest := raw
	for i := range f.rows {
		r := &f.rows[i]
		p := rest[:r.raw]
		rest = rest[r.raw:]
		at := r.off - f.off
		if err := decodeChunk(p, stored.b[at:at+int64(r.stored)], r.enc); err != nil {
			return nil, fmt.Errorf("%s, chunk at %d: %w", key, r.off, err)
		}
		if cas.Sum(p) != r.digest {
			return nil, fmt.Errorf("%s, chunk at %d: its bytes do not match its digest: %w", key, r.off, cas.ErrCorrupt)
		}
	}
	return raw, nil
}

// fileStream reads spans of the file stream in order, and some way ahead. It
// is for one goroutine. Close it.
type fileStream struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	queue  chan *fetched
	wg     sync.WaitGroup
	now    []byte
	body   []byte // that now lies in
}

// fetched is a fetch under way, in the order of the spans.
type fetched struct {
	fetch
	spans []span // what is wanted of it
	raw   []byte
	err   error
	ready chan struct{}
}

// read begins to read spans, which ascend and do not overlap.
func (rc *Recipe) read(ctx context.Context, spans []span) *fileStream {
	s := &fileStream{queue: make(chan *fetched, fetchers)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	work := make(chan *fetched)
	for range fetchers {
		s.wg.Go(func() {
			for f := range work {
				f.raw, f.err = f.load(s.ctx, rc.b)
				close(f.ready)
			}
		})
	}
	s.wg.Go(func() {
		defer close(work)
		defer close(s.queue)
		if err := rc.plan(s.ctx, spans, func(f *fetched) bool {
			// The queue bounds how far ahead is read.
			for _, ch := range []chan *fetched{s.queue, work} {
				select {
				case ch <- f:
				case <-s.ctx.Done():
					return false
				}
			}
			return true
		}); err != nil {
			s.cancel(err)
		}
	})
	return s
}

// planStep is how much of the file stream is planned at once, in bytes.
const planStep = 64 << 20

// plan yields the fetches for spans.
func (rc *Recipe) plan(ctx context.Context, spans []span, yield func(*fetched) bool) error {
	for len(spans) > 0 {
		// A piece of the stream, and what is wanted of it.
		lo, hi := spans[0].lo, spans[0].lo+planStep
		var part []span
		for len(spans) > 0 && spans[0].lo < hi {
			if spans[0].hi > hi {
				part = append(part, span{spans[0].lo, hi})
				spans[0].lo = hi
				break
			}
			part = append(part, spans[0])
			spans = spans[1:]
		}
		rows, err := rc.rows(ctx, lo, part[len(part)-1].hi)
		if err != nil {
			return err
		}
		for _, f := range fetches(wanted(rows, part), fetchSize) {
			ft := &fetched{fetch: f, ready: make(chan struct{})}
			for len(part) > 0 {
				end := f.rows[len(f.rows)-1].end()
				if part[0].lo >= end {
					break
				}
				ft.spans = append(ft.spans, span{part[0].lo, min(part[0].hi, end)})
				if part[0].hi > end {
					part[0].lo = end
					break
				}
				part = part[1:]
			}
			if !yield(ft) {
				return nil
			}
		}
	}
	return nil
}

// wanted leaves out the rows that no span touches.
func wanted(rows []row, spans []span) []row {
	var list []row
	for _, r := range rows {
		for len(spans) > 0 && spans[0].hi <= r.start {
			spans = spans[1:]
		}
		if len(spans) > 0 && spans[0].lo < r.end() {
			list = append(list, r)
		}
	}
	return list
}

// Read yields the bytes of the spans, one span after the other.
func (s *fileStream) Read(p []byte) (int, error) {
	for len(s.now) == 0 {
		f, ok := <-s.queue
		if !ok {
			if s.ctx.Err() != nil {
				return 0, context.Cause(s.ctx)
			}
			return 0, io.EOF
		}
		select {
		case <-f.ready:
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
		if f.err != nil {
			return 0, f.err
		}
		putBody(s.body)
		s.now, s.body = f.cut(), f.raw
	}
	n := copy(p, s.now)
	s.now = s.now[n:]
	return n, nil
}

// cut joins what is wanted of the fetch, in place.
func (f *fetched) cut() []byte {
	out := f.raw[:0]
	at := 0 // in raw
	spans := f.spans
	for _, r := range f.rows {
		for len(spans) > 0 && spans[0].lo < r.end() {
			lo, hi := max(spans[0].lo, r.start), min(spans[0].hi, r.end())
			out = append(out, f.raw[at+int(lo-r.start):at+int(hi-r.start)]...)
			if spans[0].hi > r.end() {
				break
			}
			spans = spans[1:]
		}
		at += r.raw
	}
	return out
}

// Close ends what is under way.
func (s *fileStream) Close() error {
	s.cancel(context.Canceled)
	s.wg.Wait()
	putBody(s.body)
	s.now, s.body = nil, nil
	return nil
}
