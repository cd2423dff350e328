package cas

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

func TestStaysInside(t *testing.T) {
	links := map[string]string{"dir/up": "..", "in": "dir/deep", "loop": "loop", "abs": "/etc"}
	readlink := func(rel string) (string, bool) { l, ok := links[rel]; return l, ok }
	for _, c := range []struct {
		rel, target string
		want        bool
	}{
		{"l", "a", true}, {"l", "./a/../b", true}, {"l", "..", false}, {"l", "../a", false}, {"d/l", "../a", true}, {"d/l", "../../a", false},
		{"l", "/a", false}, {"l", "missing/../x", true}, {"l", "a/../../b", false}, {"l", ".", true}, {"l", "", true},
		{"l", "dir/up/x", true}, {"l", "dir/up/../x", false}, {"l", "in/../x", true}, {"l", "in/../../x", true}, {"l", "in/../../../x", false},
		{"l", "loop/x", true}, {"l", "abs/passwd", false}, {"l", "abs", false},
	} {
		if got := staysInside(c.rel, c.target, readlink); got != c.want {
			t.Errorf("%s -> %s: stays inside: %v, want %v", c.rel, c.target, got, c.want)
		}
	}
}

func TestAddLinksThatLeadOut(t *testing.T) {
	s := addStore(t)
	top := t.TempDir()
	dir := filepath.Join(top, "data")
	writeFiles(t, top, map[string]string{"data/a": "a", "secret": "outside", "lib/x": "x", "lib/y": "y"})
	link := func(target, name string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.Symlink(target, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	link("a", "inside")
	link("nowhere", "dangling")
	for _, target := range []string{"../secret", filepath.Join(top, "secret"), filepath.Join(dir, "a"), "../missing"} {
		p := link(target, "out")
		_, err := s.AddPath(t.Context(), dir, AddOptions{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), p) {
			t.Errorf("a link to %s: %v", target, err)
		}
		os.Remove(p)
	}
	link("../secret", "file")
	link("../lib", "lib")
	if err := os.Symlink("x", filepath.Join(top, "lib", "z")); err != nil {
		t.Fatal(err)
	}
	a := mustAdd(t, s, dir, AddOptions{Follow: true})
	got := contents(t, s, a.Tree)
	for name, want := range map[string]string{"file": "outside", "lib": "dir", "lib/x": "x", "lib/z": "-> x", "inside": "-> a", "dangling": "-> nowhere"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	link("../data", "loop")
	if _, err := s.AddPath(t.Context(), dir, AddOptions{Follow: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a link to a directory that contains it: %v", err)
	}
}

func TestAddBadInput(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"a": "a"})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		o    AddOptions
		want error
	}{
		{filepath.Join(dir, "missing"), AddOptions{}, ErrNotFound},
		{filepath.Join(dir, "pipe"), AddOptions{}, ErrInvalid},
		{dir, AddOptions{}, ErrInvalid},
		{dir, AddOptions{Exclude: []string{"pipe"}, As: "x"}, ErrInvalid},
		{filepath.Join(dir, "a"), AddOptions{As: "../x"}, ErrInvalid},
		{filepath.Join(dir, "a"), AddOptions{As: "/x"}, ErrInvalid},
		{filepath.Join(dir, "a"), AddOptions{Move: true, Reference: true}, ErrInvalid},
		{s.Dir(), AddOptions{}, ErrInvalid},
		{filepath.Join(s.Dir(), "blobs"), AddOptions{Move: true}, ErrInvalid},
	} {
		if _, err := s.AddPath(t.Context(), c.path, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s %+v: %v, want %v", c.path, c.o, err, c.want)
		}
	}
	emptyStaging(t, s)
}

func TestAddHardLinksOnce(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	big := noise(5, 4<<20)
	writeFiles(t, dir, map[string]string{"a": string(big)})
	for _, n := range []string{"b", "c"} {
		if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	a := mustAdd(t, s, dir, AddOptions{})
	if got := contents(t, s, a.Tree); got["a"] != string(big) || got["b"] != got["a"] || got["c"] != got["a"] {
		t.Error("hard links are not equal files")
	}
	if a.Bytes != 3*int64(len(big)) || a.Files != 3 {
		t.Errorf("added %+v", a)
	}
}

func TestAddReference(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	big := noise(6, 3<<20)
	writeFiles(t, dir, map[string]string{"big": string(big), "small": "small"})
	a := mustAdd(t, s, dir, AddOptions{Reference: true})
	if got := contents(t, s, a.Tree); got["big"] != string(big) || got["small"] != "small" {
		t.Error("cannot be read")
	}
	if s.hasLocalBlob(Sum(big)) || s.hasLocalBlob(Sum([]byte("small"))) {
		t.Error("was copied")
	}
	// A copy of the same is a real one.
	b := mustAdd(t, s, dir, AddOptions{})
	if b.Tree != a.Tree || !s.hasLocalBlob(Sum(big)) {
		t.Errorf("added %s after %s, copied: %v", b.Tree, a.Tree, s.hasLocalBlob(Sum(big)))
	}
	writeFiles(t, dir, map[string]string{"other": "other"})
	mustAdd(t, s, dir, AddOptions{Reference: true})
	writeFiles(t, dir, map[string]string{"other": "OTHER!"})
	if _, err := s.OpenBlob(t.Context(), Sum([]byte("other"))); !errors.Is(err, ErrChanged) {
		t.Errorf("a changed reference opens: %v", err)
	}
}

// A reference to a path that its record cannot hold would lead nowhere.
func TestAddReferenceWithoutText(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"sub/\xff.bin": "bytes"})
	_, err := s.AddPath(t.Context(), dir, AddOptions{Reference: true})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `\xff.bin`) {
		t.Errorf("added: %v", err)
	}
	if a := mustAdd(t, s, dir, AddOptions{}); contents(t, s, a.Tree)["sub/\xff.bin"] != "bytes" {
		t.Error("a copy cannot be read")
	}
}

func TestAddFSWithBadLink(t *testing.T) {
	s := addStore(t)
	_, err := s.AddFS(t.Context(), fstest.MapFS{"d/l": {Mode: os.ModeSymlink, Data: []byte("../../x")}}, AddOptions{})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "d/l") {
		t.Errorf("%v", err)
	}
	a, err := s.AddFS(t.Context(), fstest.MapFS{"d/l": {Mode: os.ModeSymlink, Data: []byte("../x")}, "x": {Data: []byte("x"), Mode: 0o755}}, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	if got := contents(t, s, a.Tree); got["d/l"] != "-> ../x" || got["x"] != "*x" {
		t.Errorf("stored %q", got)
	}
}
