package cas

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// addStore makes an empty store in a directory of its own.
func addStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// writeFiles makes files below dir; names that end in / are directories.
func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if name[len(name)-1] == '/' {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func mustAdd(t testing.TB, s *Store, path string, o AddOptions) *Added {
	t.Helper()
	a, err := s.AddPath(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Release)
	return a
}

// contents reads a stored tree: path → bytes of files, "-> target" of links,
// "dir" of directories, with "*" before the bytes of executables.
func contents(t testing.TB, s *Store, tree Digest) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := s.Walk(context.Background(), tree, func(path string, e Entry) error {
		switch e.Kind {
		case KindDir:
			m[path] = "dir"
		case KindSymlink:
			m[path] = "-> " + e.Target
		default:
			b, err := s.OpenBlob(context.Background(), e.Digest)
			if err != nil {
				return err
			}
			defer b.Close()
			data, err := io.ReadAll(b)
			if err != nil {
				return err
			}
			if Sum(data) != e.Digest || int64(len(data)) != e.Size {
				t.Errorf("%s: bytes do not match digest or size", path)
			}
			m[path] = string(data)
			if e.Kind == KindExecutable {
				m[path] = "*" + m[path]
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

// emptyStaging fails the test if something was left behind.
func emptyStaging(t testing.TB, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), "staging"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in staging: %s", e.Name())
	}
}

func TestAddFile(t *testing.T) {
	s := addStore(t)
	for _, size := range []int{0, 1, 1023, 4096, smallFile - 1, smallFile, smallFile + 1, 3*smallFile + 17} {
		dir := t.TempDir()
		data := noise(uint64(size), size)
		p := filepath.Join(dir, "weights.bin")
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
		a := mustAdd(t, s, p, AddOptions{})
		if a.Digest != Sum(data) || !a.Single || a.Bytes != int64(size) || a.Files != 1 {
			t.Errorf("%d bytes: added %+v, want digest %s", size, a, Sum(data))
		}
		name, e, ok, err := s.SingleFile(t.Context(), a.Tree)
		if err != nil || !ok || name != "weights.bin" || e.Digest != a.Digest {
			t.Errorf("%d bytes: single file %q %v %v %v", size, name, e, ok, err)
		}
		st, err := os.Stat(s.blobPath(a.Digest))
		if err != nil || st.Mode() != 0o444 || st.Size() != int64(size) {
			t.Errorf("%d bytes: blob %v %v", size, st, err)
		}
		_, err = s.OpenOutboard(a.Digest)
		if (err == nil) != (size > outboardMin) {
			t.Errorf("%d bytes: outboard: %v", size, err)
		}
		if err == nil {
			ob, _ := s.OpenOutboard(a.Digest)
			if err := ob.Verify(data, 0); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
			ob.Close()
		}
	}
	emptyStaging(t, s)
}

// Files that the kernel makes up say that they are empty: nothing would be
// stored in their place.
func TestAddFileOfTheKernel(t *testing.T) {
	const made = "/proc/self/status"
	if _, err := os.Stat(made); err != nil {
		t.Skip("there is no /proc here")
	}
	s := addStore(t)
	if _, err := s.AddPath(t.Context(), made, AddOptions{}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "as files of /proc do") {
		t.Errorf("%s: %v", made, err)
	}
	emptyStaging(t, s)
}

func TestAddDirectory(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	big := string(noise(1, 2*smallFile))
	writeFiles(t, dir, map[string]string{
		"a": "hello", "sub/b": "hello", "sub/deep/c": big, "empty/": "", "run.sh": "#!/bin/sh\n", "odd\nname\xff": "x",
	})
	if err := os.Chmod(filepath.Join(dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../a", filepath.Join(dir, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	a := mustAdd(t, s, dir, AddOptions{Attrs: MetaAttrs(map[string]string{"kind": "test"})})
	got := contents(t, s, a.Tree)
	want := map[string]string{
		"a": "hello", "sub": "dir", "sub/b": "hello", "sub/deep": "dir", "sub/deep/c": big, "sub/link": "-> ../a",
		"empty": "dir", "run.sh": "*#!/bin/sh\n", "odd\nname\xff": "x",
	}
	if len(got) != len(want) {
		t.Errorf("have %d names, want %d", len(got), len(want))
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%q: have %.40q, want %.40q", k, got[k], v)
		}
	}
	tree, err := s.Tree(t.Context(), a.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Attrs.Meta()["kind"] != "test" || a.Files != 5 || a.Single || a.Digest != a.Tree {
		t.Errorf("added %+v with %v", a, tree.Attrs)
	}
	emptyStaging(t, s)
}

func TestAddReader(t *testing.T) {
	s := addStore(t)
	for _, size := range []int{0, 5, smallFile, smallFile + 1, smallFile + 2, 5*smallFile + 3} {
		data := noise(uint64(size), size)
		a, err := s.AddReader(t.Context(), bytes.NewReader(data), "in", AddOptions{As: "d/out.bin"})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Release()
		got := contents(t, s, a.Tree)
		if a.Digest != Sum(data) || got["d/out.bin"] != string(data) || got["d"] != "dir" {
			t.Errorf("%d bytes: added %+v", size, a)
		}
	}
	emptyStaging(t, s)
}
