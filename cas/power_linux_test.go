package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"
)

// fragile is a store on a filesystem of its own whose power can fail.
type fragile struct {
	*Store
	t               *testing.T
	image, mnt, dir string
}

func newFragileStore(t *testing.T) *fragile {
	t.Helper()
	dir := t.TempDir()
	f := &fragile{t: t, dir: dir, image: filepath.Join(dir, "image"), mnt: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(f.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	f.run("truncate", "-s", "64M", f.image)
	f.run("mkfs.ext4", "-q", f.image)
	f.mount(f.image, f.mnt)
	s, err := Open(t.Context(), filepath.Join(f.mnt, "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	f.Store = s
	return f
}

func (f *fragile) run(name string, args ...string) {
	f.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		needsRoot(f.t, fmt.Errorf("%s: %w: %s", name, err, out))
	}
}

func (f *fragile) mount(image, dir string) {
	f.t.Helper()
	f.run("mount", "-o", "loop", image, dir)
	f.t.Cleanup(func() { f.unmount(dir) })
}

// unmount waits for a loop device that is being let go.
func (f *fragile) unmount(dir string) {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = unix.Unmount(dir, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		f.t.Errorf("unmount %s: %v", dir, err)
	}
}

// powerFailure returns the store as it would be found if the power failed now:
// with what is on the disk.
func (f *fragile) powerFailure() *Store {
	f.t.Helper()
	image, mnt := filepath.Join(f.dir, "left"), filepath.Join(f.dir, "after")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.run("cp", "--sparse=always", f.image, image)
	f.mount(image, mnt)
	s, err := Open(f.t.Context(), filepath.Join(mnt, "store"), Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// A view that is there is believed for good.
func TestViewAfterAPowerFailure(t *testing.T) {
	s := newFragileStore(t)
	src := filepath.Join(t.TempDir(), "tool")
	text := string(noise(1, 100_000))
	writeFiles(t, filepath.Dir(src), map[string]string{"tool": text})
	if err := os.Chmod(src, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := s.AddPath(t.Context(), src, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.View(t.Context(), a.Tree); err != nil {
		t.Fatal(err)
	}
	// Names become durable with those of others.
	if err := s.SetRef(t.Context(), Ref{Name: "run/a", Tree: a.Tree}); err != nil {
		t.Fatal(err)
	}
	a.Release()
	after := s.powerFailure()
	view, err := after.View(t.Context(), a.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(view, "tool")); err != nil || string(b) != text {
		t.Errorf("the view has other bytes than the tree: %v", err)
	}
}

// A published name points at bytes that are durable, whichever way they came.
func TestNamedBytesOutliveAPowerFailure(t *testing.T) {
	s, ctx := newFragileStore(t), t.Context()
	src := t.TempDir()
	many := map[string]string{}
	for i := range 2 * manyFiles {
		many[fmt.Sprintf("many/%d", i)] = fmt.Sprint("many ", i)
	}
	writeFiles(t, src, many)
	writeFiles(t, src, map[string]string{"one": "one", "big": string(noise(1, 3<<20)), "few/a": "a", "few/sub/b": "b", "few/sub/empty": ""})
	ways := map[string]func() (*Added, error){
		"one file":       func() (*Added, error) { return s.AddPath(ctx, filepath.Join(src, "one"), AddOptions{}) },
		"a large file":   func() (*Added, error) { return s.AddPath(ctx, filepath.Join(src, "big"), AddOptions{}) },
		"a few files":    func() (*Added, error) { return s.AddPath(ctx, filepath.Join(src, "few"), AddOptions{}) },
		"many files":     func() (*Added, error) { return s.AddPath(ctx, filepath.Join(src, "many"), AddOptions{}) },
		"a small stream": func() (*Added, error) { return s.AddReader(ctx, strings.NewReader("stream"), "x", AddOptions{}) },
		"a large stream": func() (*Added, error) {
			return s.AddReader(ctx, bytes.NewReader(noise(2, 3<<20)), "x", AddOptions{})
		},
		"a file system": func() (*Added, error) {
			return s.AddFS(ctx, fstest.MapFS{"d/x": {Data: []byte("in an fs.FS")}}, AddOptions{})
		},
		"outputs": func() (*Added, error) {
			out := filepath.Join(s.Dir(), "at", "0123456789abcdef", "out")
			writeFiles(t, out, map[string]string{"model": string(noise(3, 3<<20)), "sub/x": "sealed"})
			return s.Seal(ctx, out, SealOptions{})
		},
		"a tree": func() (*Added, error) {
			blob, err := s.AddReader(ctx, strings.NewReader("of a tree"), "x", AddOptions{})
			if err != nil {
				return nil, err
			}
			defer blob.Release()
			return s.AddTree(ctx, &Tree{Entries: []Entry{{Name: "y", Kind: KindFile, Size: 9, Digest: blob.Digest}}})
		},
	}
	trees := map[string]Digest{}
	for way, add := range ways {
		a, err := add()
		if err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		name := strings.ReplaceAll(way, " ", "-")
		if _, _, err := s.Publish(ctx, name, a.Tree, PublishOptions{Tag: "best"}); err != nil {
			t.Fatal(err)
		}
		trees[name] = a.Tree
		a.Release()
	}
	after := s.powerFailure()
	for name, tree := range trees {
		for _, selector := range []string{"", "1", "best"} {
			if v, err := after.Version(ctx, name, selector); err != nil || v.Tree != tree {
				t.Errorf("%s@%s: %v, %v", name, selector, v.Tree, err)
			}
		}
		contents(t, after, tree)
	}
	if r, err := after.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) > 0 {
		t.Errorf("verified: %+v, %v", r.Bad, err)
	}
}

// thinStore is a store on a disk that promises more space than there is, and
// how to use all of that up and to give it back. Bytes that do not fit are lost
// when they are written back, long after the program's write succeeded.
func thinStore(t *testing.T) (s *Store, mnt string, exhaust, restore func()) {
	t.Helper()
	dir := t.TempDir()
	f := &fragile{t: t}
	disk := filepath.Join(dir, "disk")
	mnt = filepath.Join(dir, "mnt")
	for _, d := range []string{disk, mnt} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.run("mount", "-t", "tmpfs", "-o", "size=60M", "tmpfs", disk)
	t.Cleanup(func() { f.unmount(disk) })
	image := filepath.Join(disk, "image")
	f.run("truncate", "-s", "200M", image)
	// Without a journal, which would not survive either.
	f.run("mkfs.ext4", "-q", "-O", "^has_journal", "-N", "2000", "-E", "lazy_itable_init=0,nodiscard", image)
	f.mount(image, mnt)
	s, err := Open(t.Context(), filepath.Join(mnt, "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(disk, "ballast")
	exhaust = func() {
		t.Helper()
		// Directories and what else the files need is there, their bytes are not.
		var st unix.Statfs_t
		if err := unix.Statfs(disk, &st); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ballast, make([]byte, int64(st.Bavail)*st.Bsize-2<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	restore = func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	return s, mnt, exhaust, restore
}

// loseBytes has another process be the one that is told of lost bytes.
func loseBytes(t *testing.T, mnt string) {
	t.Helper()
	if out, err := exec.Command("sync", "-f", mnt).CombinedOutput(); err == nil {
		t.Fatalf("nothing was lost: %s", out)
	}
}

// The system tells of bytes that were lost on their way to the disk only once:
// another process that synced may have heard of it.
func TestBytesThatWereLostAreNotPublished(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 40 {
		files[fmt.Sprintf("f%02d", i)] = &fstest.MapFile{Data: noise(uint64(i), 1<<20)}
	}
	t.Run("while they are added", func(t *testing.T) {
		s, mnt, exhaust, restore := thinStore(t)
		exhaust()
		files := maps.Clone(files)
		files["last"] = &fstest.MapFile{Data: noise(99, 3<<20)}
		a, err := s.AddFS(t.Context(), &hookFS{files, func(name string) {
			if name == "last" {
				loseBytes(t, mnt)
				restore()
			}
		}}, AddOptions{})
		if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("added: %v", err)
		}
		if a != nil {
			a.Release()
		}
	})
	t.Run("before they are sealed", func(t *testing.T) {
		s, mnt, exhaust, restore := thinStore(t)
		out := filepath.Join(s.Dir(), "at", "0123456789abcdef", "out")
		exhaust()
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(out, files); err != nil {
			t.Fatal(err)
		}
		loseBytes(t, mnt)
		restore()
		a, err := s.Seal(t.Context(), out, SealOptions{})
		if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("sealed: %v", err)
		}
		if a != nil {
			a.Release()
		}
	})
}

// hookFS tells of each file that is opened.
type hookFS struct {
	fs.FS
	opened func(name string)
}

func (f *hookFS) Open(name string) (fs.File, error) {
	f.opened(name)
	return f.FS.Open(name)
}
