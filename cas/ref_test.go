package cas

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// newStore makes a store for one test.
func newTestStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// putFiles stores a tree of files, name to content; a name may have one slash.
func putFiles(t *testing.T, s *Store, files map[string]string) Digest {
	t.Helper()
	root := &Tree{}
	below := map[string]map[string]string{}
	for name, content := range files {
		if dir, file, ok := strings.Cut(name, "/"); ok {
			if below[dir] == nil {
				below[dir] = map[string]string{}
			}
			below[dir][file] = content
			continue
		}
		root.Entries = append(root.Entries, Entry{Name: name, Kind: KindFile, Size: int64(len(content)), Digest: putBlob(t, s, content)})
	}
	for dir, files := range below {
		d := putFiles(t, s, files)
		sub, err := s.Tree(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		root.Entries = append(root.Entries, Entry{Name: dir, Kind: KindDir, Size: sub.Bytes(), Digest: d})
	}
	root.Sort()
	d, err := s.PutTree(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func putBlob(t *testing.T, s *Store, content string) Digest {
	t.Helper()
	d := Sum([]byte(content))
	if err := s.writeFileDurable(s.blobPath(d), []byte(content), blobMode); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRefs(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	tree := putFiles(t, s, map[string]string{"a": "1"})
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, name := range []string{"run/b-2", "run/a-1", "stage/" + strings.Repeat("0", 64), "part/a-1/node.0"} {
		if err := s.SetRef(ctx, Ref{Name: name, Tree: tree, Time: when, Info: []byte(`{"k":[1]}`)}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := s.Ref(ctx, "run/a-1")
	if err != nil || r.Tree != tree || !r.Time.Equal(when) || string(r.Info) != `{"k":[1]}` || r.Name != "run/a-1" {
		t.Errorf("got %+v, %v", r, err)
	}
	if err := s.CreateRef(ctx, Ref{Name: "run/a-1", Tree: tree}); !errors.Is(err, ErrExists) {
		t.Errorf("creating a ref twice: %v", err)
	}
	if err := s.SetRef(ctx, Ref{Name: "run/x", Tree: Sum([]byte("no such tree"))}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a ref to a tree that is not stored: %v", err)
	}
	// A run that left no tree.
	if err := s.CreateRef(ctx, Ref{Name: "run/c-3"}); err != nil {
		t.Error(err)
	}
	names := func(prefix string) (names []string) {
		for r, err := range s.Refs(ctx, prefix) {
			if err != nil {
				names = append(names, "error")
				continue
			}
			names = append(names, r.Name)
		}
		return names
	}
	if got := names("run/"); !slices.Equal(got, []string{"run/a-1", "run/b-2", "run/c-3"}) {
		t.Errorf("runs: %q", got)
	}
	if got := names("part/a-1"); !slices.Equal(got, []string{"part/a-1/node.0"}) {
		t.Errorf("parts: %q", got)
	}
	if got := len(names("")); got != 5 {
		t.Errorf("%d refs in all", got)
	}
	if err := os.WriteFile(s.refPath("run/bad"), []byte(`{"tree":"xyz"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ref(ctx, "run/bad"); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), s.refPath("run/bad")) {
		t.Errorf("a bad ref: %v", err)
	}
	if got := names("run/b"); !slices.Equal(got, []string{"run/b-2", "error"}) {
		t.Errorf("beside a bad ref: %q", got)
	}
	if err := s.DeleteRef(ctx, "run/a-1"); err != nil {
		t.Error(err)
	}
	if _, err := s.Ref(ctx, "run/a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a deleted ref: %v", err)
	}
	if err := s.DeleteRef(ctx, "run/a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting it again: %v", err)
	}
	for _, name := range []string{"", "run", "run/", "/run/a", "run/../../x", "run/.hidden", "artifact/x", "run/a b", "run/a\x00", "run//a", "run/" + strings.Repeat("a", 300)} {
		if err := s.SetRef(ctx, Ref{Name: name, Tree: tree}); !errors.Is(err, ErrInvalid) {
			t.Errorf("ref %q: %v", name, err)
		}
	}
}

// The bytes of a ref are a promise to later versions.
func TestRefGolden(t *testing.T) {
	s := newTestStore(t)
	tree := putFiles(t, s, map[string]string{"a": "1"})
	r := Ref{Name: "run/train-7f3k2m", Tree: tree, Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Info: []byte(`{"key":"00"}`)}
	if err := s.SetRef(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.Dir(), "refs/run/train-7f3k2m"))
	want := `{"tree":"` + tree.String() + `","time":"2026-01-02T03:04:05.006Z","info":{"key":"00"}}` + "\n"
	if err != nil || string(b) != want {
		t.Errorf("have %swant %s(%v)", b, want, err)
	}
	later := strings.Replace(want, `{"tree"`, `{"signature":"x","tree"`, 1)
	if r, err := parseRef([]byte(later)); err != nil || r.Tree != tree {
		t.Errorf("a field of a later version: %v", err)
	}
}

func TestTouchRefMovesLastUse(t *testing.T) {
	s := newTestStore(t)
	if err := s.SetRef(t.Context(), Ref{Name: "run/a"}); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.refPath("run/a"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.TouchRef(t.Context(), "run/a"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(s.refPath("run/a")); err != nil || time.Since(fi.ModTime()) > time.Minute {
		t.Errorf("mtime %v, %v", fi.ModTime(), err)
	}
	if err := s.TouchRef(t.Context(), "run/b"); !errors.Is(err, ErrNotFound) {
		t.Errorf("touching nothing: %v", err)
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add([]byte(`{"tree":"","time":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"tree":"` + strings.Repeat("ab", 32) + `","time":"2026-01-02T03:04:05.5+01:00","info":{"a":null}}`))
	f.Add([]byte(`{"tree":null}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRef(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("not ErrCorrupt: %v", err)
			}
			return
		}
		enc, err := encodeJSON(r)
		if err != nil {
			t.Fatalf("what was parsed cannot be written: %v", err)
		}
		again, err := parseRef(enc)
		if err != nil || again.Tree != r.Tree || !again.Time.Equal(r.Time) {
			t.Fatalf("%q became %q: %v", b, enc, err)
		}
	})
}

// Between the look at a ref's age and its removal nobody can use it.
func TestTouchWaitsForACollection(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	if err := s.SetRef(t.Context(), Ref{Name: "run/a", Tree: d}); err != nil {
		t.Fatal(err)
	}
	release, err := s.stopCommits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	touched := make(chan error, 1)
	go func() { touched <- s.TouchRef(context.Background(), "run/a") }()
	select {
	case err := <-touched:
		t.Errorf("touched while a collection sweeps: %v", err)
		touched <- nil
	case <-time.After(200 * time.Millisecond):
	}
	if err := s.DeleteRef(t.Context(), "run/a"); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-touched; !errors.Is(err, ErrNotFound) {
		t.Errorf("the ref is gone, and was touched: %v", err)
	}
}
