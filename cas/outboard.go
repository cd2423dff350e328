package cas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"lukechampine.com/blake3/guts"
)

// An outboard holds the inner nodes of a blob's BLAKE3 tree, so that any range
// of the blob can be verified without reading the rest. Blobs of at most
// [outboardMin] bytes have none: reading them whole is as fast.
//
// The file STORE/outboards/<2 hex>/<digest>, all integers little-endian:
//
//	offset  bytes
//	0       8      "curioutb"
//	8       1      version, 1
//	9       1      g, the logarithm of the chunks in a group: 4, so a group is 16 KiB
//	10      6      zero
//	16      8      size of the blob in bytes
//	24      64×n   the n = ceil(size / 1024 / 2^g) - 1 inner nodes above the groups, in
//	               pre-order; each is the chaining value of its left child, 32
//	               bytes, then that of its right child
//
// What follows offset 16 is a Bao outboard encoding with chunk groups. The
// left child of a node over more than one group covers the largest power of
// two of bytes that is less than what the node covers. An outboard is derived
// data: nothing in it is believed before it led to the digest, and one that is
// lost or damaged can be made again from the blob.
const (
	outboardMagic   = "curioutb"
	outboardVersion = 1
	outboardHeader  = 24
	outboardNode    = 64

	groupLog  = 4
	groupSize = guts.ChunkSize << groupLog

	// outboardMin is the largest blob without an outboard, in bytes.
	outboardMin = 1 << 20
)

type chainingValue = [8]uint32

func groups(size int64) int64 { return max(1, (size+groupSize-1)/groupSize) }

// outboardSize is the length of the outboard file of a blob of size bytes.
func outboardSize(size int64) int64 { return outboardHeader + outboardNode*(groups(size)-1) }

func outboardHead(size int64) []byte {
	b := make([]byte, outboardHeader)
	copy(b, outboardMagic)
	b[8], b[9] = outboardVersion, groupLog
	binary.LittleEndian.PutUint64(b[16:], uint64(size))
	return b
}

// leftSize is the number of bytes below the left child of a node over n > groupSize bytes.
func leftSize(n int64) int64 { return 1 << (bits.Len64(uint64(n-1)) - 1) }

// nodeOffset is where the outboard of a blob of size bytes holds the node that
// covers n bytes from pos.
func nodeOffset(size, pos, n int64) int64 {
	off, start := int64(outboardHeader), int64(0)
	for start != pos || size != n {
		left := leftSize(size)
		if pos < start+left {
			off += outboardNode
			size = left
		} else {
			off += outboardNode * groups(left)
			start += left
			size -= left
		}
	}
	return off
}

func putCV(b []byte, cv chainingValue) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
}

func getCV(b []byte) (cv chainingValue) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return cv
}

// parentCV is the chaining value of the node with these children.
func parentCV(l, r chainingValue, flags uint32) chainingValue {
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

// groupCV is the chaining value of one chunk group, of 0 to groupSize bytes at
// position pos of the blob. b must have capacity for a whole group: the vector
// code reads that far, and ignores what it finds.
func groupCV(b []byte, pos int64, flags uint32) chainingValue {
	touch(b)
	n := guts.CompressBuffer((*[groupSize]byte)(b[:groupSize]), len(b), &guts.IV, uint64(pos/guts.ChunkSize), 0)
	n.Flags |= flags
	return guts.ChainingValue(n)
}

// touch loads what is about to be hashed into the core's cache. The vector code
// goes through 16 chunks side by side, which the hardware does not foresee: from
// memory, or from another core's cache, it took twice the time.
//
//go:noinline
func touch(b []byte) (all byte) {
	for i := 0; i < len(b); i += 64 {
		all |= b[i]
	}
	return all
}

// Outboard verifies ranges of one blob against its digest alone. It may be
// used by several goroutines at once.
type Outboard struct {
	r      io.ReaderAt
	c      io.Closer
	digest Digest
	size   int64
}

// ParseOutboard begins to use r, which holds n bytes, as the outboard of the
// blob d. A malformed header is an error that wraps [ErrCorrupt]; the nodes
// are checked by [Outboard.Verify].
func ParseOutboard(r io.ReaderAt, n int64, d Digest) (*Outboard, error) {
	var h [outboardHeader]byte
	if n < outboardHeader {
		return nil, fmt.Errorf("outboard of %s: %d bytes are too few: %w", d.Short(), n, ErrCorrupt)
	}
	if _, err := r.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("outboard of %s: %w", d.Short(), err)
	}
	size := int64(binary.LittleEndian.Uint64(h[16:]))
	switch {
	case string(h[:8]) != outboardMagic:
		return nil, fmt.Errorf("outboard of %s: does not begin like one: %w", d.Short(), ErrCorrupt)
	case h[8] != outboardVersion || h[9] != groupLog || h[10]|h[11]|h[12]|h[13]|h[14]|h[15] != 0:
		return nil, fmt.Errorf("outboard of %s: version %d with groups of 2^%d chunks is unknown to this Curi: %w", d.Short(), h[8], h[9], ErrFormat)
	case size < 0 || size > 1<<62 || outboardSize(size) != n:
		return nil, fmt.Errorf("outboard of %s: %d bytes do not fit a blob of %d bytes: %w", d.Short(), n, uint64(size), ErrCorrupt)
	}
	o := &Outboard{r: r, digest: d, size: size}
	o.c, _ = r.(io.Closer)
	return o, nil
}

// Size is the size of the blob in bytes, as the outboard has it. It is proven
// once a range that ends there was verified.
func (o *Outboard) Size() int64 { return o.size }

// Close closes what the outboard was read from.
func (o *Outboard) Close() error {
	if o.c == nil {
		return nil
	}
	return o.c.Close()
}

// Align widens a range of the blob to whole chunk groups, which is what
// [Outboard.Verify] wants.
func (o *Outboard) Align(off, n int64) (int64, int64) {
	start := off / groupSize * groupSize
	end := min(o.size, (off+n+groupSize-1)/groupSize*groupSize)
	return start, max(0, end-start)
}

// Verify checks that p is what the blob holds at off. The range must begin at
// a group and end at one or at the end of the blob (see [Outboard.Align]).
// Bytes or nodes that do not lead to the digest are an error that wraps
// [ErrCorrupt].
func (o *Outboard) Verify(p []byte, off int64) error {
	n := int64(len(p))
	// No sums before they are known to be small.
	if off < 0 || off%groupSize != 0 || off > o.size || n > o.size-off || (off+n)%groupSize != 0 && off+n != o.size {
		return fmt.Errorf("verify %d bytes at %d of %s: not whole groups of its %d bytes: %w", n, off, o.digest.Short(), o.size, ErrInvalid)
	}
	if len(p) == 0 && o.size > 0 {
		return nil
	}
	v := verifier{o: o, p: p, off: off}
	return v.node(getCV(o.digest[:]), outboardHeader, 0, o.size, guts.FlagRoot)
}

type verifier struct {
	o   *Outboard
	p   []byte
	off int64
	buf [groupSize]byte
}

// node verifies what v.p holds of the n bytes at pos, whose node lies at
// offset at in the outboard and must have the chaining value cv.
func (v *verifier) node(cv chainingValue, at, pos, n int64, flags uint32) error {
	if n > 0 && (pos >= v.off+int64(len(v.p)) || pos+n <= v.off) {
		return nil // not asked for
	}
	if n <= groupSize {
		group := v.p[pos-v.off:][:n]
		if cap(group) < groupSize {
			group = v.buf[:copy(v.buf[:], group)]
		}
		if groupCV(group, pos, flags) != cv {
			return fmt.Errorf("bytes %d to %d of %s do not match its digest: %w", pos, pos+n, v.o.digest.Short(), ErrCorrupt)
		}
		return nil
	}
	var b [outboardNode]byte
	if _, err := v.o.r.ReadAt(b[:], at); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("cut off: %w", ErrCorrupt)
		}
		return fmt.Errorf("outboard of %s: %w", v.o.digest.Short(), err)
	}
	l, r := getCV(b[:32]), getCV(b[32:])
	if parentCV(l, r, flags) != cv {
		return fmt.Errorf("outboard of %s: the node at byte %d does not match the digest: %w", v.o.digest.Short(), at, ErrCorrupt)
	}
	left := leftSize(n)
	if err := v.node(l, at+outboardNode, pos, left, 0); err != nil {
		return err
	}
	return v.node(r, at+outboardNode*groups(left), pos+left, n-left, 0)
}
