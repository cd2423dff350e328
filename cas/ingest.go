package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/curi-store/curi/internal/fault"
)

const (
	// smallFile is the largest file that is read whole before it is decided
	// whether it has to be stored at all, in bytes.
	smallFile = 1 << 20
	// writebackStep is how much of a large copy is handed to the disk at once.
	writebackStep = 8 << 20
)

var smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallFile+1); return &b }}

// staged is a blob that a batch is about to publish.
type staged struct {
	size     int64
	path     string      // the file to rename into the store; "" if the store has the blob
	outboard string      // its outboard, staged; "" if it has none
	sealed   *sealedFile // path is where a program left it, until that is hidden in staging
}

// batch gathers what one add stores. The methods may be called by several
// goroutines at once until publish.
type batch struct {
	s  *Store
	st *staging

	mu     sync.Mutex
	blobs  map[Digest]*staged
	trees  []stagedTree // children before parents
	isTree map[Digest]bool

	take       *taker // of a seal or a move
	references []pendingReference

	noClone atomic.Bool // this filesystem shares no blocks between files
}

func (s *Store) newBatch() (*batch, error) {
	st, err := s.newStaging()
	if err != nil {
		return nil, err
	}
	return &batch{s: s, st: st, blobs: map[Digest]*staged{}, isTree: map[Digest]bool{}}, nil
}

// claim reports whether the caller has to stage the blob d: neither the store
// nor the batch has it.
func (b *batch) claim(d Digest, size int64) bool {
	b.mu.Lock()
	_, ok := b.blobs[d]
	if !ok {
		b.blobs[d] = &staged{size: size}
	}
	b.mu.Unlock()
	return !ok && !b.s.hasWholeBlob(d, size)
}

// hasWholeBlob reports whether the store itself holds d, in its full length: a
// blob that a crash or a scratch purge cut is stored anew.
func (s *Store) hasWholeBlob(d Digest, size int64) bool {
	st, err := lstatFile(s.blobPath(d))
	return err == nil && st.isRegular() && st.size == size
}

// has reports whether a tree of the batch can name the blob: the batch has it,
// or the store, where it is looked for again before anything is published.
func (b *batch) has(d Digest, size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blobs[d]; ok {
		return true
	}
	if b.s.hasWholeBlob(d, size) {
		b.blobs[d] = &staged{size: size}
		return true
	}
	return b.s.HasBlob(d) // a reference
}

func (b *batch) put(d Digest, st *staged) {
	b.mu.Lock()
	b.blobs[d] = st
	b.mu.Unlock()
}

// moved notes where a sealed file lies now.
func (b *batch) moved(d Digest, path string) {
	b.mu.Lock()
	b.blobs[d].path = path
	b.mu.Unlock()
}

// bytes stages a small blob and returns its digest.
func (b *batch) bytes(p []byte) (Digest, error) {
	d := Sum(p)
	if !b.claim(d, int64(len(p))) {
		return d, nil
	}
	path, err := b.write(p)
	if err != nil {
		return d, err
	}
	b.put(d, &staged{size: int64(len(p)), path: path})
	return d, nil
}

// write puts p into a staging file and returns its path.
func (b *batch) write(p []byte) (string, error) {
	a, err := b.st.area()
	if err != nil {
		return "", err
	}
	defer b.st.giveBack(a)
	return a.write(p)
}

// errUnstable: a file changed while it was read.
var errUnstable = errors.New("changes while it is read")

// file stores the bytes of the open file f and returns their digest and the
// file's state, which is the same before and after. errUnstable if it is not.
func (b *batch) file(ctx context.Context, f *os.File, progress func(int64)) (Digest, fileState, error) {
	before, err := fstatFile(f)
	if err != nil {
		return Digest{}, before, err
	}
	return b.largeFile(ctx, f, before, progress)
}

// smallFile stores the bytes of the file at path, of at most smallFile bytes.
func (b *batch) smallFile(path string, progress func(int64)) (Digest, fileState, error) {
	p := smallBuffers.Get().(*[]byte)
	defer smallBuffers.Put(p)
	n, st, err := readSmall(path, *p)
	if err != nil {
		return Digest{}, st, err
	}
	progress(int64(n))
	d, err := b.bytes((*p)[:n])
	return d, st, err
}

func unchanged(f *os.File, before fileState) error {
	after, err := fstatFile(f)
	if err == nil && !before.same(after) {
		err = errUnstable
	}
	return err
}

func (b *batch) largeFile(ctx context.Context, f *os.File, before fileState, progress func(int64)) (Digest, fileState, error) {
	st, d, err := b.copyLarge(ctx, f, before, progress)
	if errors.Is(err, ErrChanged) {
		err = errUnstable
	}
	if err == nil {
		err = unchanged(f, before)
	}
	if err == nil && b.claim(d, st.size) {
		b.put(d, st)
		return d, before, nil
	}
	if st != nil {
		os.Remove(st.path)
		os.Remove(st.outboard)
	}
	return d, before, err
}

// copyLarge stages a copy of f with its outboard. The bytes are hashed on
// their way, so that they are read once; a reflink is hashed itself, because
// its source may change in between.
func (b *batch) copyLarge(ctx context.Context, f *os.File, state fileState, progress func(int64)) (*staged, Digest, error) {
	a, err := b.st.area()
	if err != nil {
		return nil, Digest{}, err
	}
	defer b.st.giveBack(a)
	dst, cloned, err := b.cloneInto(a, f)
	if err != nil {
		return nil, Digest{}, err
	}
	defer dst.Close()
	st := &staged{size: state.size, path: dst.Name()}
	var outboard io.WriterAt
	if state.size > outboardMin {
		o, err := a.create()
		if err != nil {
			return st, Digest{}, err
		}
		defer o.Close()
		outboard, st.outboard = o, o.Name()
	}
	var r io.ReaderAt = &meteredReader{dst, progress}
	if !cloned {
		r = &copyingReader{src: sparseSource(f, state), dst: dst, size: state.size, sparse: state.blocks*512 < state.size, progress: progress}
	}
	d, err := hashFile(ctx, r, state.size, outboard)
	if err == nil && !cloned {
		err = dst.Truncate(state.size) // a hole at the end was not written
	}
	return st, d, err
}

// cloneInto makes a staging file that shares the blocks of f, or an empty one.
func (b *batch) cloneInto(a *stagingArea, f *os.File) (dst *os.File, cloned bool, err error) {
	if !b.noClone.Load() {
		dst, err := tryClone(f, a.path(), blobMode)
		if err == nil {
			return dst, true, dst.Chmod(blobMode)
		}
		if !errors.Is(err, errNoClone) {
			return nil, false, err
		}
		b.noClone.Store(true)
	}
	dst, err = a.create()
	return dst, false, err
}

// meteredReader tells the progress of reading.
type meteredReader struct {
	io.ReaderAt
	progress func(int64)
}

func (r *meteredReader) ReadAt(p []byte, off int64) (int, error) {
	if err := fault.In(fault.Read); err != nil {
		return 0, err
	}
	n, err := r.ReaderAt.ReadAt(p, off)
	r.progress(int64(n))
	return n, err
}

// copyingReader writes all that is read from src to the same place of dst.
type copyingReader struct {
	src      io.ReaderAt
	dst      *os.File
	size     int64
	sparse   bool // src has holes, which dst keeps
	progress func(int64)
}

func (r *copyingReader) ReadAt(p []byte, off int64) (int, error) {
	if err := fault.In(fault.Read); err != nil {
		return 0, err
	}
	n, err := r.src.ReadAt(p, off)
	if off >= r.size || n == 0 {
		return n, err
	}
	if !r.sparse || !allZero(p[:n]) {
		if err := fault.In(fault.Write); err != nil {
			return 0, err
		}
		if _, werr := r.dst.WriteAt(p[:n], off); werr != nil {
			return 0, werr
		}
	}
	if end := off + int64(n); end%writebackStep == 0 {
		startWriteback(r.dst, end-writebackStep, writebackStep)
	}
	r.progress(int64(n))
	return n, err
}

var zeros [4096]byte

func allZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// stream stores what r yields, of unknown length, and returns digest and size.
func (b *batch) stream(ctx context.Context, r io.Reader, progress func(int64)) (Digest, int64, error) {
	p := smallBuffers.Get().(*[]byte)
	defer smallBuffers.Put(p)
	n, end, err := fill(r, *p)
	switch {
	case err != nil:
		return Digest{}, 0, err
	case end:
		progress(int64(n))
		d, err := b.bytes((*p)[:n])
		return d, int64(n), err
	}
	st, d, err := b.copyStream(ctx, io.MultiReader(bytes.NewReader(*p), r), progress)
	if err == nil && b.claim(d, st.size) {
		b.put(d, st)
		return d, st.size, nil
	}
	if st == nil {
		return d, 0, err
	}
	os.Remove(st.path)
	os.Remove(st.outboard)
	return d, st.size, err
}

// fill reads until buf is full, or r is at its end. io.ReadFull would not tell
// that from a source that was cut off (a connection, an archive), which says so
// by io.ErrUnexpectedEOF.
func fill(r io.Reader, buf []byte) (n int, end bool, err error) {
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// copyStream stages what r yields, then hashes it from the page cache with all
// cores: for the outboard the length must be known.
func (b *batch) copyStream(ctx context.Context, r io.Reader, progress func(int64)) (*staged, Digest, error) {
	a, err := b.st.area()
	if err != nil {
		return nil, Digest{}, err
	}
	defer b.st.giveBack(a)
	dst, err := a.create()
	if err != nil {
		return nil, Digest{}, err
	}
	defer dst.Close()
	st := &staged{path: dst.Name()}
	buf := readBuffers.Get().(*[readSize]byte)
	defer readBuffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return st, Digest{}, err
		}
		n, end, err := fill(r, buf[:])
		if err != nil {
			return st, Digest{}, err
		}
		if n > 0 {
			if err := fault.In(fault.Write); err != nil {
				return st, Digest{}, err
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return st, Digest{}, err
			}
			st.size += int64(n)
			progress(int64(n))
			if st.size%writebackStep == 0 {
				startWriteback(dst, st.size-writebackStep, writebackStep)
			}
		}
		if end {
			break
		}
	}
	outboard, err := a.create()
	if err != nil {
		return st, Digest{}, err
	}
	defer outboard.Close()
	st.outboard = outboard.Name()
	d, err := hashFile(ctx, dst, st.size, outboard)
	return st, d, err
}

// openSource opens a file that is to be read whole.
func openSource(path string) (*os.File, error) {
	// Should the name have become a FIFO since it was listed, do not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := fstatFile(f)
	if err == nil && !st.isRegular() {
		err = fmt.Errorf("%s: no longer a regular file: %w", path, ErrChanged)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// stageOutboard makes an empty staging file for an outboard.
func (b *batch) stageOutboard() (*os.File, error) {
	a, err := b.st.area()
	if err != nil {
		return nil, err
	}
	defer b.st.giveBack(a)
	return a.create()
}
