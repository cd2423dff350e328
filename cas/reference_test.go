package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReference(t *testing.T) {
	s := newCoreStore(t)
	dir := t.TempDir()
	record := func(name string) (string, Digest) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("referenced"), 0o644); err != nil {
			t.Fatal(err)
		}
		st, err := lstatFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := Sum([]byte("referenced"))
		if err := s.putReference(d, path, st); err != nil {
			t.Fatal(err)
		}
		return path, d
	}
	first, d := record("first")
	if !s.HasBlob(d) || s.hasLocalBlob(d) {
		t.Errorf("HasBlob %v, in the store %v", s.HasBlob(d), s.hasLocalBlob(d))
	}
	b, err := s.OpenBlob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || string(got) != "referenced" || !b.Reference() || b.Size() != 10 {
		t.Errorf("%q, %v, Reference %v, Size %d", got, err, b.Reference(), b.Size())
	}
	if err := b.Check(); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
	tree, err := s.PutTree(t.Context(), &Tree{Entries: []Entry{{Name: "in.bin", Kind: KindFile, Size: 10, Digest: d}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckReferences(t.Context(), tree); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
	// Same size, same time: the ctime tells.
	st, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first, []byte("REFERENCED"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the kernel's clock for files is coarse
	if err := os.Chtimes(first, st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), first) {
		t.Errorf("changed while open: %v", err)
	}
	if _, err := s.OpenBlob(t.Context(), d); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), first) {
		t.Errorf("changed: %v, want ErrChanged and the path", err)
	}
	if err := s.CheckReferences(t.Context(), tree); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "in.bin") {
		t.Errorf("changed: %v, want ErrChanged and the path in the tree", err)
	}
	// Another file with the same bytes serves as well.
	second, _ := record("second")
	if b, err := s.OpenBlob(t.Context(), d); err != nil || b.Name() != second {
		t.Errorf("beside another file: %v", err)
	} else {
		b.Close()
	}
	os.Remove(second)
	if _, err := s.OpenBlob(t.Context(), d); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), second) {
		t.Errorf("gone: %v, want ErrChanged and the path", err)
	}
	// A blob in the store is better than any of them.
	coreBlob(t, s, []byte("referenced"))
	if b, err := s.OpenBlob(t.Context(), d); err != nil || b.Reference() || b.Check() != nil {
		t.Errorf("stored: %v", err)
	} else {
		b.Close()
	}
}

func TestDamagedReference(t *testing.T) {
	s := newCoreStore(t)
	d := Sum([]byte("x"))
	for _, text := range []string{"", "{}", `{"files":[]}`, "no JSON"} {
		if err := s.writeFileDurable(s.referencePath(d), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.OpenBlob(t.Context(), d); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v, want ErrCorrupt", text, err)
		}
	}
	if err := s.putReference(d, "relative/path", fileState{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a relative path: %v, want ErrInvalid", err)
	}
}

// Files of equal bytes in one add are all remembered: any of them will do.
func TestEqualFilesAreAllReferences(t *testing.T) {
	s, dir := newTestStore(t), t.TempDir()
	files := map[string]string{}
	for i := range maxReferenced {
		files[string(rune('a'+i))] = "the same"
	}
	writeFiles(t, dir, files)
	added, err := s.AddPath(t.Context(), dir, AddOptions{Reference: true})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	r, err := s.readReference(Sum([]byte("the same")))
	if err != nil || len(r.Files) != maxReferenced {
		t.Errorf("%d of %d files are remembered, %v", len(r.Files), maxReferenced, err)
	}
}

// A name that became a FIFO must not hang whoever opens the blob, such as a
// mount, until somebody writes into it.
func TestReferenceThatBecameAFIFO(t *testing.T) {
	s := newCoreStore(t)
	path := filepath.Join(t.TempDir(), "data")
	writeFiles(t, filepath.Dir(path), map[string]string{"data": "bytes"})
	added := mustAdd(t, s, path, AddOptions{Reference: true})
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() {
		_, err := s.OpenBlob(context.Background(), added.Digest)
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), path) {
			t.Errorf("opened: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}

// Bytes of a referenced file that is written to meanwhile are neither the old
// ones nor the new.
func TestReadFileOfReferenceThatChanges(t *testing.T) {
	s := newCoreStore(t)
	dir := t.TempDir()
	for i := range 100 {
		path := filepath.Join(dir, fmt.Sprint(i))
		was := bytes.Repeat([]byte{byte(i)}, 4<<20)
		if err := os.WriteFile(path, was, 0o644); err != nil {
			t.Fatal(err)
		}
		added := mustAdd(t, s, path, AddOptions{Reference: true})
		fsys, err := s.FS(t.Context(), added.Tree)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.WriteAt([]byte("changed"), int64(len(was)-7))
		}()
		if got, err := fs.ReadFile(fsys, fmt.Sprint(i)); err == nil && !bytes.Equal(got, was) {
			t.Errorf("the changed bytes were handed out as %s", added.Digest)
		} else if err != nil && !errors.Is(err, ErrChanged) {
			t.Error(err)
		}
		<-done
		f.Close()
		os.Remove(path)
	}
}
