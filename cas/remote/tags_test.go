package remote

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/curi-store/curi/cas"
)

// TestTagRace moves a tag from many machines at once: whoever is told that it
// moved it did so after it had seen where it was.
func TestTagRace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	s := newStore(t)
	r := newRemote(t, OpenDir(dir))
	for n := range 8 {
		tree := addFiles(t, s, map[string][]byte{"f": {byte(n)}})
		if _, err := r.Push(t.Context(), s, tree, PushOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Publish(t.Context(), "m", RefInfo{Tree: tree, Bytes: 1, Files: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var moved atomic.Int64
	var wg sync.WaitGroup
	for n := 1; n <= 8; n++ {
		wg.Go(func() {
			switch err := newRemote(t, OpenDir(dir)).SetTag(t.Context(), "m", "best", n, "x@y"); {
			case err == nil:
				moved.Add(1)
			case !errors.Is(err, cas.ErrBusy):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ns, err := r.tag("m", "best").numbers(t.Context())
	if err != nil || int64(len(ns)) != moved.Load() || moved.Load() == 0 {
		t.Errorf("moved %d times, the tag has %v: %v", moved.Load(), ns, err)
	}
	if err := r.SetTag(t.Context(), "m", "best", 99, ""); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("to no version: %v", err)
	}
	tags, err := r.Tags(t.Context(), nil)
	if err != nil || len(tags) != 1 || tags[0].Tag != "best" {
		t.Fatalf("%v %v", tags, err)
	}
	if again, err := r.Tags(t.Context(), tags); err != nil || again[0] != tags[0] {
		t.Errorf("%v %v", again, err)
	}
}

func FuzzRefs(f *testing.F) {
	f.Add([]byte(`{"tree":"0000000000000000000000000000000000000000000000000000000000000001","bytes":1,"files":1,"token":"x"}`))
	f.Add([]byte(`{"version":3,"token":"x"}`))
	f.Add(seal([]byte(`{}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := parseRef("k", b); err == nil && (v.Tree.IsZero() || v.Bytes < 0 || v.Files < 0) {
			t.Errorf("%+v", v)
		}
		if v, err := parseTag("k", b); err == nil && v.Version < 1 {
			t.Errorf("%+v", v)
		}
		if line, err := unseal("k", b); err == nil && len(b) > 0 && string(seal(line)) != string(b) {
			t.Errorf("%q", line)
		}
	})
}
