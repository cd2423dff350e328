package cas

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"
)

// cutArchive is a gzip stream of n bytes that ends before they are through.
func cutArchive(t *testing.T, n int) io.Reader {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(noise(uint64(n), n)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed.Bytes()[:packed.Len()-100]))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A source that was cut off says so by an error that sounds like an end.
func TestAddCutStream(t *testing.T) {
	s := addStore(t)
	for _, n := range []int{1000, smallFile + 5, 3 * smallFile} {
		a, err := s.AddReader(t.Context(), cutArchive(t, n), "data", AddOptions{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes that were cut off were added as %+v: %v", n, a, err)
		}
		a, err = s.AddFS(t.Context(), cutFS{fstest.MapFS{"data": {}}, cutArchive(t, n)}, AddOptions{})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes in a file system that were cut off were added as %+v: %v", n, a, err)
		}
	}
	emptyStaging(t, s)
}

// cutFS yields r as the content of each file.
type cutFS struct {
	fs.FS
	r io.Reader
}

func (f cutFS) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return file, err
	}
	return cutFile{file, f.r}, nil
}

type cutFile struct {
	fs.File
	r io.Reader
}

func (f cutFile) Read(p []byte) (int, error) { return f.r.Read(p) }

// One file that cannot be read ends the add at once, not when the large ones
// beside it are through.
func TestAddEndsAtTheFirstError(t *testing.T) {
	s := addStore(t)
	large := &fstest.MapFile{Data: make([]byte, 2*smallFile)}
	f := &failingFS{FS: fstest.MapFS{"bad": large, "endless": large}, opened: make(chan struct{}), failed: make(chan struct{})}
	if _, err := s.AddFS(t.Context(), f, AddOptions{}); !errors.Is(err, errBad) {
		t.Errorf("added: %v", err)
	}
	if f.left == 0 {
		t.Error("the other file was read to its end")
	}
	emptyStaging(t, s)
}

var errBad = errors.New("bad disk")

// failingFS cannot open the file "bad", once "endless" is open; that waits for
// it, and yields 2 GiB afterwards.
type failingFS struct {
	fs.FS
	opened chan struct{}
	failed chan struct{}
	left   int64
}

func (f *failingFS) Open(name string) (fs.File, error) {
	switch name {
	case "bad":
		<-f.opened
		close(f.failed)
		return nil, errBad
	case "endless":
		file, err := f.FS.Open(name)
		f.left = 2 << 30
		close(f.opened)
		return cutFile{file, f}, err
	}
	return f.FS.Open(name)
}

func (f *failingFS) Read(p []byte) (int, error) {
	<-f.failed
	if f.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), f.left)
	f.left -= n
	return int(n), nil
}
