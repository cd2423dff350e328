package cas

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// newStore makes a store in a directory of its own.
func newCoreStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// coreBlob stores bytes as a blob, without any of what adding does beside.
func coreBlob(t testing.TB, s *Store, b []byte) Digest {
	t.Helper()
	d := Sum(b)
	if err := s.writeFileDurable(s.blobPath(d), b, blobMode); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenCreates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "store")
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), dir) {
		t.Errorf("without Create: %v, want ErrNotFound and the path", err)
	}
	s, err := Open(t.Context(), dir, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Created() || s.Dir() != dir || len(s.ID()) != 16 {
		t.Errorf("Created %v, Dir %q, ID %q", s.Created(), s.Dir(), s.ID())
	}
	again, err := Open(t.Context(), dir, Options{Create: true})
	if err != nil || again.Created() || again.ID() != s.ID() {
		t.Errorf("opened again: %v, Created %v, ID %q, want %q", err, again.Created(), again.ID(), s.ID())
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "staging")); len(left) != 0 {
		t.Errorf("staging holds %v", left)
	}
}

func TestOpenAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	var wg sync.WaitGroup
	ids := make([]string, 8)
	created := make([]bool, len(ids))
	for i := range ids {
		wg.Go(func() {
			s, err := Open(context.Background(), dir, Options{Create: true})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i], created[i] = s.ID(), s.Created()
		})
	}
	wg.Wait()
	makers := 0
	for i := range ids {
		if ids[i] != ids[0] {
			t.Errorf("two stores in one directory: %q and %q", ids[i], ids[0])
		}
		if created[i] {
			makers++
		}
	}
	if makers != 1 {
		t.Errorf("%d made the store", makers)
	}
}

func TestOpenMovedAndLinked(t *testing.T) {
	s := newCoreStore(t)
	d := coreBlob(t, s, []byte("hello"))
	moved := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Rename(s.Dir(), moved); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(moved, link); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), link, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if l.ID() != s.ID() || l.Dir() != moved || !l.HasBlob(d) {
		t.Errorf("ID %q, Dir %q, HasBlob %v", l.ID(), l.Dir(), l.HasBlob(d))
	}
	// A store that shall be made behind a link to an empty directory.
	empty := t.TempDir()
	link2 := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(empty, link2); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), link2, Options{Create: true}); err != nil || s.Dir() != empty {
		t.Errorf("made behind a link: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	used := t.TempDir()
	if err := os.WriteFile(filepath.Join(used, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(used, "thesis.tex")
	header := func(text string) string {
		s := newCoreStore(t)
		name := filepath.Join(s.Dir(), storeFile)
		os.Remove(name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.Dir()
	}
	for what, c := range map[string]struct {
		dir   string
		group string
		is    error
		says  string
	}{
		"full directory": {dir: used, is: ErrInvalid, says: "thesis.tex"},
		"file":           {dir: file, is: syscall.ENOTDIR, says: file},
		"empty name":     {dir: "", is: ErrInvalid, says: "no directory"},
		"newer":          {dir: header(`{"format":2,"id":"0011223344556677"}`), is: ErrFormat, says: "format 2, this Curi reads format 1"},
		"damaged":        {dir: header(`{"form`), is: ErrCorrupt, says: storeFile},
		"no id":          {dir: header(`{"format":1,"id":"xyz"}`), is: ErrCorrupt, says: "id"},
		"private":        {dir: newCoreStore(t).Dir(), group: "0", is: ErrExists, says: "not made to be shared"},
		"unknown group":  {dir: filepath.Join(t.TempDir(), "s"), group: "no-such-group", is: ErrInvalid, says: "no-such-group"},
	} {
		_, err := Open(t.Context(), c.dir, Options{Create: true, Group: c.group})
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant %v and %q", what, err, c.is, c.says)
		}
	}
}

func TestSharedStoreWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true, Group: "0"})
	if errors.Is(err, fs.ErrPermission) && os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Open(t.Context(), s.Dir(), Options{}); err != nil || !again.Shared() {
		t.Fatalf("opened again: %v", err)
	}
	d := coreBlob(t, s, []byte("hello"))
	note := filepath.Join(s.Dir(), "refs", "artifact", "x", "v", "1")
	if err := s.writeFileDurable(note, []byte("{}"), s.smallFileMode()); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(s.Dir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(sharedFileMode)
		switch {
		case e.IsDir():
			want = fs.ModeDir | sharedDirMode
		case path == s.blobPath(d) || e.Name() == storeFile:
			want = blobMode
		}
		if fi.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, fi.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asNobody runs a test function of this binary as a user without rights.
func asNobody(t *testing.T, name, dir string) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	// The binary lies where only root can look.
	exe := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for p := filepath.Dir(exe); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	for p := filepath.Dir(dir); p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	cmd := exec.Command(exe, "-test.run=^"+name+"$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "CAS_TEST_DIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	return string(out)
}

// TestStoreWithoutRights is the part that runs as nobody.
func TestStoreWithoutRightsChild(t *testing.T) {
	dir := os.Getenv("CAS_TEST_DIR")
	if dir == "" {
		return // runs inside TestStoreWithoutRights
	}
	s, err := Open(t.Context(), dir, Options{Create: true})
	if err != nil {
		t.Fatalf("a store that can be read does not open: %v", err)
	}
	if b, err := s.OpenBlob(t.Context(), Sum([]byte("hello"))); err != nil {
		t.Errorf("a blob that can be read does not open: %v", err)
	} else {
		b.Close()
	}
	err = s.writeFileDurable(filepath.Join(dir, "refs", "x"), nil, 0o600)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "ask the owner") || !strings.Contains(err.Error(), dir) {
		t.Errorf("writing: %v", err)
	}
	_, err = Open(t.Context(), filepath.Join(dir, "refs", "new"), Options{Create: true})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "use another store") {
		t.Errorf("making a store there: %v", err)
	}
	_, err = Open(t.Context(), filepath.Join(dir, "at"), Options{Create: true})
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("opening where nothing can be read: %v", err)
	}
	if _, err := s.Facts(t.Context()); err != nil {
		t.Errorf("Facts: %v", err)
	}
}

func TestStoreWithoutRights(t *testing.T) {
	s := newCoreStore(t)
	coreBlob(t, s, []byte("hello"))
	if err := os.Chmod(filepath.Join(s.Dir(), "at"), 0o700); err != nil {
		t.Fatal(err)
	}
	asNobody(t, "TestStoreWithoutRightsChild", s.Dir())
}

func TestStoreThatIsGone(t *testing.T) {
	s := newCoreStore(t)
	if err := os.RemoveAll(s.Dir()); err != nil {
		t.Fatal(err)
	}
	err := s.writeFileDurable(filepath.Join(s.Dir(), "refs", "artifact", "x"), nil, 0o600)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("writing: %v", err)
	}
	if _, err := os.Lstat(s.Dir()); err == nil {
		t.Error("the directory of a store that is gone was made again")
	}
}

// Tools that copy stores lose empty directories.
func TestStoreWithoutItsEmptyDirectories(t *testing.T) {
	s := newCoreStore(t)
	for _, name := range storeDirs {
		os.Remove(filepath.Join(s.Dir(), name))
	}
	s, err := Open(t.Context(), s.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	added, err := s.AddReader(t.Context(), strings.NewReader("hello"), "x", AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), "x", added.Tree, PublishOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.View(t.Context(), added.Tree); err != nil {
		t.Error(err)
	}
	if err := s.Place(strings.Repeat("ab", 32)).SetState(t.Context(), PlaceState{Key: strings.Repeat("ab", 32)}); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := s.Verify(t.Context(), VerifyOptions{}); err != nil {
		t.Error(err)
	}
	d, err := s.PutTree(t.Context(), &Tree{Entries: []Entry{{Name: "x", Kind: KindFile, Size: 5, Digest: coreBlob(t, s, []byte("hello"))}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.ResolvePrefix(t.Context(), d.String()[:8]); got != d || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

func TestFacts(t *testing.T) {
	s := newCoreStore(t)
	f, err := s.Facts(t.Context())
	if err != nil || f.Filesystem == "" || f.Free <= 0 || f.Total < f.Free {
		t.Errorf("%+v, %v", f, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "staging")); len(left) != 0 {
		t.Errorf("staging holds %v", left)
	}
}

func TestLinkFileDurable(t *testing.T) {
	s := newCoreStore(t)
	path := filepath.Join(s.Dir(), "refs", "a", "b", "c")
	if err := s.linkFileDurable(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.linkFileDurable(path, []byte("2"), 0o644); !errors.Is(err, ErrExists) {
		t.Errorf("again: %v, want ErrExists", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "1" {
		t.Errorf("holds %q, %v", b, err)
	}
	if err := s.writeFileDurable(path, []byte("3"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "3" {
		t.Errorf("replaced, it holds %q, %v", b, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "staging")); len(left) != 0 {
		t.Errorf("staging holds %v", left)
	}
}

func TestCloneOrCopy(t *testing.T) {
	dir := t.TempDir()
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// A hole, data, a hole.
	data := randomBytes(100_000)
	if _, err := src.WriteAt(data, 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := src.Truncate(9<<20 + 1); err != nil {
		t.Fatal(err)
	}
	f, _, err := cloneOrCopy(t.Context(), src, filepath.Join(dir, "dst"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, _ := os.ReadFile(src.Name())
	b, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the copy differs: %d and %d bytes, %v", len(a), len(b), err)
	}
	// The same across filesystems and where the kernel cannot help.
	p, err := os.Create(filepath.Join(dir, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := copyPlain(t.Context(), p, src, 0, int64(len(a))); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(p.Name()); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the plain copy differs: %d and %d bytes, %v", len(a), len(b), err)
	}
	if _, _, err := cloneOrCopy(t.Context(), src, f.Name(), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that exists: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, cloned, err := cloneOrCopy(ctx, src, filepath.Join(dir, "cancelled"), 0o644); !cloned && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	} else if _, err := os.Lstat(filepath.Join(dir, "cancelled")); !cloned && err == nil {
		t.Error("a cancelled copy was left behind")
	}
}
