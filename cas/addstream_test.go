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
