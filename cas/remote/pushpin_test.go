package remote

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/curi-store/curi/cas"
)

// TestPushBesideRemoval removes what is being pushed, and lets a collection
// run: the push has it until it ends.
func TestPushBesideRemoval(t *testing.T) {
	t.Parallel()
	s, file, data := newStore(t), filepath.Join(t.TempDir(), "f"), randomBytes(1, 3<<20)
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	a, err := s.AddPath(t.Context(), file, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := s.Publish(t.Context(), "model", a.Tree, cas.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.Release()
	collect := func() {
		if err := s.RemoveVersions(t.Context(), "model", []int{v.N}); err != nil {
			t.Error(err)
		}
		if _, err := s.Collect(t.Context(), cas.CollectOptions{}); err != nil {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	newRemote(t, OpenDir(dir))
	counted := &countedBucket{Bucket: OpenDir(dir)}
	r := newRemote(t, counted)
	var once sync.Once
	counted.setHook(func(string, []byte) error { once.Do(collect); return nil })
	if _, err := r.Push(t.Context(), s, a.Tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), cas.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.HasTree(a.Tree) || s.HasBlob(cas.Sum(data)) {
		t.Error("what was removed stays after the push")
	}
	other := newStore(t)
	added, err := r.Pull(t.Context(), other, a.Tree, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	b, err := other.OpenBlob(t.Context(), cas.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(b); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes came, %v", got.Len(), err)
	}
}
