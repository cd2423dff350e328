package cas

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// partialBlob is a blob and its outboard, that no store has.
func partialBlob(t *testing.T, size int) ([]byte, Digest, *bytes.Reader) {
	t.Helper()
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*i>>8 ^ i>>16 ^ i)
	}
	out := &memFile{b: make([]byte, OutboardSize(int64(size)))}
	d, err := SumAt(t.Context(), bytes.NewReader(b), int64(size), out)
	if err != nil {
		t.Fatal(err)
	}
	return b, d, bytes.NewReader(out.b)
}

func openPartial(t *testing.T, s *Store, d Digest, size int) *Partial {
	t.Helper()
	p, err := s.OpenPartial(t.Context(), d, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPartial(t *testing.T) {
	s := newCoreStore(t)
	const size = 3<<20 + 12345
	b, d, nodes := partialBlob(t, size)
	p := openPartial(t, s, d, size)
	if lo, hi := p.Missing(0, size); lo != 0 || hi != size || p.Local() != 0 {
		t.Errorf("of an empty one %d to %d is missing, %d is here", lo, hi, p.Local())
	}
	if _, err := p.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("read of nothing: %v", err)
	}
	if err := p.Add(b[GroupSize:3*GroupSize], GroupSize, nodes); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2*GroupSize-100)
	if _, err := p.ReadAt(got, GroupSize+50); err != nil || !bytes.Equal(got, b[GroupSize+50:][:len(got)]) {
		t.Errorf("read of what is there: %v", err)
	}
	if lo, hi := p.Missing(GroupSize, 10*GroupSize); lo != 3*GroupSize || hi != 11*GroupSize {
		t.Errorf("%d to %d is missing", lo, hi)
	}
	// What is wrong is refused, wherever it is wrong.
	bad := bytes.Clone(b[:GroupSize])
	bad[77]++
	if err := p.Add(bad, 0, nodes); !errors.Is(err, ErrCorrupt) {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := p.Add(b[:GroupSize], 0, bytes.NewReader(make([]byte, OutboardSize(size)))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("wrong nodes: %v", err)
	}
	if err := p.Add(b[:100], 0, nodes); !errors.Is(err, ErrInvalid) {
		t.Errorf("half a group: %v", err)
	}
	if lo, _ := p.Missing(0, 1); lo != 0 {
		t.Error("what was refused counts as there")
	}
	if err := p.Promote(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("promoted too early: %v", err)
	}
	// Another handle sees what this one brings, as another process does.
	q := openPartial(t, s, d, size)
	if err := p.Add(b[:GroupSize], 0, nodes); err != nil {
		t.Fatal(err)
	}
	if lo, hi := q.Missing(0, 3*GroupSize); lo != hi {
		t.Errorf("the other handle lacks %d to %d", lo, hi)
	}
	for lo, hi := q.Missing(0, size); lo != hi; lo, hi = q.Missing(0, size) {
		if err := q.Add(b[lo:hi], lo, nodes); err != nil {
			t.Fatal(err)
		}
	}
	if !q.Whole() || s.HasBlob(d) {
		t.Errorf("whole: %v; a blob already: %v", q.Whole(), s.HasBlob(d))
	}
	if err := q.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Promote(t.Context()); p.Whole() && err != nil {
		t.Errorf("promoted twice: %v", err)
	}
	f, err := s.OpenBlob(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if all, err := io.ReadAll(f); err != nil || !bytes.Equal(all, b) {
		t.Errorf("the blob: %d bytes, %v", len(all), err)
	}
	o, err := s.OpenOutboard(d)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Verify(b[GroupSize:2*GroupSize], GroupSize); err != nil {
		t.Errorf("its outboard: %v", err)
	}
	if fi, err := os.Stat(s.blobPath(d)); err != nil || fi.Mode().Perm() != blobMode {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if left, _ := os.ReadDir(s.path("partial", d)[:len(s.path("partial", d))-65]); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestPartialRestart: what is there is there after a restart of the program; a
// restart of the machine may have lost bytes that the map still tells of.
func TestPartialRestart(t *testing.T) {
	s := newCoreStore(t)
	const size = 2 << 20
	b, d, nodes := partialBlob(t, size)
	p := openPartial(t, s, d, size)
	if err := p.Add(b[:4*GroupSize], 0, nodes); err != nil {
		t.Fatal(err)
	}
	p.Close()
	p = openPartial(t, s, d, size)
	if lo, _ := p.Missing(0, size); lo != 4*GroupSize {
		t.Errorf("after a restart it lacks bytes from %d", lo)
	}
	p.Close()
	path := s.partialPath(d)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(make([]byte, 100), GroupSize) // lost by the power failure
	f.Close()
	f, err = os.OpenFile(path+".map", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("another system!!"), 24)
	f.Close()
	p = openPartial(t, s, d, size)
	if lo, hi := p.Missing(0, 4*GroupSize); lo != GroupSize || hi != 2*GroupSize {
		t.Errorf("after a restart of the machine %d to %d is missing, want the group that was lost", lo, hi)
	}
	// A map that makes no sense counts as none.
	p.Close()
	os.WriteFile(path+".map", []byte("curipart???"), 0o644)
	p = openPartial(t, s, d, size)
	if p.Local() != 0 {
		t.Errorf("believed %d bytes to a damaged map", p.Local())
	}
}

// A collection takes partial blobs that nobody opened for long, those that are
// stored whole, and no others.
func TestCollectPartial(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(MinOutboard + 1)
	open := func(fill byte) string {
		d := Sum(bytes.Repeat([]byte{fill}, int(size)))
		p, err := s.OpenPartial(t.Context(), d, size)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		return filepath.Join(s.Dir(), "partial", d.String()[:2], d.String())
	}
	old, opened, young, whole := open(1), open(2), open(3), open(4)
	for _, p := range []string{old, opened} {
		for _, f := range []string{p, p + ".map", p + ".outboard"} {
			if err := os.Chtimes(f, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(2)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, bytes.Repeat([]byte{4}, int(size)), 0o666); err != nil {
		t.Fatal(err)
	}
	a, err := s.AddPath(t.Context(), file, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Release()
	if _, err := s.Collect(t.Context(), CollectOptions{PartialAge: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{old: false, opened: true, young: true, whole: false} {
		for _, f := range []string{path, path + ".map", path + ".outboard"} {
			if _, err := os.Stat(f); (err == nil) != want {
				t.Errorf("%s: %v, want it there: %v", f, err, want)
			}
		}
	}
}

// TestVerifyPartial: a check finds what the disk did to a partial blob, drops
// it, and leaves the rest.
func TestVerifyPartial(t *testing.T) {
	s := newCoreStore(t)
	const size = 3 << 20
	b, d, nodes := partialBlob(t, size)
	p := openPartial(t, s, d, size)
	if err := p.Add(b[:6*GroupSize], 0, nodes); err != nil {
		t.Fatal(err)
	}
	verify := func(want int) VerifyReport {
		t.Helper()
		r, err := s.Verify(t.Context(), VerifyOptions{})
		if err != nil || len(r.Bad) != want || r.BlobsChecked != 1 {
			t.Fatalf("%+v %v", r, err)
		}
		return r
	}
	verify(0)
	// The nodes of groups that are not here mean nothing.
	if _, err := p.nodes.WriteAt(make([]byte, 64), OutboardSize(size)-64); err != nil {
		t.Fatal(err)
	}
	verify(0)
	if _, err := p.data.WriteAt([]byte{b[GroupSize] + 1}, GroupSize); err != nil {
		t.Fatal(err)
	}
	if r := verify(1); r.Bad[0].Digest != d || !r.Bad[0].Partial || !strings.Contains(r.Bad[0].Reason, "16384 do not lead to its digest") {
		t.Errorf("%+v", r.Bad)
	}
	verify(0)
	q := openPartial(t, s, d, size)
	if lo, hi := q.Missing(0, 6*GroupSize); lo != GroupSize || hi != 2*GroupSize {
		t.Errorf("it lacks %d to %d", lo, hi)
	}
	if err := q.Add(b[GroupSize:2*GroupSize], GroupSize, nodes); err != nil {
		t.Fatal(err)
	}
	verify(0)
}

// The map of what a hostile remote says to be a file of an EiB is not made.
func TestPartialTooLarge(t *testing.T) {
	s := newCoreStore(t)
	for _, size := range []int64{MinOutboard, MaxPartial + 1, 1 << 60} {
		if p, err := s.OpenPartial(t.Context(), Sum(nil), size); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d bytes: %v", size, err)
			if err == nil {
				p.Close()
			}
		}
	}
}

// Whoever reads a file that came whole does not wait until that is durable, nor
// for another process that has its map.
func TestPromotionLetsReadersGoOn(t *testing.T) {
	s := newCoreStore(t)
	const size = 3 << 20
	b, d, nodes := partialBlob(t, size)
	p := openPartial(t, s, d, size)
	if err := p.Add(b, 0, nodes); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(p.bits.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := flock(other, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	promoted, read := make(chan error, 1), make(chan error, 1)
	go func() { promoted <- p.Promote(t.Context()) }()
	for p.turn.TryLock() { // until it has come to the lock
		p.turn.Unlock()
		time.Sleep(time.Millisecond)
	}
	go func() {
		got := make([]byte, size)
		_, err := p.ReadAt(got, 0)
		if err == nil && !bytes.Equal(got, b) {
			err = errors.New("other bytes")
		}
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a reader waits")
	}
	if err := flock(other, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-promoted; err != nil {
		t.Error(err)
	}
	if !s.HasWholeBlob(d, size) {
		t.Error("the blob is not one of the store")
	}
}
