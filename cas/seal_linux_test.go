package cas

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// holdEnv makes this test binary a process that holds a file: "MODE PATH".
const holdEnv = "CURI_TEST_HOLD"

// TestHoldingProcess is not a test but what holder starts.
func TestHoldingProcess(t *testing.T) {
	mode, path, ok := strings.Cut(os.Getenv(holdEnv), " ")
	if !ok {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if mode == "mmap" {
		m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		m[0]++
	}
	fmt.Println("holding")
	bufio.NewReader(os.Stdin).ReadString('\n')
	os.Exit(0)
}

// holder starts a process that has path open ("open") or mapped ("mmap") for
// writing, and returns it and how to let it go.
func holder(t *testing.T, mode, path string) (pid int, release func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHoldingProcess$")
	cmd.Env = append(os.Environ(), holdEnv+"="+mode+" "+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
	})
	t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "holding\n" {
		t.Fatalf("the holding process said %q: %v", line, err)
	}
	return cmd.Process.Pid, release
}

func outDir(s *Store) string {
	return filepath.Join(s.Dir(), "at", "0123456789abcdef", "out", "model")
}

func TestSealRefusesOpenFiles(t *testing.T) {
	for _, mode := range []string{"open", "mmap"} {
		t.Run(mode, func(t *testing.T) {
			s := addStore(t)
			out := outDir(s)
			writeFiles(t, out, map[string]string{"a": "first", "held.ckpt": string(noise(1, 4096)), "z/last": "last"})
			if err := os.Chmod(filepath.Join(out, "a"), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setxattr(filepath.Join(out, "a"), "user.note", []byte("mine"), 0); err != nil {
				t.Fatal(err)
			}
			held := filepath.Join(out, "held.ckpt")
			pid, release := holder(t, mode, held)
			_, err := s.Seal(t.Context(), out, SealOptions{})
			if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), held) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", pid)) {
				t.Fatalf("sealed beside a writer: %v", err)
			}
			// All is as it was.
			if b, err := os.ReadFile(filepath.Join(out, "a")); err != nil || string(b) != "first" {
				t.Errorf("a: %q %v", b, err)
			}
			if st, err := os.Stat(filepath.Join(out, "a")); err != nil || st.Mode() != 0o640 {
				t.Errorf("a: mode %v %v", st.Mode(), err)
			}
			if v, err := getXattr(filepath.Join(out, "a"), "user.note"); err != nil || v != "mine" {
				t.Errorf("a: attribute %q %v", v, err)
			}
			emptyStaging(t, s)
			release()
			want, err := os.ReadFile(held)
			if err != nil {
				t.Fatal(err)
			}
			a, err := s.Seal(t.Context(), out, SealOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Release()
			if got := contents(t, s, a.Tree); got["held.ckpt"] != string(want) || got["a"] != "first" || got["z/last"] != "last" {
				t.Errorf("sealed %d names", len(got))
			}
		})
	}
}

// TestSealWaitsForLateClose: the mount hears of a close after the program.
func TestSealWaitsForLateClose(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	writeFiles(t, out, map[string]string{"a": strings.Repeat("x", 4096)})
	_, release := holder(t, "open", filepath.Join(out, "a"))
	go release()
	a, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.Release()
}

func TestSealAttributes(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	writeFiles(t, out, map[string]string{"model.bin": "weights", "sub/x": "x", "tool": "#!/bin/sh\n"})
	set := func(name, key, value string) {
		t.Helper()
		if err := unix.Setxattr(filepath.Join(out, name), key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set(".", "user.curi.type", "FromProgram")
	set("model.bin", "user.curi.layers", "12")
	set("model.bin", "user.other", "gone")
	set("sub", "user.curi.part", "encoder")
	if err := os.Chmod(filepath.Join(out, "tool"), 0o4755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), out, SealOptions{Attrs: MetaAttrs(map[string]string{"type": "FromOption", "more": "1"})})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	tree, err := s.Tree(t.Context(), a.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if m := tree.Attrs.Meta(); m["type"] != "FromProgram" || m["more"] != "1" {
		t.Errorf("the tree's metadata is %v", m)
	}
	file, _ := tree.Lookup("model.bin")
	if m := file.Attrs.Meta(); len(file.Attrs) != 1 || m["layers"] != "12" {
		t.Errorf("model.bin's attributes are %v", file.Attrs)
	}
	sub, _ := tree.Lookup("sub")
	if m := sub.Attrs.Meta(); m["part"] != "encoder" {
		t.Errorf("sub's metadata is %v", m)
	}
	if names, err := listXattrs(s.blobPath(file.Digest)); err != nil || len(names) != 0 {
		t.Errorf("the blob carries %v, %v", names, err)
	}
	tool, _ := tree.Lookup("tool")
	if st, err := os.Stat(s.blobPath(tool.Digest)); err != nil || st.Mode() != 0o444 || tool.Kind != KindExecutable {
		t.Errorf("tool: %v, mode %v, %v", tool.Kind, st.Mode(), err)
	}
}

func TestSealHardLinks(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	outside := filepath.Join(s.Dir(), "at", "0123456789abcdef", "work", "kept")
	writeFiles(t, out, map[string]string{"one": "inside twice", "shared": "also outside"})
	writeFiles(t, filepath.Dir(outside), nil)
	if err := os.MkdirAll(filepath.Dir(outside), 0o755); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"one": filepath.Join(out, "two"), "shared": outside} {
		if err := os.Link(filepath.Join(out, from), to); err != nil {
			t.Fatal(err)
		}
	}
	inode, err := os.Stat(filepath.Join(out, "one"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	got := contents(t, s, a.Tree)
	if got["one"] != "inside twice" || got["two"] != "inside twice" || got["shared"] != "also outside" {
		t.Errorf("sealed %q", got)
	}
	renamed, err := os.Stat(s.blobPath(Sum([]byte("inside twice"))))
	if err != nil || !os.SameFile(inode, renamed) || renamed.Sys().(*syscall.Stat_t).Nlink != 1 {
		t.Errorf("two names inside: %v %v", renamed, err)
	}
	// The name outside has the bytes still, can be written, and changes nothing.
	if err := os.WriteFile(outside, []byte("overwritten!"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s, a.Tree); got["shared"] != "also outside" {
		t.Errorf("a write to a link outside changed the blob: %q", got["shared"])
	}
}

func TestSealRefusesSpecialFiles(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	for name, make := range map[string]func(string) error{
		"fifo":   func(p string) error { return unix.Mkfifo(p, 0o644) },
		"socket": func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o644, 0) },
		"abs":    func(p string) error { return os.Symlink("/etc/passwd", p) },
		"out":    func(p string) error { return os.Symlink("../../secret", p) },
	} {
		writeFiles(t, out, map[string]string{"a": "a"})
		p := filepath.Join(out, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		_, err := s.Seal(t.Context(), out, SealOptions{})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(out, "a")); err != nil {
			t.Errorf("%s: the other file is gone: %v", name, err)
		}
		os.Remove(p)
	}
}

func TestMove(t *testing.T) {
	s := addStore(t)
	dir := filepath.Join(t.TempDir(), "data")
	writeFiles(t, dir, map[string]string{"a": "moved", "skip.tmp": "stays", "sub/b": "b", IgnoreFile: "*.tmp\n"})
	inode, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	a := mustAdd(t, s, dir, AddOptions{Move: true})
	got := contents(t, s, a.Tree)
	if got["a"] != "moved" || got["sub/b"] != "b" || len(got) != 4 {
		t.Errorf("stored %q", got)
	}
	blob, err := os.Stat(s.blobPath(Sum([]byte("moved"))))
	if err != nil || !os.SameFile(inode, blob) {
		t.Errorf("not renamed: %v", err)
	}
	a.Release()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "skip.tmp" {
		t.Errorf("left %v %v", left, err)
	}
}

// What it leads to may be anybody's.
func TestSealRefusesALink(t *testing.T) {
	s := newTestStore(t)
	mine := filepath.Join(t.TempDir(), "mine")
	writeFiles(t, mine, map[string]string{"precious": "bytes"})
	out := outDir(s)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mine, out); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seal(t.Context(), out, SealOptions{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("sealed a link: %v", err)
	}
	if _, err := os.Stat(filepath.Join(mine, "precious")); err != nil {
		t.Error(err)
	}
}

// A file whose bytes the store had already is removed, not renamed: whoever
// rewrites it before that must not lose what was written.
func TestMoveLeavesWhatWasWrittenMeanwhile(t *testing.T) {
	s := addStore(t)
	dir := filepath.Join(t.TempDir(), "data")
	writeFiles(t, dir, map[string]string{"a": "known bytes", "b": "known bytes"})
	mustAdd(t, s, filepath.Join(dir, "a"), AddOptions{}).Release()
	rewritten := false
	mustAdd(t, s, dir, AddOptions{Move: true, Progress: func(_, _, files, _ int64) {
		if files == 2 && !rewritten {
			rewritten = true
			writeFiles(t, dir, map[string]string{"a": "newer bytes"})
		}
	}}).Release()
	if !rewritten {
		t.Fatal("progress was never told of both files")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(b) != "newer bytes" {
		t.Errorf("what was written meanwhile: %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("b was not moved: %v", err)
	}
}
