package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/curi-store/curi/cas"
)

// memBucket is a bucket in memory that counts what is read. Only the methods
// that a reader needs do something.
type memBucket struct {
	Bucket
	objects map[string][]byte

	mu    sync.Mutex // of what follows
	reads int
	bytes int
}

func (b *memBucket) ReadAt(_ context.Context, key string, p []byte, off int64) (int, error) {
	data, ok := b.objects[key]
	if !ok {
		return 0, cas.ErrNotFound
	}
	n := 0
	if off < int64(len(data)) {
		n = copy(p, data[off:])
	}
	b.mu.Lock()
	b.reads++
	b.bytes += n
	b.mu.Unlock()
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// testRecipe is a recipe of a directory of n files, and of one below it, that
// were never stored anywhere.
func testRecipe(t testing.TB, n int) (cas.Digest, []byte) {
	t.Helper()
	sub := &cas.Tree{Entries: []cas.Entry{{Kind: cas.KindFile, Name: "f", Size: 5, Digest: cas.Sum([]byte("other"))}}}
	subEnc, _ := sub.Encode()
	root := &cas.Tree{}
	var rows []row
	var places []place
	at := int64(0)
	for i := range n {
		e := cas.Entry{Kind: cas.KindFile, Name: fmt.Sprintf("file-%07d", i), Size: 4096, Digest: cas.Sum(fmt.Append(nil, i))}
		root.Entries = append(root.Entries, e)
		places = append(places, place{at: at})
		at += e.Size
	}
	root.Entries = append(root.Entries, cas.Entry{Kind: cas.KindDir, Name: "sub", Size: 5, Digest: cas.Sum(subEnc)},
		cas.Entry{Kind: cas.KindSymlink, Name: "tolink", Target: "sub/f"})
	enc, err := root.Encode()
	if err != nil {
		t.Fatal(err)
	}
	places = append(places, place{at: int64(len(enc)), length: int64(len(subEnc))}, place{})
	at += 5
	for start := int64(0); start < at; {
		r := row{start: start, raw: int(min(16<<10, at-start)), digest: cas.Sum(fmt.Append(nil, "c", start))}
		r.spot = spot{pack: cas.Sum(fmt.Append(nil, "p", start>>26)), off: 16 + start%(32<<20), stored: r.raw}
		rows = append(rows, r)
		start = r.end()
	}
	w := recipeWriter{rows: rows, trees: []*recipeTree{
		{digest: cas.Sum(enc), enc: enc, tree: root, places: places},
		{digest: cas.Sum(subEnc), enc: subEnc, tree: sub, places: []place{{at: at - 5}}},
	}}
	w.head.files, w.head.bytes = int64(n)+1, at
	b, err := w.encode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cas.Sum(enc), b
}

func openTest(t testing.TB, root cas.Digest, b []byte) (*Recipe, *memBucket, error) {
	t.Helper()
	m := &memBucket{objects: map[string][]byte{recipeKey(root): b}}
	rc, err := (&Remote{b: m}).Recipe(t.Context(), root)
	return rc, m, err
}

// TestFirstByte: however many files there are, two dependent reads and little
// traffic lead to where the bytes of one lie.
func TestFirstByte(t *testing.T) {
	for _, n := range []int{10, 1000, 50_000, 200_000} {
		root, b := testRecipe(t, n)
		rc, m, err := openTest(t, root, b)
		if err != nil {
			t.Fatal(err)
		}
		node, err := rc.Lookup(t.Context(), rc.Root(), fmt.Sprintf("file-%07d", n*2/3))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := rc.rows(t.Context(), node.place.at, node.place.at+node.Size)
		if err != nil || len(rows) == 0 || rows[0].start > node.place.at {
			t.Fatalf("%v %v", rows, err)
		}
		// The tree page and the chunk page are one step: the head tells both.
		// What is left of 256 KiB is for the chunk, of at most 64.
		if m.reads > 3 || m.bytes > 192<<10 {
			t.Errorf("%d files: %d reads, %d bytes", n, m.reads, m.bytes)
		}
		t.Logf("%d files: recipe of %d bytes, %d reads, %d bytes", n, len(b), m.reads, m.bytes)
		sub, err := rc.Lookup(t.Context(), rc.Root(), "sub")
		if err != nil {
			t.Fatal(err)
		}
		if f, err := rc.Lookup(t.Context(), sub, "f"); err != nil || f.Size != 5 || f.place.at != int64(n)*4096 {
			t.Errorf("sub/f: %+v, %v", f, err)
		}
		tree, nodes, err := rc.Tree(t.Context(), rc.Root())
		if err != nil || len(tree.Entries) != n+2 || nodes[n-1].place.at != int64(n-1)*4096 {
			t.Errorf("the whole tree: %v", err)
		}
	}
}

// TestRecipeDamaged flips bytes all over a recipe: a reader may fail, it never
// finds another file than the one that the digest names.
func TestRecipeDamaged(t *testing.T) {
	root, good := testRecipe(t, 3000)
	rng := randomBytes(9, 4*600)
	failed := 0
	for i := 0; i < len(rng); i += 4 {
		b := append([]byte(nil), good...)
		at := (int(rng[i])<<16 | int(rng[i+1])<<8 | int(rng[i+2])) % len(b)
		b[at] ^= rng[i+3] | 1
		rc, _, err := openTest(t, root, b)
		if err != nil {
			failed++
			continue
		}
		for _, k := range []int{0, 1500, 2999} {
			n, err := rc.Lookup(t.Context(), rc.Root(), fmt.Sprintf("file-%07d", k))
			if err != nil {
				if !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrFormat) {
					t.Errorf("byte %d: %v", at, err)
				}
				failed++
			} else if n.Digest != cas.Sum(fmt.Append(nil, k)) {
				t.Fatalf("byte %d: file %d became %s", at, k, n.Digest)
			}
		}
	}
	if failed == 0 {
		t.Error("no damage was seen at all")
	}
}

func FuzzRecipe(f *testing.F) {
	for _, n := range []int{0, 3, 1000} {
		_, b := testRecipe(f, n)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < recipeFixed {
			return
		}
		root := cas.Digest(b[32:64])
		rc, _, err := openTest(t, root, b)
		if err != nil {
			return
		}
		_, _ = rc.Lookup(t.Context(), rc.Root(), "file-0000001")
		w := treeWalk{rc: rc, seen: map[cas.Digest]bool{}}
		_ = w.walk(t.Context(), rc.Root(), 0)
		_, _ = rc.rows(t.Context(), 0, min(rc.head.stream, 1<<30))
	})
}

// The pages are compressed, which keeps a fuzzer out: they have targets of
// their own.
func FuzzPages(f *testing.F) {
	h := &recipeHead{trees: 1 << 30, stream: 1 << 40}
	f.Add(encodeChunkPage([]row{{raw: 10, spot: spot{off: 16, stored: 10}}}), uint16(10))
	w := recipeWriter{}
	t := &cas.Tree{Entries: []cas.Entry{{Kind: cas.KindFile, Name: "a", Digest: cas.Sum(nil), Size: 3}}}
	enc, _ := t.Encode()
	w.addWhole(&recipeTree{enc: enc, tree: t, places: []place{{at: 7}}})
	f.Add(append([]byte{wholeTrees, 1}, w.open...), uint16(10))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		rows, err := parseChunkPage(b, 0, int64(n))
		if err == nil && len(rows) > 0 && rows[len(rows)-1].end() != int64(n) {
			t.Error("the rows do not fill the page")
		}
		_, _ = parseWhole(b, 0, 0, h)
		_, _ = parsePart(b, 0, cas.Sum(nil), int64(n)<<4, h)
		_, _ = parseHead(b, cas.Digest{}, 64, int64(n))
	})
}

// TestRecipeRefused: a chunk that cannot be in a pack, and the recipe of
// another tree, are refused when they are parsed.
func TestRecipeRefused(t *testing.T) {
	for name, s := range map[string]spot{
		"beyond the pack": {off: maxPack - 5, stored: 10}, "too long": {off: 16, stored: maxStored + 1, enc: encZstd}, "not its length": {off: 16, stored: 9},
	} {
		if _, err := parseChunkPage(encodeChunkPage([]row{{raw: 10, spot: s}}), 0, 10); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, b := testRecipe(t, 10)
	other := cas.Sum([]byte("other"))
	if _, _, err := openTest(t, other, b); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("the recipe of another tree: %v", err)
	}
}
