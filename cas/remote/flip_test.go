package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/curi-store/curi/cas"
)

// flipped is a bucket in which one bit is another than it was written, of the
// objects whose keys begin with room.
type flipped struct {
	Bucket
	room string
	at   int64
	hit  atomic.Bool // somebody read it
}

func (b *flipped) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	n, err := b.Bucket.ReadAt(ctx, key, p, off)
	if i := b.at - off; strings.HasPrefix(key, b.room) && i >= 0 && i < int64(n) {
		p[i] ^= 1 << (i % 8)
		b.hit.Store(true)
	}
	return n, err
}

// TestFlippedBit flips one bit here and there in what a remote has: in chunks of
// files and of what verifies them, in the head and the pages of the recipe. Who
// reads lazily gets the right bytes or an error, and the store nothing else.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"large": randomBytes(1, 2<<20+999), "floats": normals(400_000), "sub/small": []byte("hello")}
	for i := range 1200 {
		files["wide/"+longName(i)] = randomBytes(uint64(i), 40)
	}
	reads := []string{"large", "floats", "sub/small", "wide/" + longName(7), "wide/" + longName(1100)}
	a := newStore(t)
	r := newRemote(t, OpenDir(t.TempDir()))
	tree := addFiles(t, a, files)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	// Where what verifies the large file lies.
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rc.Lookup(t.Context(), rc.Root(), "large")
	if err != nil {
		t.Fatal(err)
	}
	behind := large.place.at + large.Size
	nodes, err := rc.rows(t.Context(), behind+nodesLen(large.Size)-1, behind+nodesLen(large.Size))
	if err != nil || len(nodes) != 1 {
		t.Fatalf("%v %v", nodes, err)
	}
	var failed, hit [2]atomic.Int64
	t.Run("each", func(t *testing.T) {
		for i, room := range []string{"packs/", "recipes/"} {
			var size int64
			for o, err := range r.b.List(t.Context(), room, "") {
				if err != nil {
					t.Fatal(err)
				}
				size = max(size, o.Size)
			}
			for k := range int64(24) {
				b := &flipped{Bucket: r.b, room: room, at: size * k / 24}
				switch {
				case room == "recipes/" && k%3 > 0:
					b.at = firstRead * k / 24 // what everybody reads
				case room == "packs/" && k%8 == 0:
					b.at = nodes[0].off + int64(nodes[0].stored)*k/24
				}
				t.Run(fmt.Sprint(room, b.at), func(t *testing.T) {
					t.Parallel()
					var by Bucket = b
					if k%2 == 1 {
						by = servedBucket(t, b)
						defer by.Close()
					}
					failed[i].Add(readFlipped(t, by, tree, files, reads))
					if b.hit.Load() {
						hit[i].Add(1)
					}
				})
			}
		}
	})
	for i, room := range []string{"packs/", "recipes/"} {
		t.Logf("%s: %d flips were met, %d reads failed", room, hit[i].Load(), failed[i].Load())
		if hit[i].Load() == 0 || failed[i].Load() == 0 {
			t.Errorf("%s: %d flips were met, %d reads failed", room, hit[i].Load(), failed[i].Load())
		}
	}
}

// readFlipped reads files by a new store, and counts the errors.
func readFlipped(t *testing.T, b Bucket, tree cas.Digest, files map[string][]byte, reads []string) (failed int64) {
	t.Helper()
	s := readsBy(t, b)
	defer s.Close()
	if _, err := s.KeepPages(t.Context(), "team", tree); err != nil {
		t.Fatal(err)
	}
	for _, name := range reads {
		want := files[name]
		var got bytes.Buffer
		e, err := s.Lookup(t.Context(), tree, name)
		if err == nil {
			err = s.CopyBlob(t.Context(), &got, e.Digest)
		}
		switch {
		case err == nil && !bytes.Equal(got.Bytes(), want), !bytes.HasPrefix(want, got.Bytes()):
			t.Errorf("wrong bytes of %s", name)
		case err != nil && !errors.Is(err, cas.ErrCorrupt):
			t.Errorf("%s: %v", name, err)
		case err != nil:
			failed++
		}
	}
	if rep, err := s.Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) > 0 {
		t.Errorf("verify: %+v, %v", rep.Bad, err)
	}
	return failed
}
