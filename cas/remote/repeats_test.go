package remote

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// TestTreeOfRepeats has a tree of sixty directories, of which each names the
// next one twice, from a remote: nothing goes through all of its paths.
func TestTreeOfRepeats(t *testing.T) {
	t.Parallel()
	a := newStore(t)
	tree := addFiles(t, a, map[string][]byte{"f": []byte("x")})
	const levels = 60
	for i := range levels {
		dir := func(name string) cas.Entry {
			return cas.Entry{Name: name, Kind: cas.KindDir, Digest: tree, Size: int64(1) << i}
		}
		added, err := a.AddTree(t.Context(), &cas.Tree{Entries: []cas.Entry{dir("a"), dir("b")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(added.Release)
		tree = added.Tree
	}
	dir := t.TempDir()
	r := newRemote(t, OpenDir(dir))
	s := newStore(t)
	readerOf(t, s, dir)
	// It ends, or is at 2^60 paths for longer than any machine takes for this.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := r.Push(ctx, a, tree, PushOptions{})
	must("push", err)
	_, err = r.Check(ctx, CheckOptions{Read: true})
	must("check the remote", err)
	_, err = s.Adopt(ctx, "team", tree)
	must("adopt", err)
	added, err := r.Pull(ctx, s, tree, PullOptions{})
	must("pull", err)
	defer added.Release()
	_, err = s.Usage(ctx, tree)
	must("usage", err)
	_, err = s.Verify(ctx, cas.VerifyOptions{})
	must("verify", err)
	_, err = s.Collect(ctx, cas.CollectOptions{})
	must("collect", err)
	n := 0
	if err := s.Walk(ctx, tree, func(string, cas.Entry) error { n++; return nil }); !errors.Is(err, cas.ErrInvalid) {
		t.Errorf("walk: %v after %d entries", err, n)
	}
	whole, err := s.Complete(ctx, tree, nil)
	if err != nil || whole.Files != 1<<levels {
		t.Fatalf("complete: %+v, %v", whole, err)
	}
	whole.Release()
	if err := ctx.Err(); err != nil {
		t.Error(err)
	}
}
