package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// bigSize is the size of the largest file of sampleStore.
const bigSize = 100_001

// sampleStore holds a tree with files, directories, an empty directory, and
// links in and out.
func sampleStore(t testing.TB) (*Store, Digest) {
	s := newCoreStore(t)
	put := func(tree Tree) Digest {
		tree.Sort()
		d, err := s.PutTree(t.Context(), &tree)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	hello, big := coreBlob(t, s, []byte("hello")), coreBlob(t, s, randomBytes(bigSize))
	empty := put(Tree{})
	deep := put(Tree{Entries: []Entry{{Name: "run", Kind: KindExecutable, Size: 5, Digest: hello}, {Name: "up", Kind: KindSymlink, Target: "../big"}}})
	return s, put(Tree{
		Attrs: MetaAttrs(map[string]string{"type": "T"}),
		Entries: []Entry{
			{Name: "hello.txt", Kind: KindFile, Size: 5, Digest: hello},
			{Name: "big", Kind: KindFile, Size: bigSize, Digest: big},
			{Name: "empty", Kind: KindDir, Digest: empty},
			{Name: "deep", Kind: KindDir, Size: 5, Digest: deep},
			{Name: "link", Kind: KindSymlink, Target: "deep/run"},
			{Name: "dirlink", Kind: KindSymlink, Target: "deep"},
		},
	})
}

func TestFS(t *testing.T) {
	s, d := sampleStore(t)
	fsys, err := s.FS(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(fsys, "hello.txt", "big", "empty", "deep/run", "deep/up", "link"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"hello.txt": "hello", "link": "hello", "dirlink/run": "hello"} {
		if b, err := fs.ReadFile(fsys, name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	if fi, err := fs.Stat(fsys, "dirlink/up"); err != nil || fi.Size() != bigSize || fi.Mode() != 0o444 || !fi.ModTime().Equal(ModTime) {
		t.Errorf("a link over a link: %v, %v", fi, err)
	}
	if fi, err := fs.Lstat(fsys, "link"); err != nil || fi.Mode() != fs.ModeSymlink|0o777 {
		t.Errorf("Lstat of a link: %v, %v", fi, err)
	}
	f, err := fsys.Open("big")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 7)
	if _, err := f.(io.ReaderAt).ReadAt(p, bigSize-50); err != nil || !slices.Equal(p, randomBytes(bigSize)[bigSize-50:][:7]) {
		t.Errorf("ReadAt: %x, %v", p, err)
	}
	if n, err := f.(io.Seeker).Seek(-1, io.SeekEnd); err != nil || n != bigSize-1 {
		t.Errorf("Seek: %d, %v", n, err)
	}
	for _, name := range []string{"none", "hello.txt/x", "deep/none"} {
		if _, err := fsys.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrNotExist", name, err)
		}
	}
}

func TestFSLinksStayInside(t *testing.T) {
	s := newCoreStore(t)
	var tree Tree
	for i, target := range []string{"/etc/passwd", "../x", "a/../../x", "link0", "loop", "."} {
		tree.Entries = append(tree.Entries, Entry{Name: fmt.Sprint("link", i), Kind: KindSymlink, Target: target})
	}
	tree.Entries = append(tree.Entries, Entry{Name: "loop", Kind: KindSymlink, Target: "loop"})
	d, err := s.PutTree(t.Context(), &tree)
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := s.FS(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		name := fmt.Sprint("link", i)
		if _, err := fsys.Open(name); err == nil {
			t.Errorf("%s (to %s) opens", name, tree.Entries[i].Target)
		}
		if to, err := fs.ReadLink(fsys, name); err != nil || to != tree.Entries[i].Target {
			t.Errorf("%s leads to %q, %v", name, to, err)
		}
	}
	if fi, err := fs.Stat(fsys, "link5"); err != nil || !fi.IsDir() {
		t.Errorf("a link to its own directory: %v, %v", fi, err)
	}
}

func TestFSNoticesWrongBlobs(t *testing.T) {
	s, d := sampleStore(t)
	fsys, err := s.FS(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	path := s.blobPath(Sum([]byte("hello")))
	os.Remove(path)
	if _, err := fsys.Open("hello.txt"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a blob that is gone: %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(path, []byte("hell"), 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Open("hello.txt"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a blob cut off: %v, want ErrCorrupt", err)
	}
}

func TestPutTreeWantsAllItNames(t *testing.T) {
	s := newCoreStore(t)
	none := Sum([]byte("never stored"))
	for _, kind := range []Kind{KindFile, KindExecutable, KindDir} {
		_, err := s.PutTree(t.Context(), &Tree{Entries: []Entry{{Name: "x", Kind: kind, Size: 1, Digest: none}}})
		if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), none.String()) {
			t.Errorf("%s: %v, want ErrNotFound and the digest", kind, err)
		}
	}
}

func TestTreeIsVerified(t *testing.T) {
	s, d := sampleStore(t)
	b, err := os.ReadFile(s.treePath(d))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	os.Remove(s.treePath(d))
	if err := os.WriteFile(s.treePath(d), b, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tree(t.Context(), d); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), d.String()) {
		t.Errorf("%v, want ErrCorrupt and the digest", err)
	}
	if _, err := s.Tree(t.Context(), Sum(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
}

func TestWalk(t *testing.T) {
	s, d := sampleStore(t)
	walk := func(answer map[string]error) (string, error) {
		var got []string
		err := s.Walk(t.Context(), d, func(path string, e Entry) error {
			got = append(got, path)
			return answer[path]
		})
		return strings.Join(got, " "), err
	}
	boom := errors.New("boom")
	for _, c := range []struct {
		answer map[string]error
		want   string
		err    error
	}{
		{nil, "big deep deep/run deep/up dirlink empty hello.txt link", nil},
		{map[string]error{"deep": fs.SkipDir}, "big deep dirlink empty hello.txt link", nil},
		{map[string]error{"deep/run": fs.SkipDir}, "big deep deep/run dirlink empty hello.txt link", nil},
		{map[string]error{"dirlink": fs.SkipAll}, "big deep deep/run deep/up dirlink", nil},
		{map[string]error{"big": boom}, "big", boom},
	} {
		if got, err := walk(c.answer); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v: %s, %v; want %s, %v", c.answer, got, err, c.want, c.err)
		}
	}
}

func TestStoreLookup(t *testing.T) {
	s, d := sampleStore(t)
	for path, want := range map[string]Kind{"": KindDir, ".": KindDir, "deep": KindDir, "deep/": KindDir, "deep/run": KindExecutable, "./deep//run": KindExecutable, "link": KindSymlink} {
		if e, err := s.Lookup(t.Context(), d, path); err != nil || e.Kind != want {
			t.Errorf("%q is a %s, %v; want %s", path, e.Kind, err, want)
		}
	}
	if e, err := s.Lookup(t.Context(), d, "."); err != nil || e.Digest != d || e.Size != bigSize+5+5 || len(e.Attrs) != 1 {
		t.Errorf("the root: %+v, %v", e, err)
	}
	for _, path := range []string{"none", "deep/none", "link/run", "hello.txt/x", "..", "deep/../link"} {
		if _, err := s.Lookup(t.Context(), d, path); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v, want ErrNotFound", path, err)
		}
	}
}

func TestSingleFile(t *testing.T) {
	s, d := sampleStore(t)
	if _, _, ok, err := s.SingleFile(t.Context(), d); ok || err != nil {
		t.Errorf("a directory: %v, %v", ok, err)
	}
	f := Entry{Name: "m.ckpt", Kind: KindFile, Size: 5, Digest: Sum([]byte("hello"))}
	inner, err := s.PutTree(t.Context(), &Tree{Entries: []Entry{f}})
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.PutTree(t.Context(), &Tree{Single: true, Entries: []Entry{{Name: "a", Kind: KindDir, Size: 5, Digest: inner}}})
	if err != nil {
		t.Fatal(err)
	}
	path, e, ok, err := s.SingleFile(t.Context(), root)
	if path != "a/m.ckpt" || e.Digest != f.Digest || !ok || err != nil {
		t.Errorf("%q, %+v, %v, %v", path, e, ok, err)
	}
	// Marked so by mistake.
	bad, err := s.PutTree(t.Context(), &Tree{Single: true, Entries: []Entry{{Name: "a", Kind: KindDir, Digest: d}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := s.SingleFile(t.Context(), bad); ok || !errors.Is(err, ErrCorrupt) {
		t.Errorf("several files marked as one: %v, %v", ok, err)
	}
}

func TestHeadOfATree(t *testing.T) {
	s, dir := sampleStore(t)
	want := Attrs{{MetaPrefix + "type", "Net"}}
	f := Entry{Name: "m.ckpt", Kind: KindFile, Size: 5, Digest: Sum([]byte("hello"))}
	several, err := s.PutTree(t.Context(), &Tree{Attrs: want, Entries: []Entry{f, {Name: "z", Kind: KindDir, Digest: dir}}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Head(t.Context(), several)
	if err != nil || fmt.Sprint(h.Attrs) != fmt.Sprint(want) || h.File != "" {
		t.Errorf("a directory: %+v, %v", h, err)
	}
	single, err := s.PutTree(t.Context(), &Tree{Single: true, Attrs: want, Entries: []Entry{f}})
	if err != nil {
		t.Fatal(err)
	}
	h, err = s.Head(t.Context(), single)
	if err != nil || fmt.Sprint(h.Attrs) != fmt.Sprint(want) || h.File != "m.ckpt" || h.Entry.Digest != f.Digest {
		t.Errorf("a file: %+v, %v", h, err)
	}
	if _, err := s.Head(t.Context(), Sum([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tree that is not there: %v", err)
	}
	// Damage at the end, where the entries are, counts too.
	path := s.treePath(several)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-2] ^= 1
	if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), several); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged tree: %v", err)
	}
}

func TestResolvePrefix(t *testing.T) {
	s, tree := sampleStore(t)
	blob := Sum([]byte("hello"))
	for _, c := range []struct {
		d      Digest
		isTree bool
	}{{blob, false}, {tree, true}} {
		for _, n := range []int{8, 20, 63, 64} {
			for _, p := range []string{c.d.String()[:n], strings.ToUpper(c.d.String()[:n])} {
				if d, isTree, err := s.ResolvePrefix(t.Context(), p); d != c.d || isTree != c.isTree || err != nil {
					t.Errorf("%s: %s, %v, %v", p, d, isTree, err)
				}
			}
		}
	}
	twin := blob
	twin[31] ^= 1
	if err := s.writeFileDurable(s.blobPath(twin), nil, blobMode); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.ResolvePrefix(t.Context(), blob.String()[:20]); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), twin.String()) || !strings.Contains(err.Error(), blob.String()) {
		t.Errorf("ambiguous: %v", err)
	}
	if d, _, err := s.ResolvePrefix(t.Context(), blob.String()); d != blob || err != nil {
		t.Errorf("a whole digest beside its twin: %v", err)
	}
	for p, want := range map[string]error{"1234567": ErrInvalid, "zzzzzzzzz": ErrInvalid, strings.Repeat("0", 65): ErrInvalid, "../../etc": ErrInvalid, "00000000": ErrNotFound, strings.Repeat("0", 64): ErrNotFound} {
		if _, _, err := s.ResolvePrefix(t.Context(), p); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", p, err, want)
		}
	}
}
