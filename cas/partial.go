package cas

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/internal/fault"
)

// A partial blob is a large blob of which the store has some groups, each
// verified when it came. It lies in a tier of its own, STORE/partial, which
// says itself that it is not whole; nothing but a [Partial] reads it. Three
// files, by digest:
//
//	<digest>           the bytes, with holes
//	<digest>.outboard  the nodes that verified them, the others zero
//	<digest>.map       which groups are there
//
// The map, integers little-endian:
//
//	offset  bytes
//	0       8      "curipart"
//	8       1      version, 1
//	9       7      zero
//	16      8      size of the blob in bytes
//	24      16     which system wrote it last: the first bytes of the digest of
//	               its host name and boot id. Another one, or the same after a
//	               restart, verifies what is there before it believes the map
//	40      n      a bit for each group, the lowest of a byte first
const (
	partialMagic   = "curipart"
	partialVersion = 1
	partialHeader  = 40
)

// MaxPartial bounds a partial blob, in bytes: the map of a larger one, whose
// size is the word of a remote, would not fit into memory.
const MaxPartial = 8 << 40

// Partial is an open partial blob. It may be used by several goroutines, and
// several processes may have it open at once.
type Partial struct {
	s      *Store
	digest Digest
	size   int64
	data   *os.File
	nodes  *os.File
	bits   *os.File

	turn    sync.Mutex // for the flock of the map, which is the process's, not the goroutine's; before mu
	mu      sync.Mutex // never held while something is waited for: every reader takes it
	present []byte
	missing int64         // groups
	moved   chan struct{} // closed when more is here; nil while nobody waits for that
}

func (s *Store) partialPath(d Digest) string { return s.path("partial", d) }

// OpenPartial opens what the store has of the blob d, of size bytes, which may
// be nothing yet. Only blobs that have an outboard can be partial: of at most
// [MinOutboard] bytes, or more than [MaxPartial], it is an error that wraps
// [ErrInvalid].
func (s *Store) OpenPartial(ctx context.Context, d Digest, size int64) (*Partial, error) {
	switch {
	case size <= outboardMin:
		return nil, fmt.Errorf("partial blob %s: %d bytes are too few to come in parts: %w", d.Short(), size, ErrInvalid)
	case size > MaxPartial:
		return nil, fmt.Errorf("partial blob %s: %d bytes are too many to come in parts, of which %d can: %w", d.Short(), size, int64(MaxPartial), ErrInvalid)
	}
	p := &Partial{s: s, digest: d, size: size}
	path := s.partialPath(d)
	err := s.makeDirs(filepath.Dir(path))
	if err == nil {
		err = p.open(ctx, path, s.openShared)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("partial blob %s: %w", d.Short(), err)
	}
	return p, nil
}

// openScratch is OpenPartial in the scratch directory, for who cannot write to
// the store: nothing is there before, and nothing stays.
func (s *Store) openScratch(ctx context.Context, d Digest, size int64) (*Partial, error) {
	dir, err := os.MkdirTemp(s.scratch, "curi-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // what is open stays that long
	p := &Partial{s: s, digest: d, size: size}
	err = p.open(ctx, filepath.Join(dir, "blob"), func(path string) (*os.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	})
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("scratch for blob %s: %w", d.Short(), err)
	}
	return p, nil
}

func (p *Partial) open(ctx context.Context, path string, open func(string) (*os.File, error)) error {
	for _, f := range []struct {
		to   **os.File
		path string
	}{{&p.data, path}, {&p.nodes, path + ".outboard"}, {&p.bits, path + ".map"}} {
		var err error
		if *f.to, err = open(f.path); err != nil {
			return err
		}
	}
	// A collection goes by when it was last opened.
	now := time.Now()
	_ = os.Chtimes(p.bits.Name(), now, now)
	// The header, and what the map says, under the lock that changes it.
	if err := flock(p.bits, unix.LOCK_EX); err != nil {
		return err
	}
	defer flock(p.bits, unix.LOCK_UN)
	return p.readMap(ctx)
}

func (p *Partial) mapSize() int64 { return partialHeader + (groups(p.size)+7)/8 }

// thisSystem identifies a run of a kernel.
func thisSystem() []byte {
	h := thisHost()
	d := Sum([]byte(h.name + "\x00" + h.boot))
	return d[:16]
}

// readMap reads the map, or begins one; called with its lock.
func (p *Partial) readMap(ctx context.Context) error {
	b, err := io.ReadAll(io.NewSectionReader(p.bits, 0, p.mapSize()+1))
	if err != nil {
		return err
	}
	head := make([]byte, partialHeader)
	copy(head, partialMagic)
	head[8] = partialVersion
	binary.LittleEndian.PutUint64(head[16:], uint64(p.size))
	copy(head[24:], thisSystem())
	known := int64(len(b)) == p.mapSize() && bytes.Equal(b[:24], head[:24]) && p.hasFiles()
	if !known {
		b = append(head, make([]byte, p.mapSize()-partialHeader)...)
	}
	p.present = b[partialHeader:]
	if known && bytes.Equal(b[24:partialHeader], head[24:]) {
		p.count()
		return nil
	}
	if known {
		if err := p.recheck(ctx); err != nil {
			return err
		}
	} else if err := p.data.Truncate(p.size); err != nil {
		return storeError(err)
	}
	p.count()
	if _, err := p.bits.WriteAt(append(head, p.present...), 0); err != nil {
		return storeError(err)
	}
	return p.bits.Truncate(p.mapSize())
}

func (p *Partial) count() {
	p.missing = groups(p.size)
	if over := p.missing % 8; over != 0 { // what stands behind the last group means nothing
		p.present[len(p.present)-1] &= 1<<over - 1
	}
	for _, x := range p.present {
		p.missing -= int64(bits.OnesCount8(x))
	}
}

// openShared opens a file of a tier for reading and writing, and makes it.
func (s *Store) openShared(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return f, s.shareFile(f, s.smallFileMode())
	}
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if errors.Is(err, fs.ErrPermission) && os.Chmod(path, s.smallFileMode()) == nil {
		f, err = os.OpenFile(path, os.O_RDWR, 0) // it was about to become a blob
	}
	if err != nil {
		return nil, storeError(err)
	}
	return f, nil
}

// Size of the whole blob in bytes.
func (p *Partial) Size() int64 { return p.size }

// partialBytes is how many bytes of a blob are here in part.
func (s *Store) partialBytes(d Digest, size int64) int64 {
	if size <= outboardMin {
		return 0
	}
	b, err := os.ReadFile(s.partialPath(d) + ".map")
	p := Partial{size: size}
	if err != nil || int64(len(b)) != p.mapSize() {
		return 0
	}
	p.present = b[partialHeader:]
	p.count()
	return p.Local()
}

// Whole reports whether every group is there: then [Partial.Promote].
func (p *Partial) Whole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.missing == 0 || p.readBits(0, groups(p.size)) == nil && p.missing == 0
}

// more returns a channel that is closed when more is here than now.
func (p *Partial) more() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.moved == nil {
		p.moved = make(chan struct{})
	}
	return p.moved
}

// Local is how many bytes are there.
func (p *Partial) Local() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, min(p.size, (groups(p.size)-p.missing)*groupSize))
}

// Missing returns the first gap in n bytes from off: its beginning and end, in
// whole groups, or at the end of the blob. They are equal if all is there.
func (p *Partial) Missing(off, n int64) (lo, hi int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lo, hi = p.gap(off, n); lo == hi || p.readBits(lo/groupSize, (off+n+groupSize-1)/groupSize) != nil {
		return lo, hi
	}
	return p.gap(off, n) // another process may have brought it
}

func (p *Partial) gap(off, n int64) (lo, hi int64) {
	end := min(off+n, p.size)
	g := off / groupSize
	for g*groupSize < end && p.present[g/8]&(1<<(g%8)) != 0 {
		if g%8 == 0 && p.present[g/8] == 0xff {
			g += 8
		} else {
			g++
		}
	}
	if g*groupSize >= end {
		return end, end
	}
	lo = g * groupSize
	for ; g*groupSize < end && p.present[g/8]&(1<<(g%8)) == 0; g++ {
	}
	return lo, min(g*groupSize, p.size)
}

// readBits takes over what other processes brought of some groups; called with
// mu held.
func (p *Partial) readBits(from, to int64) error {
	have := p.present[from/8 : min((to+7)/8, int64(len(p.present)))]
	b := make([]byte, len(have))
	if _, err := p.bits.ReadAt(b, partialHeader+from/8); err != nil {
		return err
	}
	if over := groups(p.size) % 8; over != 0 && to > groups(p.size)-over { // what stands behind the last group means nothing
		b[len(b)-1] &= 1<<over - 1
	}
	for i, x := range b {
		p.missing -= int64(bits.OnesCount8(x &^ have[i]))
		have[i] |= x
	}
	return nil
}

// ReadAt reads bytes that are there; others are an error that wraps
// [ErrNotFound].
func (p *Partial) ReadAt(b []byte, off int64) (int, error) {
	if off >= p.size {
		return 0, io.EOF
	}
	if lo, hi := p.Missing(off, int64(len(b))); lo != hi {
		return 0, fmt.Errorf("bytes %d to %d of blob %s are not here yet: %w", lo, hi, p.digest.Short(), ErrNotFound)
	}
	return p.data.ReadAt(b, off)
}

// addStep is how much is verified and written at once.
const addStep = 512 << 10

// Add brings the bytes at off, whole groups, with the nodes that verify them:
// an outboard of which only the nodes must be there that lead to these groups.
// Where something does not lead to the digest it is [ErrCorrupt], and nothing of
// it counts as here.
func (p *Partial) Add(b []byte, off int64, nodes io.ReaderAt) error {
	if len(b) == 0 {
		return nil
	}
	used := &nodeRuns{}
	for at := int64(0); at < int64(len(b)); at += addStep {
		// What was verified is written while it is still in the core's cache. It
		// counts as here when all of it is.
		piece := b[at:min(at+addStep, int64(len(b)))]
		if err := p.verify(piece, off+at, nodes, used); err != nil {
			return err
		}
		if _, err := p.data.WriteAt(piece, off+at); err != nil {
			return noSpace(storeError(err), p.s.dir)
		}
	}
	for _, r := range *used {
		if _, err := p.nodes.WriteAt(r.b, r.at); err != nil {
			return noSpace(storeError(err), p.s.dir)
		}
	}
	fault.At(fault.PartialCame)
	return p.mark(off/groupSize, (off+int64(len(b))+groupSize-1)/groupSize)
}

// WriteBack begins to write n bytes from off on to the disk, for who will
// promote the blob soon: that then has little left to wait for.
func (p *Partial) WriteBack(off, n int64) { startWriteback(p.data, off, n) }

// mark notes that groups are there, so that other processes see it.
func (p *Partial) mark(from, to int64) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := flock(p.bits, unix.LOCK_EX); err != nil {
		return err
	}
	defer flock(p.bits, unix.LOCK_UN)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.readBits(from, to); err != nil {
		return err
	}
	for g := from; g < to; g++ {
		if p.present[g/8]&(1<<(g%8)) == 0 {
			p.present[g/8] |= 1 << (g % 8)
			p.missing--
		}
	}
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
	_, err := p.bits.WriteAt(p.present[from/8:(to+7)/8], partialHeader+from/8)
	return err
}

// Close closes the files; what is there stays.
func (p *Partial) Close() error {
	var first error
	for _, f := range []*os.File{p.data, p.nodes, p.bits} {
		if f != nil {
			if err := f.Close(); err != nil && first == nil {
				first = err
			}
		}
	}
	return first
}
