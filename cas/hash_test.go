package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"lukechampine.com/blake3/bao"
)

// hashSizes lie around every boundary of the tree: chunks, groups, reads,
// units, and what several workers share.
func hashSizes() []int64 {
	sizes := []int64{0, 1, 63, 64, 65}
	for _, n := range []int64{1024, 2 << 10, 3 << 10, groupSize, 2 * groupSize, 3 * groupSize, 5 * groupSize, readSize, unitSize, 2 * unitSize, 3 * unitSize, 5 * unitSize, 7*unitSize + readSize} {
		sizes = append(sizes, n-1, n, n+1)
	}
	return sizes
}

func randomBytes(n int64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// memFile is a file in memory.
type memFile struct {
	mu sync.Mutex
	b  []byte
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if need := off + int64(len(p)); need > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, need-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func TestHashFileEqualsOthers(t *testing.T) {
	b3sum, err := exec.LookPath("b3sum")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("b3sum is needed: apt-get install b3sum")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	dir := t.TempDir()
	want := map[string]Digest{}
	for _, size := range hashSizes() {
		b := randomBytes(size)
		var out memFile
		d, err := hashFile(t.Context(), bytes.NewReader(b), size, &out)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if s := Sum(b); d != s {
			t.Errorf("%d bytes: hashFile says %s, Sum %s", size, d, s)
		}
		h := NewHasher()
		for p := b; len(p) > 0; {
			n := min(len(p), 100_000)
			h.Write(p[:n])
			p = p[n:]
		}
		if h.Digest() != d || h.Size() != size {
			t.Errorf("%d bytes: a Hasher says %s of %d bytes, hashFile %s", size, h.Digest(), h.Size(), d)
		}
		ob, root := bao.EncodeBuf(b, groupLog, true)
		if root != d {
			t.Errorf("%d bytes: bao says %x, hashFile %s", size, root, d)
		}
		if int64(len(out.b)) != outboardSize(size) || !bytes.Equal(out.b[16:], ob) {
			t.Errorf("%d bytes: the outboard differs from bao's", size)
		}
		if b3sum != "" {
			name := filepath.Join(dir, fmt.Sprint(size))
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
			want[name] = d
		}
	}
	if b3sum == "" {
		t.Skip("the rest needs the program b3sum")
	}
	args := []string{}
	for name := range want {
		args = append(args, name)
	}
	o, err := exec.Command(b3sum, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(o)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("b3sum printed %d lines for %d files", len(lines), len(want))
	}
	for _, line := range lines {
		sum, name, _ := strings.Cut(line, "  ")
		if sum != want[name].String() {
			t.Errorf("%s: b3sum says %s, hashFile %s", filepath.Base(name), sum, want[name])
		}
	}
}

// A slow reader makes units finish out of order.
type unevenReader struct{ io.ReaderAt }

func (r unevenReader) ReadAt(p []byte, off int64) (int, error) {
	if off/unitSize%3 == 0 {
		for range 200 {
			runtime.Gosched()
		}
	}
	return r.ReaderAt.ReadAt(p, off)
}

func TestHashFileOutOfOrder(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	b := randomBytes(13*unitSize + 12345)
	d, err := hashFile(t.Context(), unevenReader{bytes.NewReader(b)}, int64(len(b)), nil)
	if err != nil || d != Sum(b) {
		t.Errorf("digest %s, %v; want %s", d, err, Sum(b))
	}
}

func TestHashFileThatChanges(t *testing.T) {
	b := randomBytes(2*unitSize + 5)
	for _, size := range []int64{int64(len(b)) - 1, int64(len(b)) + 1, 3 * unitSize, 4 * unitSize, 1, 0} {
		if _, err := hashFile(t.Context(), bytes.NewReader(b), size, nil); !errors.Is(err, ErrChanged) {
			t.Errorf("announced as %d bytes: %v, want ErrChanged", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hashFile(ctx, bytes.NewReader(b), int64(len(b)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHashFileMemory(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 30
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	ob, err := os.Create(filepath.Join(t.TempDir(), "outboard"))
	if err != nil {
		t.Fatal(err)
	}
	defer ob.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := hashFile(t.Context(), f, size, ob); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// All that was ever allocated, freed or not.
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("hashing %d MiB allocated %d MiB", size>>20, n>>20)
	}
	if fi, err := ob.Stat(); err != nil || fi.Size() != outboardSize(size) {
		t.Errorf("outboard: %v, %v; want %d bytes", fi, err, outboardSize(size))
	}
}

func BenchmarkHashFile(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 256 << 20
	f.Write(randomBytes(size))
	b.SetBytes(size)
	b.ReportAllocs()
	var out memFile
	for b.Loop() {
		if _, err := hashFile(b.Context(), f, size, &out); err != nil {
			b.Fatal(err)
		}
	}
}
