//go:build linux

package fusefs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// Whoever still reads an output when it is sealed holds the blob that it
// becomes, and gets no way to change it when the place opens to the next run.
func TestReaderOfASealedOutputCannotChangeTheBlob(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	at := m.path("at", testKey[:16])
	weights := bytes.Repeat([]byte("w"), 1<<18)
	name := filepath.Join(at, "out/a/model")
	if err := os.WriteFile(name, weights, 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	digest := sealOut(t, s, p, "out/a")
	openPlace(t, s, m, testKey, nil)
	if err := p.SetSealing(t.Context(), false); err != nil {
		t.Fatal(err)
	}

	fd := int(reader.Fd())
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	for what, change := range map[string]func() error{
		"open for writing": func() error {
			w, err := unix.Open(self, unix.O_RDWR, 0)
			if err == nil {
				unix.Pwrite(w, []byte("changed"), 0)
				unix.Close(w)
			}
			return err
		},
		"truncate": func() error { return unix.Truncate(self, 3) },
		"chmod":    func() error { return unix.Fchmod(fd, 0o666) },
		"chown":    func() error { return unix.Fchown(fd, 65534, 65534) },
		"utimes":   func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, self, make([]unix.Timespec, 2), 0) },
		"setxattr": func() error { return unix.Fsetxattr(fd, "user.curi.x", []byte("1"), 0) },
		"link": func() error {
			return unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, filepath.Join(at, "work/a/l"), unix.AT_SYMLINK_FOLLOW)
		},
	} {
		if err := change(); err == nil {
			t.Errorf("%s succeeded", what)
		}
	}
	blob := filepath.Join(s.Dir(), "blobs", digest.String()[:2], digest.String())
	var st syscall.Stat_t
	if err := syscall.Lstat(blob, &st); err != nil || st.Mode&0o7777 != 0o444 || st.Nlink != 1 || st.Uid != 0 {
		t.Errorf("the blob has mode %o, %d names, owner %d: %v", st.Mode, st.Nlink, st.Uid, err)
	}
	if got, err := os.ReadFile(blob); err != nil || !bytes.Equal(got, weights) {
		t.Errorf("the blob's bytes changed: %d bytes, %v", len(got), err)
	}
	b := make([]byte, 4)
	if _, err := reader.ReadAt(b, 100); err != nil || string(b) != "wwww" {
		t.Errorf("the reader reads %q, %v", b, err)
	}
}

// What the kernel keeps of the first writer's handle must not look like a
// writer for as long as somebody, such as a dashboard, has the file open.
func TestReaderThatOutlivesTheWriterDoesNotPreventSealing(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	w, err := os.Create(m.path("at", testKey[:16], "out/a/events"))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(w.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := w.WriteString("events"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sealOut(t, s, p, "out/a")
	if b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", reader.Fd())); err != nil || string(b) != "events" {
		t.Errorf("the reader reads %q, %v", b, err)
	}
}

// sealOut publishes a directory of a place that has one file, whose digest it returns.
func sealOut(t *testing.T, s *cas.Store, p *cas.Place, dir string) cas.Digest {
	t.Helper()
	if err := p.SetSealing(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	added, err := s.Seal(t.Context(), filepath.Join(p.Dir(), dir), cas.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	tree, err := s.Tree(t.Context(), added.Tree)
	if err != nil {
		t.Fatal(err)
	}
	result, err := resultTree(t, s, added.Tree)
	if err != nil {
		t.Fatal(err)
	}
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1, Result: result})
	return tree.Entries[0].Digest
}
