package cas

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
	f.t.Cleanup(func() { f.run("umount", dir) })
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
