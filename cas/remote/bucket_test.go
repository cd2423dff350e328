package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/curi-store/curi/cas"
)

// buckets makes an empty bucket of every kind that there is.
func buckets(t *testing.T) map[string]func(t *testing.T) Bucket {
	return map[string]func(t *testing.T) Bucket{
		"dir":    func(t *testing.T) Bucket { return OpenDir(filepath.Join(t.TempDir(), "new", "bucket")) },
		"served": func(t *testing.T) Bucket { return servedBucket(t, OpenDir(filepath.Join(t.TempDir(), "bucket"))) },
		"s3":     func(t *testing.T) Bucket { return openS3(t, s3Server(t), Patience{}) },
	}
}

// TestBucket is what every bucket has to do.
func TestBucket(t *testing.T) {
	t.Parallel()
	for kind, open := range buckets(t) {
		t.Run(kind, func(t *testing.T) {
			for name, test := range map[string]func(*testing.T, Bucket){
				"read": testRead, "replace": testReplace, "list": testList, "new": testNew, "race": testRace, "keys": testKeys, "large": testLarge,
			} {
				t.Run(name, func(t *testing.T) {
					b := open(t)
					defer b.Close()
					test(t, b)
				})
			}
		})
	}
}

func mustPut(t *testing.T, b Bucket, key, data string) {
	t.Helper()
	if err := b.Put(t.Context(), key, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func testRead(t *testing.T, b Bucket) {
	if _, err := b.ReadAt(t.Context(), "no/such", make([]byte, 1), 0); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	if _, err := b.Stat(t.Context(), "no/such"); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("stat of missing: %v", err)
	}
	mustPut(t, b, "a/b", "0123456789")
	for _, c := range []struct {
		off  int64
		n    int
		want string
		eof  bool
	}{
		{0, 10, "0123456789", false}, {0, 3, "012", false}, {7, 3, "789", false}, {7, 4, "789", true},
		{0, 100, "0123456789", true}, {10, 1, "", true}, {11, 1, "", true}, {1000, 5, "", true},
	} {
		p := make([]byte, c.n)
		n, err := b.ReadAt(t.Context(), "a/b", p, c.off)
		// A full read may or may not say that it was the last.
		if string(p[:n]) != c.want || c.eof && !errors.Is(err, io.EOF) || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes at %d: %q, %v", c.n, c.off, p[:n], err)
		}
	}
	o, err := b.Stat(t.Context(), "a/b")
	if err != nil || o.Size != 10 || o.Key != "a/b" || o.ModTime.IsZero() {
		t.Errorf("stat: %+v, %v", o, err)
	}
	if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("stat of what is no object: %v", err)
	}
	mustPut(t, b, "empty", "")
	if got, err := readAll(t.Context(), b, "empty", 10); err != nil || len(got) != 0 {
		t.Errorf("empty: %q, %v", got, err)
	}
	if _, err := readAll(t.Context(), b, "a/b", 9); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("beyond the limit: %v", err)
	}
}

func testReplace(t *testing.T, b Bucket) {
	mustPut(t, b, "k", "first")
	mustPut(t, b, "k", "second, longer")
	if got, err := readAll(t.Context(), b, "k", 100); err != nil || string(got) != "second, longer" {
		t.Errorf("%q, %v", got, err)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "k"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := b.Stat(t.Context(), "k"); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
}

func testList(t *testing.T, b Bucket) {
	keys := []string{"a", "a-b/c", "a.txt", "a/b", "a/b2/c", "a/bc", "b/1", "b/2", "b/3", "c"}
	for _, k := range keys {
		if k == "a" { // a directory and a file cannot have one name in every bucket
			continue
		}
		mustPut(t, b, k, k)
	}
	keys = keys[1:]
	list := func(prefix, after string) (got []string) {
		t.Helper()
		for o, err := range b.List(t.Context(), prefix, after) {
			if err != nil {
				t.Fatal(err)
			}
			if o.Size != int64(len(o.Key)) || o.ModTime.IsZero() {
				t.Errorf("%+v", o)
			}
			got = append(got, o.Key)
		}
		return got
	}
	for _, c := range [][2]string{{"", ""}, {"a", ""}, {"a/", ""}, {"a/b", ""}, {"a/b2/", ""}, {"b/", "b/1"}, {"b/", "b/"}, {"", "a/b2/c"}, {"", "a-b"}, {"", "a/b"}, {"nothing", ""}, {"b/2", ""}, {"no/such/", ""}} {
		var want []string
		for _, k := range keys {
			if strings.HasPrefix(k, c[0]) && k > c[1] {
				want = append(want, k)
			}
		}
		if got := list(c[0], c[1]); !slices.Equal(got, want) {
			t.Errorf("list %q after %q: %v, want %v", c[0], c[1], got, want)
		}
	}
	for range b.List(t.Context(), "", "") {
		break // stopping early must not hang or panic
	}
	// More than object stores list at once.
	if err := each(t.Context(), 1100, 16, func(ctx context.Context, i int) error {
		return b.Put(ctx, fmt.Sprintf("many/%04d", i), []byte(fmt.Sprintf("many/%04d", i)))
	}); err != nil {
		t.Fatal(err)
	}
	if n := len(list("many/", "")); n != 1100 {
		t.Errorf("listed %d of 1100", n)
	}
}

func testNew(t *testing.T, b Bucket) {
	if err := b.PutNew(t.Context(), "x/y", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := b.PutNew(t.Context(), "x/y", []byte("2")); !errors.Is(err, cas.ErrExists) {
		t.Errorf("second: %v", err)
	}
	mustPut(t, b, "x/z", "put")
	if err := b.PutNew(t.Context(), "x/z", []byte("2")); !errors.Is(err, cas.ErrExists) {
		t.Errorf("over a put: %v", err)
	}
	if got, _ := readAll(t.Context(), b, "x/y", 10); string(got) != "1" {
		t.Errorf("holds %q", got)
	}
	// Deleted, it is free again.
	if err := b.Delete(t.Context(), "x/y"); err != nil {
		t.Fatal(err)
	}
	if err := b.PutNew(t.Context(), "x/y", []byte("3")); err != nil {
		t.Errorf("after delete: %v", err)
	}
}

// testRace lets many write one key: one wins, and what it wrote is there.
func testRace(t *testing.T, b Bucket) {
	for round := range 20 {
		key := fmt.Sprintf("race/%d", round)
		var won atomic.Int64
		var winner atomic.Value
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				data := strings.Repeat(string(rune('a'+i)), 1000+i)
				switch err := b.PutNew(t.Context(), key, []byte(data)); {
				case err == nil:
					won.Add(1)
					winner.Store(data)
				case !errors.Is(err, cas.ErrExists):
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 8 won", won.Load())
		}
		if got, err := readAll(t.Context(), b, key, 1<<20); err != nil || string(got) != winner.Load() {
			t.Fatalf("what is there is not the winner's: %v", err)
		}
	}
}

func testKeys(t *testing.T, b Bucket) {
	for _, key := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.b", "a b", "a\x00", "a\\b", strings.Repeat("a/", 500) + "a", strings.Repeat("x", 300)} {
		if err := b.Put(t.Context(), key, nil); !errors.Is(err, cas.ErrInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func testLarge(t *testing.T, b Bucket) {
	data := randomBytes(7, packSize+12345)
	if err := b.PutNew(t.Context(), "packs/large", data); err != nil {
		t.Fatal(err)
	}
	if err := b.PutNew(t.Context(), "packs/large", data[1:]); !errors.Is(err, cas.ErrExists) {
		t.Errorf("a large object was replaced: %v", err)
	}
	got, err := readAll(t.Context(), b, "packs/large", maxPack)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	p := make([]byte, 1000)
	if n, err := b.ReadAt(t.Context(), "packs/large", p, packSize); n != 1000 || !bytes.Equal(p, data[packSize:packSize+1000]) {
		t.Errorf("a part: %d, %v", n, err)
	}
}
