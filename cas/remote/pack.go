package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/zeebo/blake3"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// A pack is chunks in their stored form, one after the other, behind 16 bytes:
// "curipack", the version, zeros. Where each chunk lies stands in recipes. Its
// name is made of what lies in it, so that a push that was cut off finds the
// packs that it sent.
const (
	packMagic   = "curipack"
	packVersion = 1
	packHeader  = 16
	packContext = "curi pack v1" // of the name, BLAKE3 in derive-key mode
)

func packHead() []byte {
	b := make([]byte, packHeader)
	copy(b, packMagic)
	b[8] = packVersion
	return b
}

// uploads is how many packs are on their way at once; each takes packSize
// bytes of memory.
const uploads = 3

// packer turns chunks, which come in order, into rows and packs. Workers
// digest and encode; what the remote has is not encoded.
type packer struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	b      Bucket
	known  *known

	jobs    chan *packJob
	ordered chan *packJob
	done    chan struct{} // the collector's end
	workers sync.WaitGroup
	sending sync.WaitGroup
	slots   chan []byte // a buffer for a pack each, which may be nil
	most    int         // bytes that one pack may get
	ended   bool

	// Of the collector.
	rows []row
	at   int64 // in the file stream
	pack []byte
	name *blake3.Hasher
	open map[cas.Digest]int // chunks of the open pack: their rows
	from int                // the first row that may lie in the open pack

	mu   sync.Mutex
	sent int64
}

// packJob is one chunk on its way, or rows that are taken over.
type packJob struct {
	raw    []byte
	digest cas.Digest
	spot   spot
	have   bool // spot says where the remote has it
	coded  []byte
	enc    encoding
	ready  chan struct{}

	rows []row // taken over as they are
}

// newPacker begins one for about size bytes.
func newPacker(ctx context.Context, b Bucket, k *known, size int64) *packer {
	p := &packer{b: b, known: k, slots: make(chan []byte, uploads), done: make(chan struct{}), open: map[cas.Digest]int{}}
	p.most = int(min(packSize, packHeader+size)) + maxChunk
	for range uploads {
		p.slots <- nil
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	n := runtime.GOMAXPROCS(0)
	p.jobs = make(chan *packJob, 16*n)
	p.ordered = make(chan *packJob, 32*n)
	for range n {
		p.workers.Go(p.work)
	}
	go p.collect()
	return p
}

func (p *packer) work() {
	for j := range p.jobs {
		j.digest = cas.Sum(j.raw)
		if j.spot, j.have = p.known.chunk(j.digest, len(j.raw)); !j.have {
			j.coded, j.enc = encodeChunk(make([]byte, 0, len(j.raw)+len(j.raw)/32+64), j.raw)
		}
		close(j.ready)
	}
}

// add takes the next chunk, whose bytes are copied.
func (p *packer) add(raw []byte) error {
	j := &packJob{raw: append([]byte(nil), raw...), ready: make(chan struct{})}
	select {
	case p.ordered <- j:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	select {
	case p.jobs <- j:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return nil
}

// reuse takes a whole large file over from what the remote has.
func (p *packer) reuse(f largeFile) bool {
	rows := p.known.file(f.Digest, f.Size)
	if rows == nil {
		return false
	}
	j := &packJob{rows: rows, ready: make(chan struct{})}
	close(j.ready)
	select {
	case p.ordered <- j:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// collect puts the chunks into packs, in order.
func (p *packer) collect() {
	defer close(p.done)
	for j := range p.ordered {
		select {
		case <-j.ready:
		case <-p.ctx.Done():
			return
		}
		if err := p.take(j); err != nil {
			p.cancel(err)
			return
		}
	}
	p.closePack()
}

func (p *packer) take(j *packJob) error {
	if j.rows != nil {
		for _, r := range j.rows {
			r.start = p.at
			p.at += int64(r.raw)
			p.rows = append(p.rows, r)
		}
		return nil
	}
	r := row{start: p.at, raw: len(j.raw), digest: j.digest}
	p.at += int64(len(j.raw))
	if j.have {
		r.spot = j.spot
		p.rows = append(p.rows, r)
		return nil
	}
	if i, ok := p.open[j.digest]; ok {
		r.spot = p.rows[i].spot
		p.rows = append(p.rows, r)
		return nil
	}
	if s, ok := p.known.chunk(j.digest, len(j.raw)); ok {
		r.spot = s
		p.rows = append(p.rows, r)
		return nil
	}
	if p.pack == nil {
		var buf []byte
		select {
		case buf = <-p.slots:
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
		if buf == nil {
			buf = make([]byte, 0, p.most)
		}
		p.pack = append(buf, packHead()...)
		p.name = blake3.NewDeriveKey(packContext)
		p.from = len(p.rows)
	}
	r.spot = spot{off: int64(len(p.pack)), stored: len(j.coded), enc: j.enc}
	p.pack = append(p.pack, j.coded...)
	var item [cas.DigestSize + 9]byte
	copy(item[:], j.digest[:])
	binary.LittleEndian.PutUint64(item[cas.DigestSize:], uint64(len(j.coded)))
	item[cas.DigestSize+8] = byte(j.enc)
	p.name.Write(item[:])
	p.open[j.digest] = len(p.rows)
	p.rows = append(p.rows, r)
	if len(p.pack) >= packSize {
		p.closePack()
	}
	return nil
}

// closePack names the open pack and sends it.
func (p *packer) closePack() {
	if p.pack == nil {
		return
	}
	var name cas.Digest
	p.name.Sum(name[:0])
	for i := p.from; i < len(p.rows); i++ {
		if p.rows[i].pack.IsZero() {
			p.rows[i].pack = name
		}
	}
	for d, i := range p.open {
		p.known.add(d, p.rows[i].raw, p.rows[i].spot)
	}
	data := p.pack
	p.pack = nil
	clear(p.open)
	p.sending.Go(func() {
		if err := p.send(name, data); err != nil {
			p.cancel(err)
			data = nil // a request that was called off may read it still
		}
		p.slots <- data[:0]
	})
}

// send uploads a pack, unless it is there.
func (p *packer) send(name cas.Digest, data []byte) error {
	key := packKey(name)
	o, err := p.b.Stat(p.ctx, key)
	if err == nil && o.Size == int64(len(data)) {
		return nil
	}
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if err := p.b.Put(p.ctx, key, data); err != nil {
		return fmt.Errorf("upload pack %s: %w", name.Short(), err)
	}
	fault.At(fault.PushPack)
	p.mu.Lock()
	p.sent += int64(len(data))
	p.mu.Unlock()
	return nil
}

// finish waits until all is on the remote, and returns the rows.
func (p *packer) finish() ([]row, int64, error) {
	p.end()
	if err := context.Cause(p.ctx); err != nil {
		return nil, 0, err
	}
	return p.rows, p.sent, nil
}

func (p *packer) end() {
	if p.ended {
		return
	}
	p.ended = true
	close(p.jobs)
	close(p.ordered)
	p.workers.Wait()
	<-p.done
	p.sending.Wait()
}

// abort ends what is still under way.
func (p *packer) abort() {
	p.cancel(context.Canceled)
	p.end()
}
