package cas

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// flip changes one byte of a file of any mode.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	overwrite(t, path, string(b))
}

func quarantined(t *testing.T, s *Store) (names []string) {
	t.Helper()
	ents, err := os.ReadDir(filepath.Join(s.Dir(), "quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		digest, stamp, _ := strings.Cut(e.Name(), ".")
		if len(stamp) != len("20060102T150405Z") {
			t.Errorf("quarantine holds %s", e.Name())
		}
		names = append(names, digest)
	}
	return names
}

func TestVerifyFindsFlippedBytes(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	tree := putFiles(t, s, map[string]string{"a": "whole", "sub/b": "will be damaged"})
	bad := Sum([]byte("will be damaged"))
	for _, name := range []string{"digits", "other"} {
		if _, _, err := s.Publish(ctx, name, tree, PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	result := putFiles(t, s, map[string]string{"out": "will be damaged"})
	if err := s.SetRef(ctx, Ref{Name: "stage/k", Tree: result}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || r.BlobsChecked != 2 || len(r.Bad) != 0 || r.Bad == nil {
		t.Fatalf("a whole store: %+v, %v", r, err)
	}
	flip(t, s.blobPath(bad), 3)
	r, err := s.Verify(ctx, VerifyOptions{})
	if err != nil || len(r.Bad) != 1 || r.Bad[0].Digest != bad {
		t.Fatalf("got %+v, %v", r, err)
	}
	if want := []string{"digits@1/sub/b", "other@1/sub/b", "stage/k/out"}; !slices.Equal(r.Bad[0].UsedBy, want) {
		t.Errorf("used by %q, want %q", r.Bad[0].UsedBy, want)
	}
	if q := quarantined(t, s); !slices.Equal(q, []string{bad.String()}) {
		t.Errorf("in quarantine: %q", q)
	}
	if _, err := s.OpenBlob(ctx, bad); !errors.Is(err, ErrNotFound) {
		t.Errorf("the bad blob can still be opened: %v", err)
	}
	// It is still missing, until somebody adds it again.
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) != 1 || r.Bad[0].Reason != "is missing" || len(r.Bad[0].UsedBy) != 3 {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
	putBlob(t, s, "will be damaged")
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) != 0 {
		t.Errorf("once it is back: %+v, %v", r, err)
	}
}

func TestVerifyTrees(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	tree := putFiles(t, s, map[string]string{"a": "1", "sub/b": "2"})
	if _, _, err := s.Publish(ctx, "x", tree, PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	sub, err := s.Lookup(ctx, tree, "sub")
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.treePath(sub.Digest), 5)
	r, err := s.Verify(ctx, VerifyOptions{})
	if err != nil || len(r.Bad) != 1 || r.Bad[0].Digest != sub.Digest || !slices.Equal(r.Bad[0].UsedBy, []string{"x@1/sub"}) {
		t.Errorf("a damaged sub-tree: %+v, %v", r, err)
	}
	if q := quarantined(t, s); !slices.Equal(q, []string{sub.Digest.String()}) {
		t.Errorf("in quarantine: %q", q)
	}
	if err := os.Remove(s.treePath(tree)); err != nil {
		t.Fatal(err)
	}
	overwrite(t, s.versionPath("x", 1), `{"tree":"`+tree.String()+`","time":"2026-01-01T00:00:00Z"}`)
	if err := s.SetRef(ctx, Ref{Name: "run/x"}); err != nil {
		t.Fatal(err)
	}
	overwrite(t, s.refPath("run/x"), "x")
	r, err = s.Verify(ctx, VerifyOptions{})
	if err != nil || len(r.Bad) != 2 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if !r.Bad[0].Digest.IsZero() || !strings.Contains(r.Bad[0].Reason, s.refPath("run/x")) {
		t.Errorf("a ref that does not parse: %+v", r.Bad[0])
	}
	if r.Bad[1].Digest != tree || !slices.Equal(r.Bad[1].UsedBy, []string{"x@1"}) {
		t.Errorf("a root that is missing: %+v", r.Bad[1])
	}
}

func TestVerifyReference(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"big.bin": "referenced bytes"})
	path := filepath.Join(dir, "big.bin")
	added := mustAdd(t, s, path, AddOptions{Reference: true})
	defer added.Release()
	if _, _, err := s.Publish(ctx, "big", added.Tree, PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || r.BlobsChecked != 1 || len(r.Bad) != 0 {
		t.Fatalf("unchanged: %+v, %v", r, err)
	}
	if err := os.WriteFile(path, []byte("REFERENCED bytes"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := s.Verify(ctx, VerifyOptions{})
	if err != nil || len(r.Bad) != 1 || !strings.Contains(r.Bad[0].Reason, path) || !slices.Equal(r.Bad[0].UsedBy, []string{"big@1/big.bin"}) {
		t.Errorf("changed: %+v, %v", r, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "REFERENCED bytes" {
		t.Errorf("the user's file was touched: %q, %v", b, err)
	}
	if q := quarantined(t, s); len(q) != 0 {
		t.Errorf("in quarantine: %q", q)
	}
}

func TestVerifyMakesOutboardAgain(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	dir := t.TempDir()
	content := noise(7, 3<<20)
	path := filepath.Join(dir, "big.bin")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	added := mustAdd(t, s, path, AddOptions{})
	defer added.Release()
	ob := s.outboardPath(added.Digest)
	good, err := os.ReadFile(ob)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(){
		"flipped":  func() { flip(t, ob, 100) },
		"cut off":  func() { overwrite(t, ob, string(good[:len(good)-1])) },
		"too long": func() { overwrite(t, ob, string(good)+"x") },
	} {
		damage()
		r, err := s.Verify(ctx, VerifyOptions{})
		if err != nil || len(r.Bad) != 1 || r.Bad[0].Digest != added.Digest || !strings.Contains(r.Bad[0].Reason, "outboard") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if b, err := os.ReadFile(ob); err != nil || string(b) != string(good) {
			t.Errorf("%s: the outboard was not made again: %v", name, err)
		}
		if !s.HasBlob(added.Digest) {
			t.Fatal("the good blob is gone")
		}
	}
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) != 0 {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}

func TestVerifySample(t *testing.T) {
	s := newTestStore(t)
	for i := range 40 {
		putBlob(t, s, strings.Repeat("x", i))
	}
	for share, want := range map[float64]int64{0.25: 10, 0.0001: 1, 1: 40, 0: 40} {
		if r, err := s.Verify(t.Context(), VerifyOptions{Sample: share}); err != nil || r.BlobsChecked != want {
			t.Errorf("a sample of %v: %+v, %v; want %d", share, r, err, want)
		}
	}
	for _, share := range []float64{-1, 1.5} {
		if _, err := s.Verify(t.Context(), VerifyOptions{Sample: share}); !errors.Is(err, ErrInvalid) {
			t.Errorf("a sample of %v: %v", share, err)
		}
	}
}
