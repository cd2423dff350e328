package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"time"
)

// listing describes a directory: path, mode, content or link target.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s -> %s\n", rel, target)
		case fi.IsDir():
			fmt.Fprintf(&b, "%s/ %o\n", rel, fi.Mode().Perm())
		default:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %o %s\n", rel, fi.Mode().Perm(), content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// mixedTree stores a tree with one of each kind.
func mixedTree(t *testing.T, s *Store) Digest {
	t.Helper()
	sub := putFiles(t, s, map[string]string{"data.bin": "bytes"})
	empty := putFiles(t, s, nil)
	mtime := time.Date(2020, 2, 3, 4, 5, 6, 7000, time.UTC)
	root := &Tree{Attrs: MetaAttrs(map[string]string{"kind": "mixed"}), Entries: []Entry{
		{Name: "dir", Kind: KindDir, Size: 5, Digest: sub},
		{Name: "empty", Kind: KindDir, Digest: empty},
		{Name: "link", Kind: KindSymlink, Target: "dir/data.bin"},
		{Name: "out", Kind: KindSymlink, Target: "../elsewhere"},
		{Name: "run.sh", Kind: KindExecutable, Size: 9, Digest: putBlob(t, s, "#!/bin/sh")},
		{Name: "x.txt", Kind: KindFile, Size: 4, Digest: putBlob(t, s, "text"),
			Attrs: MetaAttrs(map[string]string{"type": "Text"}).With(MtimeAttr, formatMtime(mtime.UnixNano()))},
	}}
	root.Sort()
	d, err := s.PutTree(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCheckout(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	s := newTestStore(t)
	ctx := t.Context()
	tree := mixedTree(t, s)
	dir := filepath.Join(t.TempDir(), "new", "place")
	if err := s.Checkout(ctx, tree, dir, CheckoutOptions{}); err != nil {
		t.Fatal(err)
	}
	want := "./ 755\ndir/ 755\ndir/data.bin 644 bytes\nempty/ 755\nlink -> dir/data.bin\nout -> ../elsewhere\nrun.sh 755 #!/bin/sh\nx.txt 644 text\n"
	if got := listing(t, dir); got != want {
		t.Errorf("checked out:\n%swant:\n%s", got, want)
	}
	if v, err := getXattr(filepath.Join(dir, "x.txt"), "user.curi.type"); err != nil || v != "Text" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("metadata of the file: %q, %v", v, err)
		}
	}
	if v, err := getXattr(dir, "user.curi.kind"); err != nil || v != "mixed" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("metadata of the tree: %q, %v", v, err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "x.txt")); err != nil || fi.ModTime().Unix() != time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC).Unix() {
		t.Errorf("the time that was kept: %v, %v", fi.ModTime(), err)
	}
	// What was checked out is the caller's own.
	if err := os.WriteFile(filepath.Join(dir, "x.txt"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) != 0 {
		t.Errorf("writing to a checkout changed the store: %+v, %v", r, err)
	}
	if err := s.Checkout(ctx, tree, dir, CheckoutOptions{}); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), dir) {
		t.Errorf("over another: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "x.txt")); err != nil || string(b) != "changed" {
		t.Errorf("and it wrote there: %q, %v", b, err)
	}
	ro := t.TempDir() // there, and empty
	if err := s.Checkout(ctx, tree, ro, CheckoutOptions{ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeBelow(ro) })
	want = "./ 555\ndir/ 555\ndir/data.bin 444 bytes\nempty/ 555\nlink -> dir/data.bin\nout -> ../elsewhere\nrun.sh 555 #!/bin/sh\nx.txt 444 text\n"
	if got := listing(t, ro); got != want {
		t.Errorf("checked out read-only:\n%swant:\n%s", got, want)
	}
	os.Chmod(ro, 0o755)
}

func TestCheckoutCleansUp(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	tree := mixedTree(t, s)
	if err := os.Remove(s.blobPath(Sum([]byte("text")))); err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	if err := s.Checkout(ctx, tree, filepath.Join(base, "a/b/c"), CheckoutOptions{ReadOnly: true}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "x.txt") {
		t.Errorf("got %v", err)
	}
	if got := listing(t, base); strings.Count(got, "\n") != 1 {
		t.Errorf("left behind:\n%s", got)
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkout(ctx, tree, empty, CheckoutOptions{}); err == nil {
		t.Error("a blob that is missing went unnoticed")
	}
	if got := listing(t, base); got != "./ 755\nempty/ 700\n" && got != "./ 700\nempty/ 700\n" {
		t.Errorf("left behind:\n%s", got)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if err := s.Checkout(ctx, tree, dir, CheckoutOptions{}); !errors.Is(err, ErrExists) {
			t.Errorf("where a file is in the way: %v", err)
		}
	}
	if err := s.Checkout(ctx, Sum([]byte("none")), filepath.Join(base, "none"), CheckoutOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is not stored: %v", err)
	}
}

// Half a directory must not look like the whole, and what a checkout left that
// was cut off goes with the next.
func TestCheckoutThatIsCutOff(t *testing.T) {
	s := newTestStore(t)
	tree := mixedTree(t, s)
	dir := filepath.Join(t.TempDir(), "copy")
	abandoned, busy := unfinished(dir)+"0000", unfinished(dir)+"1111"
	for _, d := range []string{abandoned, busy} {
		if err := os.MkdirAll(filepath.Join(d, "x"), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	other, err := os.Open(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := flock(other, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Bool
	err = s.Checkout(t.Context(), tree, dir, CheckoutOptions{Progress: func(_, _, _, _ int64) {
		asked.Store(true)
		if _, err := os.Lstat(dir); err == nil {
			t.Error("it has its name before it is whole")
		}
	}})
	if err != nil || !asked.Load() {
		t.Fatal(asked.Load(), err)
	}
	ents, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(ents) != 2 || ents[0].Name() != filepath.Base(busy) || ents[1].Name() != "copy" {
		t.Errorf("left: %v, %v", ents, err)
	}
	os.Chmod(busy, 0o755)
}

func TestCheckoutLinks(t *testing.T) {
	s := newTestStore(t)
	tree := mixedTree(t, s)
	if os.Geteuid() != 0 {
		checkLinks(t, s, tree, filepath.Join(t.TempDir(), "out"))
		return
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := s.Checkout(t.Context(), tree, dir, CheckoutOptions{Link: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("links for root: %v", err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("a refused checkout made its directory")
	}
	if out, err := exec.Command("chown", "-R", "65534:65534", s.Dir()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	asNobody(t, "TestCheckoutLinksChild", s.Dir())
}

// TestCheckoutLinksChild is the part of TestCheckoutLinks that root cannot play.
func TestCheckoutLinksChild(t *testing.T) {
	dir := os.Getenv("CAS_TEST_DIR")
	if dir == "" {
		return
	}
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkLinks(t, s, mixedTree(t, s), filepath.Join(dir, "staging", "out"))
}

func checkLinks(t *testing.T, s *Store, tree Digest, dir string) {
	if err := s.Checkout(t.Context(), tree, dir, CheckoutOptions{Link: true}); err != nil {
		t.Fatal(err)
	}
	blob, err := os.Stat(s.blobPath(Sum([]byte("text"))))
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "x.txt")); err != nil || !os.SameFile(fi, blob) {
		t.Errorf("x.txt is no link to its blob: %v", err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || fi.Mode().Perm()&0o111 == 0 {
		t.Errorf("run.sh cannot be run: %v", err)
	}
}

func TestView(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	tree := mixedTree(t, s)
	dir, err := s.View(ctx, tree)
	if err != nil {
		t.Fatal(err)
	}
	if dir != filepath.Join(s.Dir(), "views", tree.String()) {
		t.Errorf("the view is at %s", dir)
	}
	for name, want := range map[string]string{"dir/data.bin": "bytes", "x.txt": "text", "link": "bytes", "run.sh": "#!/bin/sh"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	for name, want := range map[string]fs.FileMode{"dir/data.bin": 0o444, "x.txt": 0o444, "run.sh": 0o555, "dir": 0o555, "": 0o555} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %o", name, fi.Mode(), err, want)
		}
	}
	again, err := s.View(ctx, tree)
	if err != nil || again != dir {
		t.Errorf("again: %s, %v", again, err)
	}
	if _, err := s.View(ctx, Sum([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is not stored: %v", err)
	}
	// A store that was moved still shows its views.
	moved := s.Dir() + "-moved"
	if err := os.Rename(s.Dir(), moved); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(moved, "views", tree.String(), "dir/data.bin")); err != nil || string(b) != "bytes" {
		t.Errorf("after a move: %q, %v", b, err)
	}
	t.Cleanup(func() { removeAll(moved) })
}

func TestViewsAtOnce(t *testing.T) {
	s := newTestStore(t)
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("d%d/f%d", i%5, i)] = fmt.Sprint(i)
	}
	tree := putFiles(t, s, files)
	errs := make(chan error)
	for range 8 {
		go func() {
			dir, err := s.View(t.Context(), tree)
			if err == nil {
				_, err = os.ReadFile(filepath.Join(dir, "d4/f49"))
			}
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if ents, err := os.ReadDir(filepath.Join(s.Dir(), "views")); err != nil || len(ents) != 1 {
		t.Errorf("views/ holds %d names, %v", len(ents), err)
	}
	t.Cleanup(func() { removeAll(s.Dir()) })
}

func TestViewOfReference(t *testing.T) {
	s := newTestStore(t)
	path := filepath.Join(t.TempDir(), "big.bin")
	if err := os.WriteFile(path, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	added := mustAdd(t, s, path, AddOptions{Reference: true})
	defer added.Release()
	dir, err := s.View(t.Context(), added.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "big.bin")); err != nil || target != path {
		t.Errorf("the view leads to %q, %v; want %s", target, err, path)
	}
	t.Cleanup(func() { removeAll(s.Dir()) })
}

func TestUsage(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	a := putFiles(t, s, map[string]string{"own": "12345", "again": "12345", "shared": "1234567"})
	b := putFiles(t, s, map[string]string{"shared": "1234567", "other": "1"})
	for name, d := range map[string]Digest{"run/a": a, "stage/a": a, "run/b": b} {
		if err := s.SetRef(ctx, Ref{Name: name, Tree: d}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		roots []Digest
		want  Usage
	}{{[]Digest{a}, Usage{5, 7}}, {[]Digest{b}, Usage{1, 7}}, {[]Digest{a, b, a}, Usage{13, 0}}, {nil, Usage{}}} {
		if u, err := s.Usage(ctx, c.roots...); err != nil || u != c.want {
			t.Errorf("%d roots: %+v, %v; want %+v", len(c.roots), u, err, c.want)
		}
	}
	if _, err := s.Usage(ctx, Sum([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a root that is not stored: %v", err)
	}
}

// A blob that was cut off is not handed out as the file.
func TestCutOffBlobIsNotCheckedOut(t *testing.T) {
	s, ctx := newTestStore(t), t.Context()
	tree := putFiles(t, s, map[string]string{"a": "some bytes"})
	blob := s.blobPath(Sum([]byte("some bytes")))
	if err := os.Chmod(blob, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(blob, 4); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := s.Checkout(ctx, tree, dir, CheckoutOptions{}); !errors.Is(err, ErrCorrupt) || strings.Contains(err.Error(), "\n") {
		t.Errorf("checkout: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("something was left")
	}
	if _, err := s.View(ctx, tree); !errors.Is(err, ErrCorrupt) {
		t.Errorf("view: %v", err)
	}
}

// Of two checkouts below a directory that lacks, one that fails leaves the
// other's files alone.
func TestFailedCheckoutLeavesWhatIsBeside(t *testing.T) {
	s, ctx := newTestStore(t), t.Context()
	good := putFiles(t, s, map[string]string{"a": "good"})
	bad := putFiles(t, s, map[string]string{"a": "lost", "b": "kept"})
	if err := os.Remove(s.blobPath(Sum([]byte("lost")))); err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	beside := filepath.Join(top, "new", "deep", "good")
	other := sync.OnceFunc(func() {
		if err := s.Checkout(ctx, good, beside, CheckoutOptions{}); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(top, "new", "deep", "er", "bad")
	err := s.Checkout(ctx, bad, dir, CheckoutOptions{Progress: func(int64, int64, int64, int64) { other() }})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("checked out: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(beside, "a")); err != nil || string(b) != "good" {
		t.Errorf("the other checkout: %q, %v", b, err)
	}
	if ents, err := os.ReadDir(filepath.Join(top, "new", "deep")); err != nil || len(ents) != 1 {
		t.Errorf("left behind: %v, %v", ents, err)
	}
	if err := s.Checkout(ctx, bad, filepath.Join(top, "x", "y", "z"), CheckoutOptions{}); err == nil {
		t.Error("checked out")
	}
	if ents, err := os.ReadDir(top); err != nil || len(ents) != 1 {
		t.Errorf("left behind: %v, %v", ents, err)
	}
}
