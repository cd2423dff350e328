//go:build linux

package fusefs_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

func TestMetadataIsAttributes(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	publish(t, s, "set", map[string]string{"a/f": "1"}, cas.Attr{Key: "user.curi.type", Value: "Data"})
	file := filepath.Join(t.TempDir(), "model.ckpt")
	os.WriteFile(file, []byte("weights"), 0o644)
	added, err := s.AddPath(t.Context(), file, cas.AddOptions{As: "model.ckpt", Attrs: cas.MetaAttrs(map[string]string{"type": "M1", "score": "0.5"})})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), "model", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"artifacts/set": "Data", "artifacts/model": "M1", "artifacts/model/model.ckpt": "M1", "cas/" + added.Tree.String() + "/model.ckpt": "M1",
		"artifacts/set/a": "", "artifacts/set/a/f": "", "cas/" + added.Digest.String(): "",
	} {
		got, err := getxattr(m.path(path), "user.curi.type")
		if want == "" && err != unix.ENODATA || want != "" && (err != nil || got != want) {
			t.Errorf("user.curi.type of %s: %q, %v; want %q", path, got, err, want)
		}
	}
	b := make([]byte, 256)
	n, err := unix.Listxattr(m.path("artifacts/model/model.ckpt"), b)
	if err != nil || string(b[:n]) != "user.curi.score\x00user.curi.type\x00" {
		t.Errorf("attributes of the model: %q, %v", b[:max(n, 0)], err)
	}
	// The same bytes with other metadata are not the same inode.
	var one, two syscall.Stat_t
	syscall.Lstat(m.path("artifacts/model/model.ckpt"), &one)
	syscall.Lstat(m.path("cas", added.Digest.String()), &two)
	if one.Ino == two.Ino {
		t.Error("files with different metadata share an inode")
	}
}

func TestWhatTreesLookLike(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "x"), 0o755)
	os.MkdirAll(filepath.Join(dir, "y"), 0o755)
	os.WriteFile(filepath.Join(dir, "run.sh"), []byte("#!/bin/sh\necho ran $0\n"), 0o755)
	os.WriteFile(filepath.Join(dir, "x/same"), []byte("same"), 0o644)
	os.WriteFile(filepath.Join(dir, "y/same"), []byte("same"), 0o644)
	os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600)
	os.Symlink("x/same", filepath.Join(dir, "link"))
	added, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	s.Publish(t.Context(), "tree", added.Tree, cas.PublishOptions{})
	m := mount(t, s)
	root := m.path("artifacts/tree")
	stat := func(name string) (st syscall.Stat_t) {
		t.Helper()
		if err := syscall.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	for name, mode := range map[string]uint32{"run.sh": 0o100555, "empty": 0o100444, "x": 0o40555, "link": 0o120777, "x/same": 0o100444} {
		if st := stat(name); st.Mode != mode || st.Mtim.Sec != 315532800 {
			t.Errorf("%s: mode %o, mtime %d", name, st.Mode, st.Mtim.Sec)
		}
	}
	if stat("x/same").Ino != stat("y/same").Ino {
		t.Error("equal files have two inodes")
	}
	if stat("x").Ino == stat("y").Ino {
		t.Error("equal directories share an inode")
	}
	if got := run(t, filepath.Join(root, "run.sh")); !strings.HasPrefix(got, "ran ") {
		t.Errorf("executing: %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(root, "link")); err != nil || string(got) != "same" {
		t.Errorf("through the link: %q, %v", got, err)
	}
	if got := run(t, "sh", "-c", "cd "+root+" && find . | sort | tr '\n' ' '"); got != ". ./empty ./link ./run.sh ./x ./x/same ./y ./y/same " {
		t.Errorf("find: %q", got)
	}
}

func TestRuns(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	v := publish(t, s, "data", map[string]string{"f": "1"})
	info, _ := json.Marshal(map[string]string{"key": testKey, "status": "running"})
	if err := s.SetRef(t.Context(), cas.Ref{Name: "run/train-000001", Info: info}); err != nil {
		t.Fatal(err)
	}
	p := openPlace(t, s, m, testKey, map[string]cas.Digest{"set": v.Tree})
	at := m.path("at", testKey[:16])
	os.WriteFile(filepath.Join(at, "work/a/ckpt"), []byte("c"), 0o644)
	os.WriteFile(filepath.Join(at, "out/a/part"), []byte("p"), 0o644)
	read := func(path, want string) {
		t.Helper()
		got, err := os.ReadFile(m.path("runs/train-000001", path))
		if want == "" && !os.IsNotExist(err) || want != "" && (err != nil || string(got) != want) {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	read("work/a/ckpt", "c")
	read("out/a/part", "p")
	read("in/set/f", "1")
	read("log.txt", "")
	result, err := resultTree(t, s, v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetRef(t.Context(), cas.Ref{Name: "run/train-000001", Tree: result, Info: info}); err != nil {
		t.Fatal(err)
	}
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Result: result, Inputs: map[string]cas.Digest{"set": v.Tree}})
	read("log.txt", "log\n")
	read("record.json", "{}")
	read("out/data/f", "1")
	read("out/a/part", "")
	read("work/a/ckpt", "c")
	if got, err := names(m.path("runs/train-000001")); err != nil || strings.Join(got, " ") != "in log.txt logs out record.json work" {
		t.Errorf("the run lists %v, %v", got, err)
	}
	// The next try takes the place over; the run keeps what is its own.
	setPlace(t, s, p, cas.PlaceState{Run: "train-000002", Mount: m.info.ID, Active: true})
	read("out/data/f", "1")
	read("work/a/ckpt", "")
	if got, err := names(m.path("runs")); err != nil || strings.Join(got, " ") != "train-000001" {
		t.Errorf("runs lists %v, %v", got, err)
	}
}

// A referenced file on another filesystem is served beside files that
// passthrough serves, and its change is an error.
func TestReferences(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	shm, err := os.MkdirTemp("/dev/shm", "curi-test")
	if err != nil {
		skip(t, "needs a second filesystem at /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(shm) })
	big := bytes.Repeat([]byte("r"), 1<<20)
	file := filepath.Join(shm, "big")
	os.WriteFile(file, big, 0o644)
	added, err := s.AddPath(t.Context(), file, cas.AddOptions{Reference: true})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	s.Publish(t.Context(), "ref", added.Tree, cas.PublishOptions{})
	publish(t, s, "own", map[string]string{"big": strings.Repeat("o", 1<<20)})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if got, err := os.ReadFile(m.path("artifacts/ref/big")); err != nil || !bytes.Equal(got, big) {
					t.Errorf("reference: %d bytes, %v", len(got), err)
				}
				if got, err := os.ReadFile(m.path("artifacts/own/big")); err != nil || len(got) != 1<<20 {
					t.Errorf("own: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	os.WriteFile(file, []byte("changed"), 0o644)
	if _, err := os.ReadFile(m.path("artifacts/ref/big")); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("a changed reference: %v", err)
	}
}

func TestBlobThatIsGoneIsAnInputOutputError(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	big := strings.Repeat("b", 1<<20)
	publish(t, s, "data", map[string]string{"f": big})
	d := cas.Sum([]byte(big)).String()
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", d[:2], d)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(m.path("artifacts/data/f")); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("have %v", err)
	}
	publish(t, s, "other", map[string]string{"f": "x"}) // and the mount goes on
	if got, err := os.ReadFile(m.path("artifacts/other/f")); err != nil || string(got) != "x" {
		t.Errorf("have %q, %v", got, err)
	}
}
