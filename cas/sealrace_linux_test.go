package cas

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// during calls do once, while a seal reads files.
func during(do func()) Progress {
	once := sync.OnceFunc(do)
	return func(int64, int64, int64, int64) { once() }
}

// What a link in the midst of the path leads to is not the program's output,
// and may be all that somebody has of it.
func TestSealRefusesALinkOnTheWay(t *testing.T) {
	s := addStore(t)
	mine := filepath.Join(t.TempDir(), "mine")
	writeFiles(t, mine, map[string]string{"model.ckpt": "precious"})
	out := outDir(s)
	writeFiles(t, out, nil)
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mine, filepath.Join(out, "sub")); err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), filepath.Join(out, "sub", "model.ckpt"), SealOptions{})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("sealed %+v: %v", a, err)
	}
	if b, err := os.ReadFile(filepath.Join(mine, "model.ckpt")); err != nil || string(b) != "precious" {
		t.Errorf("the file that the link led to: %q, %v", b, err)
	}
}

// A name that leads to another file than the one that was hashed.
func TestSealOfAFileThatIsSwapped(t *testing.T) {
	hashed, other := string(noise(1, 8<<20)), string(noise(2, 8<<20))
	swaps := map[string]func(t *testing.T, out string){
		"another comes, the first stays elsewhere": func(t *testing.T, out string) {
			for _, r := range [][2]string{{"out/big", "first"}, {"other", "out/big"}} {
				if err := os.Rename(filepath.Join(out, "..", r[0]), filepath.Join(out, "..", r[1])); err != nil {
					t.Error(err)
				}
			}
		},
		"both change places": func(t *testing.T, out string) {
			if err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(out, "big"), unix.AT_FDCWD, filepath.Join(out, "..", "other"), unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
			}
		},
	}
	for name, swap := range swaps {
		for _, move := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s := addStore(t)
				out := filepath.Join(s.Dir(), "at", "0123456789abcdef", "out")
				if move {
					out = filepath.Join(t.TempDir(), "out")
				}
				writeFiles(t, filepath.Dir(out), map[string]string{"out/big": hashed, "other": other})
				progress := during(func() { swap(t, out) })
				var a *Added
				var err error
				if move {
					a, err = s.AddPath(t.Context(), out, AddOptions{Move: true, Progress: progress})
				} else {
					a, err = s.Seal(t.Context(), out, SealOptions{Progress: progress})
				}
				if !errors.Is(err, ErrBusy) {
					t.Errorf("stored %+v: %v", a, err)
				}
				if b, err := os.ReadFile(filepath.Join(out, "big")); err != nil || string(b) != other {
					t.Errorf("what was put there is gone: %v", err)
				}
				verified(t, s)
				emptyStaging(t, s)
			})
		}
	}
}

// A directory that becomes a link while its files are read must not make the
// seal take, change or remove what the link leads to.
func TestSealOfADirectoryThatBecomesALink(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	mine := filepath.Join(t.TempDir(), "mine")
	writeFiles(t, mine, map[string]string{"a": "precious", "big": "small", "empty/": ""})
	if err := errors.Join(os.Symlink("a", filepath.Join(mine, "link")), os.Chmod(filepath.Join(mine, "a"), 0o600)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, mine)
	writeFiles(t, out, map[string]string{"sub/a": "output", "sub/empty/": "", "sub/big": string(noise(3, 8<<20))})
	if err := os.Symlink("a", filepath.Join(out, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), out, SealOptions{Progress: during(func() {
		sub := filepath.Join(out, "sub")
		if err := errors.Join(os.Rename(sub, sub+".moved"), os.Symlink(mine, sub)); err != nil {
			t.Error(err)
		}
	})})
	if err == nil {
		t.Errorf("sealed %v", contents(t, s, a.Tree))
	}
	if after := snapshot(t, mine); after != before {
		t.Errorf("what the link leads to:\n%s\nbefore:\n%s", after, before)
	}
	verified(t, s)
}

// snapshot tells everything about a small directory that a seal might change.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	text := ""
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := lstatFile(path)
		if err != nil {
			return err
		}
		content := ""
		if st.isRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(b)
		}
		rel, err := filepath.Rel(dir, path)
		text += rel + " " + os.FileMode(st.mode).String() + " " + content + "\n"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is put back after a crash must not land where a directory that became a
// link leads.
func TestPutBackIntoADirectoryThatBecameALink(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	writeFiles(t, out, map[string]string{"sub/a": "output", "sub/empty/": "", "sub/deep/b": "b"})
	if err := os.Symlink("a", filepath.Join(out, "sub", "link")); err != nil {
		t.Fatal(err)
	}
	a, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	die(a)
	mine := filepath.Join(t.TempDir(), "mine")
	writeFiles(t, mine, map[string]string{"deep/precious": "mine"})
	before := portrait(t, mine)
	old := time.Unix(1e9, 0)
	if err := errors.Join(os.Chtimes(filepath.Join(mine, "deep"), old, old),
		os.Rename(filepath.Join(out, "sub"), filepath.Join(out, "moved")), os.Symlink(mine, filepath.Join(out, "sub"))); err != nil {
		t.Fatal(err)
	}
	if err := s.PutBack(t.Context(), out); err == nil {
		t.Error("put back")
	} else if strings.Contains(err.Error(), "\n") {
		t.Errorf("not one line: %v", err)
	}
	if after := portrait(t, mine); after != before {
		t.Errorf("what the link leads to:\n%s\nbefore:\n%s", after, before)
	}
	if fi, err := os.Stat(filepath.Join(mine, "deep")); err != nil || !fi.ModTime().Equal(old) {
		t.Errorf("a directory there: %v, %v", fi.ModTime(), err)
	}
	// Nothing is lost: without the link it goes where it was.
	if err := errors.Join(os.Remove(filepath.Join(out, "sub")), os.Rename(filepath.Join(out, "moved"), filepath.Join(out, "sub")),
		s.PutBack(t.Context(), out)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(out, "sub", "a")); err != nil || string(b) != "output" {
		t.Errorf("put back: %q, %v", b, err)
	}
}
