package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/curi-store/curi/cas"
)

// listPage is how many objects of a listing one answer has, at most.
const listPage = 1000

// maxRead bounds what one request reads, in bytes.
const maxRead = maxPack

// Serve is what a helper does: it opens the bucket that r asks for by open, and
// answers what r asks of it on w, until r ends. Requests are answered at once
// and in any order; who asks bounds how many there are.
func Serve(ctx context.Context, r io.Reader, w io.Writer, open func(ctx context.Context, url string) (Bucket, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{w: w, under: map[uint32]*serving{}}
	defer func() {
		cancel()
		s.wg.Wait()
		if s.b != nil {
			s.b.Close()
		}
	}()
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		f, err := readFrame(in)
		if err != nil {
			return endOf(err)
		}
		if s.b == nil {
			if f.kind != askOpen {
				return fmt.Errorf("request %d before a bucket is open: %w", f.kind, cas.ErrInvalid)
			}
			if gone := s.open(ctx, in, f, open); gone != nil {
				return endOf(gone)
			}
			continue
		}
		if f.kind == askShare {
			s.answer(f.id, nil, s.share(f.body))
			continue
		}
		s.take(ctx, f)
	}
}

// endOf is nil at the end of what is asked.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// open opens the bucket, and answers. gone is the error that there is nobody to
// answer any more: what is asked for credentials may take long, and whoever
// wants the bucket may end meanwhile.
func (s *server) open(ctx context.Context, in *bufio.Reader, f frame, open func(ctx context.Context, url string) (Bucket, error)) (gone error) {
	type opened struct {
		b   Bucket
		err error
	}
	done, next := make(chan opened, 1), make(chan error, 1)
	go func() {
		b, err := open(ctx, string(f.body))
		done <- opened{b, err}
	}()
	go func() {
		_, err := in.Peek(1)
		next <- err
	}()
	select {
	case gone = <-next:
		if gone != nil {
			return gone
		}
		next <- nil
	case o := <-done:
		done <- o
	}
	o := <-done
	if o.err == nil {
		s.b = o.b
	}
	s.answer(f.id, nil, o.err)
	return <-next // in is read on after that
}

type server struct {
	b   Bucket
	mem []byte // that the one who asks has, too; nil: there is none
	wg  sync.WaitGroup

	wmu sync.Mutex
	w   io.Writer

	mu    sync.Mutex
	under map[uint32]*serving
}

func (s *server) share(body []byte) error {
	d := &decoder{b: body}
	n := d.num(1 << 40)
	err := d.end()
	if err == nil && s.mem == nil {
		s.mem, err = mapShared(n)
	}
	return err
}

// serving is a request under way.
type serving struct {
	cancel context.CancelFunc
	more   chan struct{} // of a listing, or of pieces
}

func (s *server) take(ctx context.Context, f frame) {
	s.mu.Lock()
	now := s.under[f.id]
	s.mu.Unlock()
	switch {
	case f.kind == askCancel && now != nil:
		now.cancel()
	case f.kind == askMore && now != nil:
		select {
		case now.more <- struct{}{}:
		default:
		}
	case f.kind == askCancel, f.kind == askMore: // it has ended meanwhile
	default:
		ctx, cancel := context.WithCancel(ctx)
		now = &serving{cancel, make(chan struct{}, ringPieces)}
		s.mu.Lock()
		s.under[f.id] = now
		s.mu.Unlock()
		s.wg.Go(func() {
			defer cancel()
			body, err := s.do(ctx, f, now)
			s.mu.Lock()
			delete(s.under, f.id)
			s.mu.Unlock()
			s.answer(f.id, body, err)
			switch {
			case f.kind == askRead:
				putBody(body)
			case err == nil:
				putBody(f.body) // of a request that failed, something may read it still
			}
		})
	}
}

func (s *server) answer(id uint32, body []byte, err error) {
	kind, body := answerFor(body, err)
	s.send(id, kind, body)
}

// send writes a frame. Where that fails the other side is gone, which reading
// from it tells too.
func (s *server) send(id uint32, kind byte, body []byte) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_ = writeFrame(s.w, id, kind, body)
}

func (s *server) do(ctx context.Context, f frame, now *serving) ([]byte, error) {
	d := &decoder{b: f.body}
	place := int64(0)
	if f.kind == askInto || f.kind == askPieces {
		place = d.num(int64(len(s.mem)))
	}
	key := d.text()
	switch f.kind {
	case askInto:
		off, n := d.num(maxStream), d.num(int64(len(s.mem))-place)
		if err := d.end(); err != nil {
			return nil, err
		}
		k, err := s.b.ReadAt(ctx, key, s.mem[place:place+n], off)
		if errors.Is(err, io.EOF) && k == int(n) {
			err = nil
		}
		return appendNums(nil, int64(k)), err
	case askPieces:
		off, n := d.num(maxStream), d.num(maxPack)
		if err := d.end(); err != nil {
			return nil, err
		}
		if place+ringSize > int64(len(s.mem)) {
			return nil, fmt.Errorf("no room for pieces at %d: %w", place, cas.ErrInvalid)
		}
		return nil, s.pieces(ctx, f.id, key, s.mem[place:place+ringSize], off, n, now)
	case askRead:
		off, n := d.num(maxStream), d.num(maxRead)
		if err := d.end(); err != nil {
			return nil, err
		}
		p := getBody(int(n))
		k, err := s.b.ReadAt(ctx, key, p, off)
		if errors.Is(err, io.EOF) && k == len(p) {
			err = nil
		}
		return p[:k], err
	case askStat:
		if err := d.end(); err != nil {
			return nil, err
		}
		o, err := s.b.Stat(ctx, key)
		return appendObject(nil, o), err
	case askPut, askNew:
		if d.err != nil {
			return nil, d.end()
		}
		if f.kind == askPut {
			return nil, s.b.Put(ctx, key, d.b)
		}
		return nil, s.b.PutNew(ctx, key, d.b)
	case askDelete:
		if err := d.end(); err != nil {
			return nil, err
		}
		return nil, s.b.Delete(ctx, key)
	case askList:
		after := d.text()
		if err := d.end(); err != nil {
			return nil, err
		}
		return s.list(ctx, f.id, key, after, now)
	}
	return nil, fmt.Errorf("request %d is unknown: %w", f.kind, cas.ErrInvalid)
}

// pieces fills one piece of the ring after the other, and says so. One that is
// still looked at is not filled again.
func (s *server) pieces(ctx context.Context, id uint32, key string, ring []byte, off, n int64, now *serving) error {
	r, err := openPart(ctx, s.b, key, off, n)
	if err != nil {
		return err
	}
	defer r.Close()
	for i := 0; n > 0; i++ {
		if i >= ringPieces {
			select {
			case <-now.more:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		p := ring[i%ringPieces*pieceSize:][:min(pieceSize, n)]
		k, err := io.ReadFull(r, p)
		if errors.Is(err, io.ErrUnexpectedEOF) && k < len(p) {
			err = io.EOF // the object ends; what was cut off has another error
		}
		if err != nil {
			return err
		}
		s.send(id, saidMore, appendNums(nil, int64(k)))
		n -= int64(k)
	}
	return nil
}

// list answers a listing page by page, and returns the last.
func (s *server) list(ctx context.Context, id uint32, prefix, after string, now *serving) ([]byte, error) {
	var page []Object
	encode := func() []byte {
		b := []byte{}
		for _, o := range page {
			b = appendObject(b, o)
		}
		page = page[:0]
		return b
	}
	for o, err := range s.b.List(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		if len(page) == listPage {
			s.send(id, saidMore, encode())
			select {
			case <-now.more:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		page = append(page, o)
	}
	return encode(), nil
}
