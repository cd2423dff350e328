package cas

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// A snapshot has what is at rest, as it is, and shares nothing with it.
func TestSnapshot(t *testing.T) {
	s := newTestStore(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("ck/a", "weights")
	write("ck/busy", "half")
	write("ck/.curiignore", "*")
	mtime := time.Unix(1_600_000_000, 123456789)
	for _, err := range []error{
		os.Chtimes(filepath.Join(dir, "ck/a"), mtime, mtime),
		os.Link(filepath.Join(dir, "ck/a"), filepath.Join(dir, "ck/b")),
		os.Symlink("a", filepath.Join(dir, "ck/in")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "ck/out")),
		syscall.Mkfifo(filepath.Join(dir, "ck/fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := filepath.Join(dir, "ck/zz-gone")
	write("ck/zz-gone", "temporary")
	added, err := s.Snapshot(t.Context(), dir, func(path string, _ time.Time) bool {
		if path == gone { // between the listing and the reading
			os.Remove(gone)
		}
		return filepath.Base(path) == "busy"
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	e, err := s.Lookup(t.Context(), added.Tree, "ck")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Tree(t.Context(), e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range tree.Entries {
		names = append(names, e.Name)
	}
	if want := []string{".curiignore", "a", "b", "in"}; !slices.Equal(names, want) {
		t.Fatalf("the snapshot has %v, want %v", names, want)
	}
	a, _ := tree.Lookup("a")
	b, _ := tree.Lookup("b")
	if v, _ := a.Attrs.Get(MtimeAttr); v != "1600000000123456789" || a.Digest != b.Digest {
		t.Errorf("%+v, %+v", a, b)
	}
	// What a program writes into its file is not in the blob.
	write("ck/a", "WEIGHTS")
	blob, err := s.OpenBlob(t.Context(), a.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	got := make([]byte, 7)
	if _, err := blob.ReadAt(got, 0); err != nil || string(got) != "weights" {
		t.Errorf("the blob holds %q, %v", got, err)
	}
	out := filepath.Join(t.TempDir(), "again")
	if err := s.Checkout(t.Context(), added.Tree, out, CheckoutOptions{}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(out, "ck/b")); err != nil || !fi.ModTime().Equal(mtime) {
		t.Errorf("it comes back with the time %v (%v)", fi.ModTime(), err)
	}
}
