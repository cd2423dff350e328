package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/curi-store/curi/cas"
)

func TestOutlay(t *testing.T) {
	for _, size := range []int64{cas.MinOutboard + 1, segmentSize - 1, segmentSize, segmentSize + 1, 3*segmentSize + 5, 5 * segmentSize, 37*segmentSize + 16384} {
		// The runs cover both orders, without gaps and without overlaps.
		outboard := cas.OutboardSize(size) - nodesLen(size)
		seen := map[int64]int64{}
		var total int64
		outRuns(size, func(r outRun) {
			if r.outboard != outboard {
				t.Fatalf("%d: a run at %d, want %d", size, r.outboard, outboard)
			}
			outboard += r.length
			total += r.length
			seen[r.stream] = r.length
		})
		if outboard != cas.OutboardSize(size) || total != nodesLen(size) {
			t.Errorf("%d: %d bytes of nodes, want %d", size, total, nodesLen(size))
		}
		for at := int64(0); at < total; {
			n := seen[at]
			if n == 0 {
				t.Fatalf("%d: nothing at %d", size, at)
			}
			at += n
		}
	}
}

// TestFetch reads ranges of a large file, each verified by itself.
func TestFetch(t *testing.T) {
	a, b := newStore(t), newStore(t)
	r := newRemote(t, OpenDir(t.TempDir()))
	data := randomBytes(31, 27<<20+4321)
	tree := addFiles(t, a, map[string][]byte{"f": data, "g": []byte("small")})
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	n, err := rc.Lookup(t.Context(), rc.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.OpenPartial(t.Context(), n.Digest, n.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, c := range [][2]int{{0, 1}, {20 << 20, 5000}, {8<<20 - 10, 20}, {len(data) - 1, 1}, {3 << 20, 14 << 20}} {
		lo, hi := int64(c[0]), int64(c[0]+c[1])
		if err := rc.Fetch(t.Context(), n, p, lo, hi); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, c[1])
		if _, err := p.ReadAt(got, lo); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got, data[lo:hi]) {
			t.Fatalf("%d to %d: %v", lo, hi, err)
		}
	}
	if local := p.Local(); local > 16<<20 {
		t.Errorf("%d bytes were fetched for 14 MiB", local)
	}
	var out bytes.Buffer
	if err := rc.WriteFile(t.Context(), b, n, &out); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("the whole file: %d bytes, %v", out.Len(), err)
	}
	if !b.HasBlob(n.Digest) {
		t.Error("it is whole, and not in the store")
	}
	if rep, err := b.Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) > 0 || rep.BlobsChecked != 1 {
		t.Errorf("verify: %+v, %v", rep, err)
	}
}

// TestDamageOnTheWay: bytes and nodes that come damaged come once more, and
// those that stay so are an error that names the object.
func TestDamageOnTheWay(t *testing.T) {
	t.Parallel()
	data := randomBytes(5, 40<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data})
	s := newStore(t)
	counted := readerOf(t, s, dir)
	f := openLazy(t, s, tree, "f")
	var mu sync.Mutex
	met, damaged := map[string]bool{}, 0
	counted.setHook(func(key string, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		what := fmt.Sprint(key, len(p), cas.Sum(p))
		if strings.HasPrefix(key, "packs/") && !met[what] {
			met[what] = true
			damaged++
			p[len(p)/2] ^= 1
		}
		return nil
	})
	r, buf := f.Reader(), make([]byte, 1<<20)
	for got := 0; got < len(data); {
		n, err := r.ReadAt(t.Context(), buf, int64(got))
		if err != nil && err != io.EOF || !bytes.Equal(buf[:n], data[got:got+n]) {
			t.Fatalf("at %d: %d bytes, %v", got, n, err)
		}
		got += n
	}
	if damaged < 10 {
		t.Errorf("only %d answers were damaged", damaged)
	}

	s = newStore(t)
	counted = readerOf(t, s, dir)
	f = openLazy(t, s, tree, "f")
	counted.setHook(func(key string, p []byte) error {
		if strings.HasPrefix(key, "packs/") {
			p[len(p)/2] ^= 1
		}
		return nil
	})
	if _, err := f.Reader().ReadAt(t.Context(), buf, 9<<20); !errors.Is(err, cas.ErrCorrupt) || !strings.Contains(err.Error(), "packs/") {
		t.Errorf("damaged for good: %v", err)
	}
	if f.Local() != 0 {
		t.Errorf("%d bytes are kept that nothing proves", f.Local())
	}
}
