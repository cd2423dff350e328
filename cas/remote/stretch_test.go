package remote

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"

	"github.com/curi-store/curi/cas"
)

// wideBucket notes what is read of packs, and hands it out in pieces.
type wideBucket struct {
	Bucket
	mu    sync.Mutex
	asked []wideRead
	hurt  func(at wideRead, p []byte) // a piece
}

type wideRead struct {
	key    string
	off, n int64
}

func (b *wideBucket) readPieces(ctx context.Context, key string, off, n int64, got func([]byte) error) error {
	at := wideRead{key, off, n}
	b.mu.Lock()
	b.asked = append(b.asked, at)
	b.mu.Unlock()
	for n > 0 {
		p := make([]byte, min(n, pieceSize))
		if k, err := b.ReadAt(ctx, key, p, off); k < len(p) {
			return err
		}
		if b.hurt != nil {
			b.hurt(wideRead{key, off, int64(len(p))}, p)
		}
		if err := got(p); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// wideReader makes a store that reads of b, which one request is as fast of as
// several if so.
func wideReader(t *testing.T, b Bucket, fast bool) *cas.Store {
	t.Helper()
	s := readsBy(t, b)
	l, err := s.Remotes().(*Reader).link(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	l.pace.least = 1 << 60
	if fast {
		l.pace.least = 1
	}
	return s
}

// readThrough reads all of a file as a program does, and compares it.
func readThrough(t *testing.T, f *cas.LazyFile, want []byte) {
	t.Helper()
	buf := make([]byte, 128<<10)
	got := 0
	for r := f.Reader(); got < len(want); {
		n, err := r.ReadAt(t.Context(), buf, int64(got))
		if err != nil && err != io.EOF || n == 0 || !bytes.Equal(buf[:n], want[got:got+n]) {
			t.Fatalf("at %d: %d bytes, %v", got, n, err)
		}
		got += n
	}
}

// TestWholePacks: where one request is as fast as several, whoever reads a file
// in order has its packs fetched whole; where it is not, in small parts. All of
// it is fetched once, and what is damaged on the way comes again.
func TestWholePacks(t *testing.T) {
	t.Parallel()
	// Not as it is, and with bytes before it in the first pack.
	text := bytes.Repeat([]byte("what can be compressed lies in another way; "), 100_000)
	data := append(randomBytes(8, 150<<20), text...)
	data = append(data, randomBytes(9, 100<<20)...)
	_, dir, tree := pushed(t, map[string][]byte{"a": randomBytes(5, 3<<20), "f": data})
	read := func(fast bool, hurt func(at wideRead, p []byte)) (asked []wideRead, large int) {
		b := &wideBucket{Bucket: OpenDir(dir), hurt: hurt}
		f := openLazy(t, wideReader(t, b, fast), tree, "f")
		readThrough(t, f, data)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for _, a := range b.asked {
			if a.n > segmentSize {
				large++
			}
		}
		return b.asked, large
	}
	asked, large := read(true, nil)
	var sum int64
	for _, a := range asked {
		sum += a.n
	}
	t.Logf("fast: %d requests, %d of them large", len(asked), large)
	if large < 2 || len(asked) > 80 {
		t.Errorf("%d requests, %d of them large", len(asked), large)
	}
	if most := int64(len(data)) + 4<<20; sum > most {
		t.Errorf("%d bytes were fetched of %d", sum, len(data))
	}
	if asked, large := read(false, nil); large > 0 || len(asked) < len(data)/segmentSize {
		t.Errorf("slow: %d requests, %d of them large", len(asked), large)
	}
	// A flipped bit in the midst of a large answer, once.
	var once sync.Once
	read(true, func(at wideRead, p []byte) {
		if at.off > 30<<20 && at.off < 40<<20 {
			once.Do(func() { p[77] ^= 1 })
		}
	})
	hit := false
	once.Do(func() { hit = true })
	if hit {
		t.Error("nothing was damaged")
	}
}

// TestStretch: where the parts of a file end that lie in one pack.
func TestStretch(t *testing.T) {
	t.Parallel()
	data := randomBytes(8, 150<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data})
	b := &wideBucket{Bucket: OpenDir(dir)}
	r := newRemote(t, b)
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rc.Lookup(t.Context(), rc.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	end, err := rc.stretch(t.Context(), n, 0)
	if err != nil || end < packSize-1<<20 || end > maxPack || end%cas.GroupSize != 0 {
		t.Fatalf("the first ends at %d, %v", end, err)
	}
	// A group in two packs goes with the second.
	second, err := rc.stretch(t.Context(), n, end)
	if err != nil || second < end+packSize-1<<20 || second >= n.Size {
		t.Fatalf("the second ends at %d, %v", second, err)
	}
	for _, c := range []struct{ at, want int64 }{
		{cas.GroupSize, end}, {end - segmentSize - cas.GroupSize, end},
		{end - 1<<20, end}, // little, but then the next pack begins
		{second, n.Size}, {second + cas.GroupSize, n.Size},
		{n.Size - 1<<20, n.Size - 1<<20}, // no more than others bring
	} {
		if got, err := rc.stretch(t.Context(), n, c.at); err != nil || got != c.want {
			t.Errorf("from %d to %d, %v; want %d", c.at, got, err, c.want)
		}
	}
	// All of a pack comes by one request, and what lies in two by its own.
	p, err := newStore(t).OpenPartial(t.Context(), n.Digest, n.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for at := end; at < second; {
		if at, err = rc.fetchFrom(t.Context(), n, p, at, second); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, second-end)
	if _, err := p.ReadAt(got, end); err != nil || !bytes.Equal(got, data[end:second]) {
		t.Errorf("from %d to %d: %v", end, second, err)
	}
	whole := 0
	for _, a := range b.asked {
		if a.off <= wholeSlack && a.off+a.n >= packSize-wholeSlack {
			whole++
		}
	}
	if whole != 1 {
		t.Errorf("%d whole packs, by %v", whole, b.asked)
	}
}
