package remote

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/curi-store/curi/cas"
)

// rewrite replaces the recipe of tree by one that change makes of it: well
// formed, with whatever lies the test wants.
func rewrite(t *testing.T, r *Remote, s *cas.Store, tree cas.Digest, change func(*recipeWriter)) {
	t.Helper()
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := rc.rows(t.Context(), 0, rc.head.stream)
	if err != nil {
		t.Fatal(err)
	}
	pl, err := newPlan(t.Context(), s, tree)
	if err != nil {
		t.Fatal(err)
	}
	w := &recipeWriter{trees: pl.trees, rows: rows}
	w.head.files, w.head.bytes = pl.files, pl.bytes
	change(w)
	b, err := w.encode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copy(b[32:], tree[:]) // it claims to be the recipe of that tree
	if err := r.b.Put(t.Context(), recipeKey(tree), b); err != nil {
		t.Fatal(err)
	}
}

// swapped is the tree with the digests of two of its files exchanged.
func swapped(t *testing.T, rt *recipeTree, a, b string) {
	t.Helper()
	tree := *rt.tree
	tree.Entries = append([]cas.Entry(nil), tree.Entries...)
	var x, y *cas.Entry
	for i := range tree.Entries {
		switch tree.Entries[i].Name {
		case a:
			x = &tree.Entries[i]
		case b:
			y = &tree.Entries[i]
		}
	}
	x.Digest, y.Digest, x.Size, y.Size = y.Digest, x.Digest, y.Size, x.Size
	enc, err := tree.Encode()
	if err != nil {
		t.Fatal(err)
	}
	rt.tree, rt.enc, rt.digest = &tree, enc, cas.Sum(enc)
}

// TestLyingRecipe: a recipe that is well formed and lies leads to an error,
// never to other bytes than those that a digest names.
func TestLyingRecipe(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{
		"a": []byte("first"), "b": []byte("other"), "sub/a": []byte("third"), "sub/b": []byte("4th.."),
		"big": randomBytes(41, 9<<20), "big2": randomBytes(42, 9<<20),
	}
	for i := range 1000 {
		files["wide/"+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))+"-and-some-more-name"] = randomBytes(uint64(i), 50)
	}
	const one, two = "aaa-and-some-more-name", "baa-and-some-more-name"
	s := newStore(t)
	tree := addFiles(t, s, files)
	find := func(w *recipeWriter, name string) (*recipeTree, int) {
		for _, rt := range w.trees {
			for i, e := range rt.tree.Entries {
				if e.Name == name {
					return rt, i
				}
			}
		}
		t.Fatalf("no %s", name)
		return nil, 0
	}
	for _, c := range []struct {
		name string
		path []string
		lie  func(w *recipeWriter)
	}{
		{"another root", []string{"a"}, func(w *recipeWriter) { swapped(t, w.trees[0], "a", "b") }},
		{"another root, with its places", []string{"a"}, func(w *recipeWriter) {
			rt, i := find(w, "a")
			_, j := find(w, "b")
			swapped(t, rt, "a", "b")
			rt.places[i], rt.places[j] = rt.places[j], rt.places[i]
		}},
		{"another directory", []string{"wide", one}, func(w *recipeWriter) {
			rt, i := find(w, one)
			_, j := find(w, two)
			swapped(t, rt, one, two)
			rt.places[i], rt.places[j] = rt.places[j], rt.places[i]
		}},
		{"another small directory", []string{"sub", "a"}, func(w *recipeWriter) {
			for _, rt := range w.trees[1:] {
				if len(rt.tree.Entries) == 2 {
					swapped(t, rt, "a", "b")
					rt.places[0], rt.places[1] = rt.places[1], rt.places[0]
				}
			}
		}},
		{"another small file's place", []string{"a"}, func(w *recipeWriter) {
			rt, i := find(w, "a")
			_, j := find(w, "b")
			rt.places[i], rt.places[j] = rt.places[j], rt.places[i]
		}},
		{"another large file's place", []string{"big"}, func(w *recipeWriter) {
			rt, i := find(w, "big")
			_, j := find(w, "big2")
			rt.places[i], rt.places[j] = rt.places[j], rt.places[i]
		}},
		{"chunks exchanged", []string{"big"}, func(w *recipeWriter) {
			rt, i := find(w, "big")
			for k := range w.rows {
				if a, b := &w.rows[k], &w.rows[k+1]; a.start == rt.places[i].at {
					a.raw, b.raw, a.digest, b.digest, a.spot, b.spot = b.raw, a.raw, b.digest, a.digest, b.spot, a.spot
					break
				}
			}
		}},
		{"chunks of a byte", []string{"big"}, func(w *recipeWriter) {
			rt, i := find(w, "big")
			k := slices.IndexFunc(w.rows, func(r row) bool { return r.start == rt.places[i].at })
			big := w.rows[k]
			if big.enc != encStored {
				t.Fatal("random bytes are compressed")
			}
			var tiny []row
			for n := range big.raw {
				r := big
				r.start, r.off, r.raw, r.stored = big.start+int64(n), big.off+int64(n), 1, 1
				tiny = append(tiny, r)
			}
			w.rows = slices.Replace(w.rows, k, k+1, tiny...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRemote(t, OpenDir(t.TempDir()))
			if _, err := r.Push(t.Context(), s, tree, PushOptions{}); err != nil {
				t.Fatal(err)
			}
			read := func() ([]byte, error) {
				rc, err := r.Recipe(t.Context(), tree)
				if err != nil {
					return nil, err
				}
				n := rc.Root()
				for _, name := range c.path {
					if n, err = rc.Lookup(t.Context(), n, name); err != nil {
						return nil, err
					}
				}
				var out bytes.Buffer
				err = rc.WriteFile(t.Context(), newStore(t), n, &out)
				return out.Bytes(), err
			}
			want := files[c.path[0]]
			if len(c.path) == 2 {
				want = files[c.path[0]+"/"+c.path[1]]
			}
			if got, err := read(); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("before the lie: %v", err)
			}
			rewrite(t, r, s, tree, c.lie)
			got, err := read()
			if !errors.Is(err, cas.ErrCorrupt) {
				t.Errorf("read by the lie: %v", err)
			}
			if !bytes.HasPrefix(want, got) {
				t.Error("wrong bytes came out")
			}
			b := newStore(t)
			if _, err := r.Pull(t.Context(), b, tree, PullOptions{}); !errors.Is(err, cas.ErrCorrupt) {
				t.Errorf("pulled by the lie: %v", err)
			}
			if b.HasTree(tree) {
				t.Error("the tree is there")
			}
		})
	}
}

// TestIntakeRefuses: nothing enters a store that is not what it is said to be.
func TestIntakeRefuses(t *testing.T) {
	s := newStore(t)
	in, err := s.NewIntake()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	data := randomBytes(51, 3<<20)
	d := cas.Sum(data)
	for name, r := range map[string]io.Reader{
		"other bytes": bytes.NewReader(append([]byte{data[0] + 1}, data[1:]...)),
		"too short":   bytes.NewReader(data[:len(data)-1]),
	} {
		if err := in.Reader(t.Context(), d, int64(len(data)), r); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := in.Bytes(d, data[:10]); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("a small blob: %v", err)
	}
	if err := in.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.HasBlob(d) {
		t.Error("it is there")
	}
}
