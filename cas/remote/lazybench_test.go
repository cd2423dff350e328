package remote

import (
	"io"
	"testing"
)

// BenchmarkLazyRead goes through a large file in order, as a mount does for a
// program that reads it, from a directory and from an S3 server.
func BenchmarkLazyRead(b *testing.B) {
	const size = 256 << 20
	data := randomBytes(8, size)
	_, dir, tree := pushed(b, map[string][]byte{"f": data})
	buf := make([]byte, 128<<10)
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		s := newStore(b)
		readerOf(b, s, dir)
		f := openLazy(b, s, tree, "f")
		b.StartTimer()
		r := f.Reader()
		for got := 0; got < size; {
			n, err := r.ReadAt(b.Context(), buf, int64(got))
			if n == 0 || err != nil && err != io.EOF {
				b.Fatal(got, n, err)
			}
			got += n
		}
	}
}
