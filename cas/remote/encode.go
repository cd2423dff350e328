package remote

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/curi-store/curi/cas"
)

// encoding says how the bytes of a chunk lie in a pack. The set is open: a
// reader refuses what it does not know.
type encoding uint8

const (
	encStored  encoding = 0 // as they are
	encZstd    encoding = 1 // one zstd frame
	encPlanes2 encoding = 2 // byte planes of 2-byte elements
	encPlanes4 encoding = 3 // byte planes of 4-byte elements
)

// maxChunk is the most bytes that a chunk may have, whatever wrote it.
const maxChunk = 1 << 20

// A compressed form must save more than 1/minSaving to be worth its time.
const minSaving = 32

var (
	zstdWriters = sync.Pool{New: func() any {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(maxChunk))
		if err != nil {
			panic(err) // the options are constants
		}
		return w
	}}
	// Pages of recipes have checksums: not all of them lead to a digest.
	zstdPageWriters = sync.Pool{New: func() any {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderCRC(true), zstd.WithSingleSegment(true), zstd.WithWindowSize(maxChunk))
		if err != nil {
			panic(err)
		}
		return w
	}}
	zstdReaders = sync.Pool{New: func() any {
		r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxHead),
			zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return r
	}}
)

func zstdAppend(dst, src []byte) []byte {
	w := zstdWriters.Get().(*zstd.Encoder)
	defer zstdWriters.Put(w)
	return w.EncodeAll(src, dst)
}

func zstdPage(raw []byte) []byte {
	w := zstdPageWriters.Get().(*zstd.Encoder)
	defer zstdPageWriters.Put(w)
	return w.EncodeAll(raw, nil)
}

// zstdInto decompresses src, which must yield exactly len(dst) bytes.
func zstdInto(dst, src []byte) error {
	r := zstdReaders.Get().(*zstd.Decoder)
	defer zstdReaders.Put(r)
	out, err := r.DecodeAll(src, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("%w: %w", err, cas.ErrCorrupt)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("decompresses to %d bytes instead of %d: %w", len(out), len(dst), cas.ErrCorrupt)
	}
	return nil
}

// encodeChunk appends the shortest form of raw that is quick to find to dst.
func encodeChunk(dst, raw []byte) ([]byte, encoding) {
	begin := len(dst)
	flat, by2, by4 := entropies(raw)
	enc := encStored
	switch best := min(by2, by4); {
	case best < flat-0.25 && best < 7.7:
		enc = encPlanes2
		if by4 < by2-0.1 {
			enc = encPlanes4
		}
		dst = appendPlanes(dst, raw, enc.stride())
		if flat < 7 {
			// Structured: repetitions may be worth more than the planes.
			if plain := zstdAppend(nil, raw); len(plain) < len(dst)-begin {
				enc, dst = encZstd, append(dst[:begin], plain...)
			}
		}
	default:
		// Bytes that look random may still repeat, and the compressor gives up
		// on those that do not nearly as fast as a copy is made.
		enc, dst = encZstd, zstdAppend(dst, raw)
	}
	if len(dst)-begin > len(raw)-len(raw)/minSaving {
		return append(dst[:begin], raw...), encStored
	}
	return dst, enc
}

func (e encoding) stride() int {
	switch e {
	case encPlanes2:
		return 2
	case encPlanes4:
		return 4
	}
	return 1
}

// entropies measures a sample: the bits that a byte takes when bytes are coded
// alone; coded so in two planes; in four.
func entropies(raw []byte) (flat, by2, by4 float64) {
	const sample = 16 << 10
	if len(raw) < 256 {
		return 8, 8, 8
	}
	if len(raw) > sample {
		at := (len(raw) - sample) / 2
		raw = raw[at : at+sample]
	}
	var hist [4][256]uint32
	n := len(raw) &^ 3
	for i := 0; i < n; i += 4 {
		hist[0][raw[i]]++
		hist[1][raw[i+1]]++
		hist[2][raw[i+2]]++
		hist[3][raw[i+3]]++
	}
	sum := func(hs ...int) (h [256]uint32) {
		for _, k := range hs {
			for i, v := range hist[k] {
				h[i] += v
			}
		}
		return h
	}
	flat = entropy(sum(0, 1, 2, 3))
	by2 = (entropy(sum(0, 2)) + entropy(sum(1, 3))) / 2
	by4 = (entropy(hist[0]) + entropy(hist[1]) + entropy(hist[2]) + entropy(hist[3])) / 4
	return flat, by2, by4
}

func entropy(h [256]uint32) float64 {
	var n, s float64
	for _, v := range h {
		if v > 0 {
			n += float64(v)
			s += float64(v) * math.Log2(float64(v))
		}
	}
	if n == 0 {
		return 0
	}
	return math.Log2(n) - s/n
}

// appendPlanes writes the bytes of raw at positions 0, k, 2k, … , then those
// at 1, k+1, …: each plane as its length (shifted left by one; the lowest bit
// says that it is a zstd frame) and its bytes.
func appendPlanes(dst, raw []byte, k int) []byte {
	plane := make([]byte, 0, len(raw)/k+1)
	for i := range k {
		plane = plane[:0]
		for j := i; j < len(raw); j += k {
			plane = append(plane, raw[j])
		}
		var h [256]uint32
		for _, c := range plane {
			h[c]++
		}
		if entropy(h) < 7.8 {
			z := zstdAppend(nil, plane)
			if len(z) < len(plane) {
				dst = binary.AppendUvarint(dst, uint64(len(z))<<1|1)
				dst = append(dst, z...)
				continue
			}
		}
		dst = binary.AppendUvarint(dst, uint64(len(plane))<<1)
		dst = append(dst, plane...)
	}
	return dst
}

func planesInto(dst, src []byte, k int) error {
	bad := func(why string) error { return fmt.Errorf("byte planes: %s: %w", why, cas.ErrCorrupt) }
	plane := make([]byte, (len(dst)+k-1)/k)
	for i := range k {
		v, n := binary.Uvarint(src)
		if n <= 0 || v>>1 > uint64(len(src)-n) {
			return bad("cut off")
		}
		body := src[n : n+int(v>>1)]
		src = src[n+len(body):]
		want := (len(dst) - i + k - 1) / k
		p := plane[:max(want, 0)]
		if v&1 == 0 {
			if len(body) != len(p) {
				return bad("a plane has the wrong length")
			}
			p = body
		} else if err := zstdInto(p, body); err != nil {
			return err
		}
		for j, c := range p {
			dst[i+j*k] = c
		}
	}
	if len(src) != 0 {
		return bad("something follows the last")
	}
	return nil
}

// decodeChunk fills dst, of the chunk's length, from its stored form.
func decodeChunk(dst, stored []byte, e encoding) error {
	switch e {
	case encStored:
		if len(stored) != len(dst) {
			return fmt.Errorf("chunk has %d bytes instead of %d: %w", len(stored), len(dst), cas.ErrCorrupt)
		}
		copy(dst, stored)
		return nil
	case encZstd:
		return zstdInto(dst, stored)
	case encPlanes2, encPlanes4:
		return planesInto(dst, stored, e.stride())
	}
	return fmt.Errorf("chunk has the encoding %d, which this Curi does not know; use a newer Curi: %w", e, cas.ErrFormat)
}
