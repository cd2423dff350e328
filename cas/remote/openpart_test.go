package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// sizedOpener is an object that tells how it was opened.
type sizedOpener struct {
	Bucket
	data   []byte
	opened []wideRead
	left   int
}

func (o *sizedOpener) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o.opened = append(o.opened, wideRead{key, off, n})
	if n < 0 {
		n = int64(len(o.data)) - off
	}
	r := bytes.NewReader(o.data[off:][:n])
	return struct {
		io.Reader
		io.Closer
	}{r, closer(func() error { o.left = r.Len(); return nil })}, nil
}

type closer func() error

func (c closer) Close() error { return c() }

// TestOpenPart: most of a pack is asked for whole, and what was not wanted of it
// is taken too, so that the connection can be used again.
func TestOpenPart(t *testing.T) {
	t.Parallel()
	data := randomBytes(1, packSize+maxChunk)
	for _, c := range []struct {
		off, n int64
		whole  bool
	}{
		{packHeader, packSize - packHeader, true}, {wholeSlack, packSize - 2*wholeSlack, true}, {0, int64(len(data)), true},
		{wholeSlack + 1, packSize - wholeSlack, false}, {0, packSize - wholeSlack - 1, false}, {1 << 20, 1 << 20, false},
	} {
		o := &sizedOpener{data: data}
		r, err := openPart(t.Context(), o, "packs/x", c.off, c.n)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(b, data[c.off:c.off+c.n]) {
			t.Errorf("%+v: %d bytes, %v", c, len(b), err)
		}
		if err := r.Close(); err != nil || o.left != 0 {
			t.Errorf("%+v: %d bytes are left, %v", c, o.left, err)
		}
		want := wideRead{"packs/x", c.off, c.n}
		if c.whole {
			want.off, want.n = 0, -1
		}
		if len(o.opened) != 1 || o.opened[0] != want {
			t.Errorf("%+v: opened %v", c, o.opened)
		}
	}
	bad := errors.New("bad")
	r, err := openPart(t.Context(), failingOpener{err: bad}, "packs/x", packHeader, packSize)
	if !errors.Is(err, bad) || r != nil {
		t.Errorf("%v, %v", r, err)
	}
}

type failingOpener struct {
	Bucket
	err error
}

func (o failingOpener) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("cur"), failing{o.err})), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
