package cas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func init() {
	childRoles["add"] = addLoop
	childRoles["gc"] = func(ctx context.Context, s *Store, args []string) error {
		more := stdinOpen()
		for more() {
			if _, err := s.Collect(ctx, CollectOptions{Expire: expireOld}); err != nil {
				return err
			}
		}
		return nil
	}
}

// expireOld expires what addLoop lets go.
func expireOld(r Ref, _ time.Time) bool { return string(r.Info) == `"old"` }

// addLoop adds, names, reads, withdraws and forgets directories that mostly
// hold what others hold too, so that each may find in the store what is just
// being collected.
func addLoop(ctx context.Context, s *Store, args []string) error {
	rounds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for i := range rounds {
		if err := addRound(ctx, s, args[0], fmt.Sprintf("run/%s-%d", args[1], i%4), i/10); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	return nil
}

func addRound(ctx context.Context, s *Store, dir, ref string, age int) error {
	files := map[string]string{}
	for range 6 {
		n := rand.IntN(12)
		files[fmt.Sprintf("sub%d/f%d", n%3, n)] = fmt.Sprintf("content %d of age %d", n, age)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	defer os.RemoveAll(dir)
	added, err := s.AddPath(ctx, dir, AddOptions{})
	if err != nil {
		return err
	}
	info := `"new"`
	if rand.IntN(2) == 0 {
		info = `"old"`
	}
	if err := s.SetRef(ctx, Ref{Name: ref, Tree: added.Tree, Info: []byte(info)}); err != nil {
		return fmt.Errorf("name what is pinned: %w", err)
	}
	if rand.IntN(10) == 0 {
		if _, _, err := s.Publish(ctx, "kept", added.Tree, PublishOptions{}); err != nil {
			return fmt.Errorf("publish what is pinned: %w", err)
		}
	}
	for name, content := range files {
		e, err := s.Lookup(ctx, added.Tree, name)
		if err != nil {
			return err
		}
		if e.Digest != Sum([]byte(content)) || !s.HasBlob(e.Digest) {
			return fmt.Errorf("%s of a pinned tree is not there", name)
		}
	}
	added.Release()
	if rand.IntN(3) == 0 {
		// What was let go may be gone already, or is kept by a pin.
		pin, err := s.Pin(ctx, "a test", added.Tree)
		if err != nil {
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			return err
		}
		defer pin.Release()
		return s.Walk(ctx, added.Tree, func(path string, e Entry) error {
			if e.IsRegular() && !s.HasBlob(e.Digest) {
				return fmt.Errorf("%s of a pinned tree is gone", path)
			}
			return nil
		})
	}
	return nil
}

func TestCollectBesideAdds(t *testing.T) {
	s := newTestStore(t)
	work := t.TempDir()
	gc := startChild(t, "gc", s, nil)
	var cs []*child
	for _, name := range []string{"a", "b", "c"} {
		cs = append(cs, startChild(t, "add", s, nil, filepath.Join(work, name), name, "40"))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, c := range cs {
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("a child that adds: %v", err)
			}
		}
	}()
	removed := int64(0)
	for running := true; running; {
		r, err := s.Collect(t.Context(), CollectOptions{Expire: expireOld})
		if err != nil {
			t.Fatal(err)
		}
		removed += r.RemovedBlobs
		select {
		case <-done:
			running = false
		default:
		}
	}
	gc.rest()
	if removed == 0 {
		t.Error("nothing was collected beside the adds")
	}
	r, err := s.Verify(t.Context(), VerifyOptions{})
	if err != nil || len(r.Bad) != 0 {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
	vs, err := s.Versions(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vs {
		if err := s.Walk(t.Context(), v.Tree, func(path string, e Entry) error { return nil }); err != nil {
			t.Errorf("version %d: %v", v.N, err)
		}
	}
	if n := fileCount(t, s, "pins"); n != 0 {
		t.Errorf("%d pins are left", n)
	}
}
