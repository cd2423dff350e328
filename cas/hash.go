package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

// Hasher digests a stream. It is for one goroutine and uses one core; [SumFile]
// uses all of them.
type Hasher struct {
	h *blake3.Hasher
	n int64
}

// NewHasher returns a Hasher that has seen nothing.
func NewHasher() *Hasher { return &Hasher{h: blake3.New()} }

// Write implements [io.Writer]; it never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.h.Write(p)
}

// Digest returns the digest of all that was written so far.
func (h *Hasher) Digest() (d Digest) {
	h.h.Sum(d[:0])
	return d
}

// Size is the number of bytes written so far.
func (h *Hasher) Size() int64 { return h.n }

// SumFile digests the size bytes of f with all cores; it holds at most 20 MiB.
// A file that turns out shorter or longer is an error that wraps [ErrChanged].
func SumFile(ctx context.Context, f io.ReaderAt, size int64) (Digest, error) {
	return hashFile(ctx, f, size, nil)
}

const (
	// readSize is what a worker reads at once: it still lies in the core's own
	// cache when it is hashed.
	readSize = 256 << 10
	// unitSize is what a worker takes on at once. Its nodes lie side by side
	// in the outboard and are written at once.
	unitSize   = 1 << 20
	unitGroups = unitSize / groupSize

	// maxHashers bounds the workers, and so the memory: each holds readSize
	// and its unit's nodes.
	maxHashers = 64
	// hashWindow is how many units the fastest worker may be ahead of the
	// slowest.
	hashWindow = 4 * maxHashers
)

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// hashFile digests the size bytes of f, with all cores if there are many, and
// holds at most 20 MiB. If outboard is not nil, the outboard file of the blob
// is written to it (see outboardSize) in the same pass. A file that turns out
// shorter or longer than size is an error that wraps [ErrChanged].
func hashFile(ctx context.Context, f io.ReaderAt, size int64, outboard io.WriterAt) (Digest, error) {
	h := &fileHasher{ctx: ctx, f: f, size: size, out: outboard, pending: map[int64]chainingValue{}}
	h.units = max(1, (size+unitSize-1)/unitSize)
	h.moved = sync.NewCond(&h.mu)
	if outboard != nil {
		if _, err := outboard.WriteAt(outboardHead(size), 0); err != nil {
			return Digest{}, fmt.Errorf("write outboard: %w", err)
		}
	}
	if n := min(int64(runtime.GOMAXPROCS(0)), h.units, maxHashers); n == 1 {
		h.work()
	} else {
		var wg sync.WaitGroup
		for range n {
			wg.Go(h.work)
		}
		wg.Wait()
	}
	if h.err != nil {
		return Digest{}, h.err
	}
	if n, err := f.ReadAt(make([]byte, 1), size); n > 0 {
		return Digest{}, fmt.Errorf("grew beyond %d bytes while it was read: %w", size, ErrChanged)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return Digest{}, err
	}
	root := h.stack[0].cv
	var d Digest
	putCV(d[:], root)
	return d, nil
}

// subtree is a node that has been computed: it covers n bytes from pos.
type subtree struct {
	pos, n int64
	cv     chainingValue
}

// fileHasher hashes one file. Workers take units in order; their nodes are
// joined in order, whoever is done first.
type fileHasher struct {
	ctx   context.Context
	f     io.ReaderAt
	out   io.WriterAt // nil: no outboard
	size  int64
	units int64

	mu      sync.Mutex
	moved   *sync.Cond              // joined or err changed
	taken   int64                   // units given to workers
	joined  int64                   // units that are in stack
	pending map[int64]chainingValue // units done out of order
	stack   []subtree               // complete subtrees from left to right, in the end the root
	err     error
}

// take returns the number of the next unit to hash.
func (h *fileHasher) take() (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.err == nil && h.taken < h.units && h.taken >= h.joined+hashWindow {
		h.moved.Wait()
	}
	if h.err == nil {
		h.err = h.ctx.Err()
	}
	if h.err != nil || h.taken == h.units {
		return 0, false
	}
	h.taken++
	return h.taken - 1, true
}

func (h *fileHasher) work() {
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		i, ok := h.take()
		if !ok {
			return
		}
		cv, err := h.unit(buf, i)
		h.mu.Lock()
		if err == nil {
			err = h.join(i, cv)
		}
		if err != nil && h.err == nil {
			h.err = err
		}
		h.moved.Broadcast()
		h.mu.Unlock()
	}
}

// unit hashes the i-th unit and writes its inner nodes to the outboard.
func (h *fileHasher) unit(buf *[readSize]byte, i int64) (chainingValue, error) {
	pos := i * unitSize
	n := min(unitSize, h.size-pos)
	var flags uint32
	if h.units == 1 {
		flags = guts.FlagRoot
	}
	var cvs [unitGroups]chainingValue
	g := 0
	for off := pos; off < pos+n || g == 0; {
		b := buf[:min(readSize, pos+n-off)]
		if k, err := h.f.ReadAt(b, off); k < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = fmt.Errorf("ended at %d of %d bytes while it was read: %w", off+int64(k), h.size, ErrChanged)
			}
			return chainingValue{}, err
		}
		for o := 0; o < len(b) || g == 0; o += groupSize {
			var groupFlags uint32
			if n <= groupSize {
				groupFlags = flags
			}
			cvs[g] = groupCV(buf[o:min(o+groupSize, len(b))], off+int64(o), groupFlags)
			g++
		}
		off += int64(len(b))
	}
	if g == 1 {
		return cvs[0], nil
	}
	var nodes [(unitGroups - 1) * outboardNode]byte
	cv := joinGroups(cvs[:g], nodes[:], flags)
	if h.out != nil {
		if _, err := h.out.WriteAt(nodes[:(g-1)*outboardNode], nodeOffset(h.size, pos, n)); err != nil {
			return cv, fmt.Errorf("write outboard: %w", err)
		}
	}
	return cv, nil
}

// joinGroups returns the chaining value over the groups, and puts the nodes
// between into out, in pre-order.
func joinGroups(cvs []chainingValue, out []byte, flags uint32) chainingValue {
	if len(cvs) == 1 {
		return cvs[0]
	}
	left := int(leftSize(int64(len(cvs))))
	l := joinGroups(cvs[:left], out[outboardNode:], 0)
	r := joinGroups(cvs[left:], out[outboardNode*left:], 0)
	putCV(out, l)
	putCV(out[32:], r)
	return parentCV(l, r, flags)
}

// join adds a unit that is done, and every one that waited for it, to the
// stack. Complete subtrees of equal size are joined at once, the rest, whose
// sizes fall from left to right, when the last unit is there. Called with mu held.
func (h *fileHasher) join(i int64, cv chainingValue) error {
	h.pending[i] = cv
	for {
		cv, ok := h.pending[h.joined]
		if !ok {
			return nil
		}
		delete(h.pending, h.joined)
		pos := h.joined * unitSize
		h.stack = append(h.stack, subtree{pos, min(unitSize, h.size-pos), cv})
		h.joined++
		for len(h.stack) > 1 {
			l, r := h.stack[len(h.stack)-2], h.stack[len(h.stack)-1]
			if l.n != r.n && h.joined < h.units {
				break
			}
			p := subtree{pos: l.pos, n: l.n + r.n}
			var flags uint32
			if p.n == h.size {
				flags = guts.FlagRoot
			}
			p.cv = parentCV(l.cv, r.cv, flags)
			if h.out != nil {
				var b [outboardNode]byte
				putCV(b[:], l.cv)
				putCV(b[32:], r.cv)
				if _, err := h.out.WriteAt(b[:], nodeOffset(h.size, p.pos, p.n)); err != nil {
					return fmt.Errorf("write outboard: %w", err)
				}
			}
			h.stack = append(h.stack[:len(h.stack)-2], p)
		}
	}
}
