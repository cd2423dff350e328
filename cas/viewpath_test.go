package cas

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A path into a large tree costs what lies beside it, unless a link there
// leads out of that directory.
func TestPathOf(t *testing.T) {
	s := newTestStore(t)
	src := t.TempDir()
	for name, text := range map[string]string{"top": "top", "closed/deep/f": "f", "open/f": "f of open", "roundabout/f": "g"} {
		p := filepath.Join(src, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"closed/deep/up": "./f", "closed/in": "deep/f", "open/out": "../top", "roundabout/l": "x/../../top"} {
		if err := os.Symlink(target, filepath.Join(src, link)); err != nil {
			t.Fatal(err)
		}
	}
	added, err := s.AddPath(t.Context(), src, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	whole := filepath.Join(s.Dir(), "views", added.Tree.String())
	for _, name := range []string{"closed/deep/f", "closed/deep", "closed/in", "closed/deep/up"} {
		p, err := s.PathOf(t.Context(), added.Tree, name)
		if err != nil || filepath.Base(p) != filepath.Base(name) {
			t.Errorf("%s: %s, %v", name, p, err)
		}
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.PathOf(t.Context(), added.Tree, "closed/none/f"); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := os.Stat(whole); err == nil {
		t.Error("all of the tree was shown for a part of it")
	}
	for name, want := range map[string]string{"open/f": "f of open", "open/out": "top", "roundabout/f": "g"} {
		p, err := s.PathOf(t.Context(), added.Tree, name)
		if err != nil || p != filepath.Join(whole, name) {
			t.Errorf("%s: %s, %v", name, p, err)
		}
		if b, err := os.ReadFile(p); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	// What is there serves.
	if p, err := s.PathOf(t.Context(), added.Tree, "closed/deep/f"); err != nil || p != filepath.Join(whole, "closed/deep/f") {
		t.Errorf("%s, %v", p, err)
	}
}
