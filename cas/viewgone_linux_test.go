package cas

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h.
const immutableFlag = 0x10

// setImmutable makes a directory one from which nothing can be removed, or
// one as any other again.
func setImmutable(dir string, immutable bool) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	flags, err := unix.IoctlGetInt(int(d.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	flags &^= immutableFlag
	if immutable {
		flags |= immutableFlag
	}
	return unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// A view whose removal was cut off is none of the tree when that is stored again.
func TestViewThatIsHalfRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a directory immutable")
	}
	s := newTestStore(t)
	src := t.TempDir()
	for _, name := range []string{"a", "sub/b", "z"} {
		p := filepath.Join(src, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	view := func() string {
		t.Helper()
		added, err := s.AddPath(t.Context(), src, AddOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer added.Release()
		path, err := s.View(t.Context(), added.Tree)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "sub/b", "z"} {
			if b, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(b) != name {
				t.Errorf("%s in the view: %q, %v", name, b, err)
			}
		}
		return path
	}
	if err := setImmutable(filepath.Join(view(), "sub"), true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		subs, _ := filepath.Glob(filepath.Join(s.Dir(), "views", "*", "sub"))
		hidden, _ := filepath.Glob(filepath.Join(s.Dir(), "views", ".*", "sub"))
		for _, sub := range append(subs, hidden...) {
			if err := setImmutable(sub, false); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	view()
}
