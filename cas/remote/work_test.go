package remote

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// The two newest snapshots of a key stay, and a collection keeps what they need.
func TestWork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	s, r := newStore(t), newRemote(t, OpenDir(dir))
	key := cas.Sum([]byte("key")).String()
	if _, err := r.Work(t.Context(), key); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of no snapshot: %v", err)
	}
	var trees []cas.Digest
	for n := range 3 {
		tree := addFiles(t, s, map[string][]byte{"ck/f": {byte(n)}})
		trees = append(trees, tree)
		if _, err := r.Push(t.Context(), s, tree, PushOptions{}); err != nil {
			t.Fatal(err)
		}
		info := WorkInfo{RefInfo: RefInfo{Tree: tree, Bytes: 1, Files: 1, Run: "train-1"}, Attempt: n + 1, Checkpoint: "ck/f", Changed: time.Unix(int64(n), 0).UTC()}
		if err := r.PublishWork(t.Context(), key, info); err != nil {
			t.Fatal(err)
		}
		got, err := r.Work(t.Context(), key)
		if err != nil || got.Tree != tree || got.Attempt != n+1 || got.Checkpoint != "ck/f" || !got.Changed.Equal(info.Changed) || got.Run != "train-1" {
			t.Errorf("%+v, %v; want %+v", got, err, info)
		}
	}
	if _, err := r.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	for n, tree := range trees {
		_, err := r.Recipe(t.Context(), tree)
		if gone := errors.Is(err, cas.ErrNotFound); gone != (n == 0) {
			t.Errorf("after a collection, snapshot %d: %v", n+1, err)
		}
	}
	if err := r.DropWork(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	// A collection gives up those of a key that has a result by now, and no others.
	other := cas.Sum([]byte("other")).String()
	for _, k := range []string{key, other} {
		if err := r.PublishWork(t.Context(), k, WorkInfo{RefInfo: RefInfo{Tree: trees[2], Run: "train-1"}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.PublishResult(t.Context(), key, RefInfo{Tree: trees[2], Run: "train-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Collect(t.Context(), CollectOptions{Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Work(t.Context(), key); err != nil {
		t.Errorf("one that is new: %v", err)
	}
	if _, err := r.Collect(t.Context(), CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Work(t.Context(), other); err != nil {
		t.Errorf("of a run that has not ended: %v", err)
	}
	if _, err := r.Work(t.Context(), key); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("after all were given up: %v", err)
	}
	if _, err := r.Work(t.Context(), "../x"); !errors.Is(err, cas.ErrInvalid) {
		t.Errorf("of no key: %v", err)
	}
}
