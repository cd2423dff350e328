package remote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/curi-store/curi/cas"
)

func TestEncodings(t *testing.T) {
	bf16 := make([]byte, 0, 128<<10)
	r := rand.New(rand.NewPCG(3, 4))
	for len(bf16) < cap(bf16) {
		bf16 = binary.LittleEndian.AppendUint16(bf16, uint16(math.Float32bits(float32(r.NormFloat64()*0.02))>>16))
	}
	for _, c := range []struct {
		name string
		raw  []byte
		want encoding
		most float64 // share of the size
	}{
		{"random", randomBytes(1, 64<<10), encStored, 1},
		{"random, odd", randomBytes(1, 50001), encStored, 1},
		{"text", bytes.Repeat([]byte("one word after another, "), 3000), encZstd, 0.05},
		{"zeros", make([]byte, 256<<10), encZstd, 0.01},
		{"repeating noise", bytes.Repeat(randomBytes(2, 20000), 4), encZstd, 0.3},
		{"fp32", normals(16 << 10), encPlanes4, 0.86},
		{"fp32, not aligned", normals(16 << 10)[3:60001], encPlanes4, 0.86},
		{"bf16", bf16, encPlanes2, 0.70},
		{"bf16, not aligned", bf16[1:65536], encPlanes2, 0.70},
		{"a byte", []byte{7}, encStored, 1},
		{"little", []byte("abcabc"), encStored, 1},
	} {
		stored, enc := encodeChunk([]byte("before"), c.raw)
		stored = stored[len("before"):]
		share := float64(len(stored)) / float64(len(c.raw))
		if enc != c.want || share > c.most {
			t.Errorf("%s: encoding %d, want %d; %.3f of the size, want %.3f", c.name, enc, c.want, share, c.most)
		}
		got := make([]byte, len(c.raw))
		if err := decodeChunk(got, stored, enc); err != nil || !bytes.Equal(got, c.raw) {
			t.Errorf("%s: does not come back: %v", c.name, err)
		}
		for _, n := range []int{len(c.raw) - 1, len(c.raw) + 1} {
			if err := decodeChunk(make([]byte, n), stored, enc); !errors.Is(err, cas.ErrCorrupt) {
				t.Errorf("%s: as %d bytes: %v", c.name, n, err)
			}
		}
	}
	if err := decodeChunk(make([]byte, 1), []byte{1}, 200); !errors.Is(err, cas.ErrFormat) {
		t.Errorf("unknown encoding: %v", err)
	}
}

func FuzzDecodeChunk(f *testing.F) {
	for _, raw := range [][]byte{nil, randomBytes(1, 300), normals(500), bytes.Repeat([]byte("ab"), 500)} {
		stored, enc := encodeChunk(nil, raw)
		f.Add(stored, byte(enc), uint32(len(raw)))
	}
	f.Fuzz(func(t *testing.T, stored []byte, enc byte, n uint32) {
		dst := make([]byte, n%maxChunk)
		_ = decodeChunk(dst, stored, encoding(enc%5))
	})
}

// FuzzEncodeChunk: whatever is stored comes back.
func FuzzEncodeChunk(f *testing.F) {
	f.Add(normals(300))
	f.Add(randomBytes(5, 1000))
	f.Add([]byte("text text text text"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > maxChunk {
			return
		}
		stored, enc := encodeChunk(nil, raw)
		got := make([]byte, len(raw))
		if err := decodeChunk(got, stored, enc); err != nil || !bytes.Equal(got, raw) {
			t.Fatalf("encoding %d: %v", enc, err)
		}
	})
}
