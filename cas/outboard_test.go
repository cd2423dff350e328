package cas

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"lukechampine.com/blake3/bao"
)

func outboardOf(t testing.TB, b []byte) ([]byte, Digest) {
	t.Helper()
	var out memFile
	d, err := hashFile(t.Context(), bytes.NewReader(b), int64(len(b)), &out)
	if err != nil {
		t.Fatal(err)
	}
	return out.b, d
}

func TestOutboardVerifiesRanges(t *testing.T) {
	for _, size := range hashSizes() {
		b := randomBytes(size)
		ob, d := outboardOf(t, b)
		o, err := ParseOutboard(bytes.NewReader(ob), int64(len(ob)), d)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if o.Size() != size {
			t.Errorf("%d bytes: Size is %d", size, o.Size())
		}
		for _, want := range [][2]int64{{0, size}, {size / 2, 1}, {size - 1, 1}, {0, 1}, {size / 3, size / 3}} {
			if want[0] < 0 {
				continue
			}
			off, n := o.Align(want[0], want[1])
			// Exactly as long as it must be, so that reading past it would show.
			p := append(make([]byte, 0, n), b[off:off+n]...)
			if err := o.Verify(p[:n:n], off); err != nil {
				t.Errorf("%d bytes, range %v: %v", size, want, err)
			}
			if n == 0 {
				continue
			}
			if !bao.VerifyChunk(p, ob[16:], groupLog, uint64(off), d) {
				t.Errorf("%d bytes, range %v: bao does not believe the outboard", size, want)
			}
			p[n/2] ^= 1
			if err := o.Verify(p, off); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d bytes, range %v with a flipped bit: %v, want ErrCorrupt", size, want, err)
			}
		}
	}
}

func TestOutboardRefusesBadRanges(t *testing.T) {
	b := randomBytes(5*groupSize + 7)
	ob, d := outboardOf(t, b)
	o, err := ParseOutboard(bytes.NewReader(ob), int64(len(ob)), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{1, 2 * groupSize}, {0, groupSize - 1}, {-groupSize, groupSize}, {5 * groupSize, 6}, {math.MaxInt64 - groupSize + 1, groupSize}, {math.MaxInt64, 1}} {
		p := make([]byte, r[1])
		if err := o.Verify(p, r[0]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes at %d: %v, want ErrInvalid", r[1], r[0], err)
		}
	}
	if err := o.Verify(make([]byte, 6*groupSize), groupSize); !errors.Is(err, ErrInvalid) {
		t.Errorf("beyond the end: %v, want ErrInvalid", err)
	}
}

func TestDamagedOutboard(t *testing.T) {
	b := randomBytes(9*groupSize + 100)
	ob, d := outboardOf(t, b)
	verify := func(ob []byte) error {
		o, err := ParseOutboard(bytes.NewReader(ob), int64(len(ob)), d)
		if err != nil {
			return err
		}
		if o.Size() != int64(len(b)) {
			return ErrCorrupt // a caller reads what is there and knows its size from the tree
		}
		return o.Verify(b, 0)
	}
	if err := verify(ob); err != nil {
		t.Fatal(err)
	}
	for i := range ob {
		bad := bytes.Clone(ob)
		bad[i] ^= 0x10
		if err := verify(bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if err := verify(ob[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := verify(append(bytes.Clone(ob), 0)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one byte more: %v", err)
	}
}

func FuzzOutboard(f *testing.F) {
	b := randomBytes(3*groupSize + 5)
	ob, d := outboardOf(f, b)
	f.Add(ob, b)
	f.Add(ob[:outboardHeader], []byte{})
	f.Add([]byte(outboardMagic), b)
	f.Fuzz(func(t *testing.T, ob, data []byte) {
		o, err := ParseOutboard(bytes.NewReader(ob), int64(len(ob)), d)
		if err != nil {
			return
		}
		off, n := o.Align(0, int64(len(data)))
		if n > int64(len(data)) {
			return
		}
		if err := o.Verify(data[:n], off); err == nil && n > 0 && !bytes.HasPrefix(b, data[:n]) {
			t.Errorf("%d wrong bytes were believed", n)
		}
	})
}
