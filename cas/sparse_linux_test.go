package cas

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Reading around holes gives what reading gives.
func TestSparseSource(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 8<<20 + 4711
	want := make([]byte, size)
	for _, at := range []int64{0, 100_000, 1<<20 - 3, 3 << 20, 3<<20 + 9000, 7 << 20} {
		if _, err := f.WriteAt([]byte("some bytes"), at); err != nil {
			t.Fatal(err)
		}
		copy(want[at:], "some bytes")
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	st, err := fstatFile(f)
	if err != nil {
		t.Fatal(err)
	}
	src := sparseSource(f, st)
	if _, ok := src.(*sparseFile); !ok && st.blocks*512 < size {
		t.Logf("holes are read on this filesystem")
	}
	for range 20_000 {
		off := rand.Int64N(size + 10)
		p := bytes.Repeat([]byte{'x'}, rand.IntN(20_000))
		q := bytes.Clone(p)
		n, err := src.ReadAt(p, off)
		m, werr := f.ReadAt(q, off)
		if n != m || err != werr || !bytes.Equal(p, q) {
			t.Fatalf("%d bytes at %d: %d, %v; want %d, %v", len(p), off, n, err, m, werr)
		}
	}
	d, err := hashFile(t.Context(), src, size, nil)
	if err != nil || d != Sum(want) {
		t.Errorf("digest %v, %v", d, err)
	}
}
