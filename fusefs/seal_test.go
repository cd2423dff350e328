//go:build linux

package fusefs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

func TestSealingRefusesEveryWriter(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	out := m.path("at", testKey[:16], "out/a")
	file := filepath.Join(out, "model")
	if err := os.WriteFile(file, []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.SetSealing(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for name, how := range tryChanges(t, filepath.Dir(out), []string{file})[0] {
		if !refused(name, how, true) {
			t.Errorf("%s while sealing: %s", name, how)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "weights" {
		t.Errorf("reading while sealing: %q, %v", got, err)
	}
	if err := p.SetSealing(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("more"), 0o644); err != nil {
		t.Errorf("after sealing was given up: %v", err)
	}
}

// An open that meets the sealer's lease must not wait for it to end: it would
// write to the blob that the file has become.
func TestOpenForWritingDoesNotWaitForTheSealersLease(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	name := filepath.Join("out", "a", "model")
	if err := os.WriteFile(m.path("at", testKey[:16], name), []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(p.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The server hears of the last close later than its caller.
	eventually(t, func() bool {
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		return err == nil
	})
	opened := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(m.path("at", testKey[:16], name), os.O_WRONLY, 0)
		if err == nil {
			w.Close()
		}
		opened <- err
	}()
	// Seal under the lease while the open is on its way.
	if err := p.SetSealing(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	err = <-opened
	if pe, ok := err.(*os.PathError); !ok || pe.Err != syscall.EROFS {
		t.Errorf("want EROFS, have %v", err)
	}
}

func TestSealedOutputReplacesStaging(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	at := m.path("at", testKey[:16])
	file := filepath.Join(at, "out/data/sub/model.ckpt")
	big := bytes.Repeat([]byte("w"), 1<<20)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, big, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(file, "user.curi.type", []byte("M1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "work/a/ckpt"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := p.SetSealing(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	added, err := s.Seal(t.Context(), filepath.Join(p.Dir(), "out/data"), cas.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	result, err := resultTree(t, s, added.Tree)
	if err != nil {
		t.Fatal(err)
	}
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1, Result: result})
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("sealed output: %d bytes, %v", len(got), err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(file, &st); err != nil || st.Mode != syscall.S_IFREG|0o444 || st.Mtim.Sec != 315532800 {
		t.Errorf("sealed output: mode %o, time %d, %v", st.Mode, st.Mtim.Sec, err)
	}
	if v, err := getxattr(file, "user.curi.type"); err != nil || v != "M1" {
		t.Errorf("metadata of the sealed output: %q, %v", v, err)
	}
	if b := make([]byte, 8); true {
		if _, err := before.ReadAt(b, 1000); err != nil || string(b) != "wwwwwwww" {
			t.Errorf("a file that was open before: %q, %v", b, err)
		}
	}
	if _, err := os.Stat(filepath.Join(at, "out/a")); !os.IsNotExist(err) {
		t.Errorf("staging still shows: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(at, "work/a/ckpt")); err != nil || string(got) != "1" {
		t.Errorf("work after the run: %q, %v", got, err)
	}
	// The next try of the key starts anew at the same paths.
	if err := p.SetSealing(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(p.Dir(), "out", "data"), 0o755)
	setPlace(t, s, p, cas.PlaceState{Run: "train-000002", Attempt: 2, Mount: m.info.ID, Active: true})
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the old result still shows: %v", err)
	}
	if err := os.WriteFile(filepath.Join(at, "out/data/new"), nil, 0o644); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(at, "work/a/ckpt"), []byte("2"), 0o644); err != nil {
		t.Error(err)
	}
}

func getxattr(path, attr string) (string, error) {
	b := make([]byte, 256)
	n, err := unix.Getxattr(path, attr, b)
	return strings.TrimRight(string(b[:max(n, 0)]), "\x00"), err
}

// Whoever closes a place to writers goes on only when no change is left that
// began before.
func TestSealingWaitsForChangesUnderWay(t *testing.T) {
	s := newStore(t)
	p := s.Place(testKey)
	if err := p.SetState(t.Context(), cas.PlaceState{Run: "r-000001"}); err != nil {
		t.Fatal(err)
	}
	change, err := os.Open(p.Dir()) // as a mount does for a change
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(change.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- p.SetSealing(t.Context(), true) }()
	eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(p.Dir(), "sealing"))
		return err == nil
	})
	select {
	case err := <-closed:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	change.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
