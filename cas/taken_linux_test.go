package cas

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// takenTree makes a directory with one of everything that a seal takes.
func takenTree(t *testing.T, s *Store, dir string) {
	t.Helper()
	writeFiles(t, dir, map[string]string{"a": "first", "known": "in the store", "sub/b": string(noise(3, 2*smallFile)), "sub/deep/run.sh": "#!/bin/sh\n"})
	known := filepath.Join(t.TempDir(), "known")
	writeFiles(t, filepath.Dir(known), map[string]string{"known": "in the store"})
	v, _, err := s.Publish(t.Context(), "known", mustAdd(t, s, known, AddOptions{}).Tree, PublishOptions{})
	if err != nil {
		t.Fatal(v, err)
	}
	for _, err := range []error{
		os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "sub", "also-a")),
		os.Symlink("sub/b", filepath.Join(dir, "link")),
		os.Chmod(filepath.Join(dir, "a"), 0o640),
		os.Chmod(filepath.Join(dir, "sub/deep/run.sh"), 0o750),
		os.Chmod(filepath.Join(dir, "sub/deep"), 0o700),
		unix.Setxattr(filepath.Join(dir, "a"), "user.note", []byte("\xff mine"), 0),
		os.Chtimes(filepath.Join(dir, "sub/b"), time.Unix(1e9, 5), time.Unix(1e9, 5)),
		os.Chtimes(filepath.Join(dir, "sub"), time.Unix(1e9, 7), time.Unix(1e9, 7)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// portrait tells all that putting back has to give back.
func portrait(t *testing.T, dir string) string {
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
		rel, _ := filepath.Rel(dir, path)
		text += fmt.Sprintf("%s %o", rel, st.mode)
		switch {
		case st.isSymlink():
			to, err := os.Readlink(path)
			text += fmt.Sprintf(" -> %s %v", to, err)
		case st.isRegular():
			b, err := os.ReadFile(path)
			x, _ := getXattr(path, "user.note")
			text += fmt.Sprintf(" %d names, %s %q %v, %d", st.nlink, Sum(b).Short(), x, err, st.mtime)
		case rel == "sub":
			text += fmt.Sprint(" ", st.mtime)
		}
		text += "\n"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// die leaves everything as a process does that is killed before it names what
// it took.
func die(a *Added) {
	a.take.b.st.abandon()
	a.pin.f.Close()
}

func TestSealThatIsCutOff(t *testing.T) {
	s := addStore(t)
	out := outDir(s)
	takenTree(t, s, out)
	before := portrait(t, out)
	a, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(out, "a")); err == nil {
		t.Fatal("it was not taken")
	}
	if err := s.PutBack(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(out, "a")); err == nil {
		t.Error("it was put back while its process lives")
	}
	die(a)
	if err := os.RemoveAll(filepath.Dir(out)); err != nil {
		t.Fatal(err)
	}
	// The next run of the place may come late.
	if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutBack(t.Context(), filepath.Dir(out)); err != nil {
		t.Fatal(err)
	}
	if after := portrait(t, out); after != before {
		t.Errorf("put back\n%swant\n%s", after, before)
	}
	emptyStaging(t, s)
	again, err := s.Seal(t.Context(), out, SealOptions{})
	if err != nil || again.Tree != a.Tree {
		t.Fatalf("sealed again: %+v, %v", again, err)
	}
	again.Release()
	if _, err := os.Lstat(out); err == nil {
		t.Error("it is still there")
	}
	verified(t, s)
	emptyStaging(t, s)
}

// Of what is to be moved nothing may be lost, whoever comes next: the same
// command, a collection, or nobody for a while.
func TestMoveThatIsCutOff(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, s *Store, dir string, tree Digest){
		"moved again": func(t *testing.T, s *Store, dir string, tree Digest) {
			t.Chdir(filepath.Dir(dir))
			a := mustAdd(t, s, filepath.Base(dir), AddOptions{Move: true})
			if a.Tree != tree {
				t.Errorf("moved %s, then %s", tree, a.Tree)
			}
			if err := a.Undo(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"collected": func(t *testing.T, s *Store, dir string, tree Digest) {
			// Soon: everything stays where it is.
			if _, err := s.Collect(t.Context(), CollectOptions{StagingAge: time.Hour}); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "a")); err == nil {
				t.Error("it was put back though it was abandoned just now")
			}
			// Much later.
			if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := addStore(t)
			dir := filepath.Join(t.TempDir(), "data")
			takenTree(t, s, dir)
			before := portrait(t, dir)
			t.Chdir(filepath.Dir(dir))
			a := mustAdd(t, s, filepath.Base(dir), AddOptions{Move: true})
			die(a)
			t.Chdir("/")
			a.take = nil // so that its Release, when the test ends, does nothing
			next(t, s, dir, a.Tree)
			if after := portrait(t, dir); after != before {
				t.Errorf("put back\n%swant\n%s", after, before)
			}
			verified(t, s)
			emptyStaging(t, s)
		})
	}
}

// What another user wrote down must not make this one write where it says.
func TestPutBackTrustsOnlyItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to be another user")
		}
		t.Skip("needs root, to be another user")
	}
	s := addStore(t)
	dir := filepath.Join(t.TempDir(), "data")
	writeFiles(t, dir, map[string]string{"a": "a"})
	a := mustAdd(t, s, dir, AddOptions{Move: true})
	list := filepath.Join(a.take.b.st.dir, takenFile)
	die(a)
	a.take = nil
	if err := os.Chown(list, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if err := s.PutBack(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "a")); err == nil {
		t.Error("another user's list was followed")
	}
	if !s.HasBlob(Sum([]byte("a"))) {
		t.Error("what another user may have to put back was collected")
	}
}
