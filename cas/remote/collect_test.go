package remote

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// makeOld makes all objects of a directory look as if they were written two
// hours ago.
func makeOld(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-2 * time.Hour)
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(p, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func collect(t *testing.T, r *Remote, grace time.Duration) Collected {
	t.Helper()
	c, err := r.Collect(context.WithoutCancel(t.Context()), CollectOptions{Grace: grace})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func publish(t *testing.T, r *Remote, s *cas.Store, name string, tree cas.Digest) Version {
	t.Helper()
	p, err := r.Push(t.Context(), s, tree, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := r.Publish(t.Context(), name, RefInfo{Tree: tree, Bytes: p.Bytes, Files: p.Files})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// wantWhole pulls a tree into a new store, and checks the remote.
func wantWhole(t *testing.T, r *Remote, a *cas.Store, tree cas.Digest) {
	t.Helper()
	s := newStore(t)
	added, err := r.Pull(t.Context(), s, tree, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	added.Release()
	sameTree(t, tree, a, s)
	c, err := r.Check(t.Context(), CheckOptions{Read: true})
	if err != nil || len(c.Bad) > 0 {
		t.Fatalf("check: %+v %v", c, err)
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "bucket")
	s := newStore(t)
	r := newRemote(t, OpenDir(dir))
	keep := addFiles(t, s, map[string][]byte{"a": randomBytes(1, 3<<20), "both": []byte("x")})
	drop := addFiles(t, s, map[string][]byte{"a": randomBytes(2, 3<<20), "both": []byte("x")})
	publish(t, r, s, "keep", keep)
	v := publish(t, r, s, "drop", drop)
	if err := r.Remove(t.Context(), "drop", v.N); err != nil {
		t.Fatal(err)
	}
	if c := collect(t, r, time.Hour); c.Listed != 0 || c.Kept != 4 {
		t.Errorf("what is young was listed: %+v", c)
	}
	makeOld(t, dir)
	if c, err := r.Collect(t.Context(), CollectOptions{Grace: time.Hour, DryRun: true}); err != nil || c.Listed != 2 || c.ListedBytes < 3<<20 {
		t.Errorf("dry: %+v %v", c, err)
	}
	for range 2 { // the second call waits
		if c := collect(t, r, time.Hour); c.Listed != 2 || c.Removed != 0 || c.Due.Before(time.Now().Add(30*time.Minute)) {
			t.Errorf("open: %+v", c)
		}
	}
	wantWhole(t, r, s, drop) // readers have the time until then
	makeOld(t, dir)
	if c := collect(t, r, time.Hour); c.Listed != 0 || c.Removed != 2 || c.RemovedBytes < 3<<20 {
		t.Errorf("sweep: %+v", c)
	}
	wantWhole(t, r, s, keep)
	if _, err := r.Recipe(t.Context(), drop); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	publish(t, r, s, "drop", drop)
	wantWhole(t, r, s, drop)
	// At once, where nobody pushes; many rounds are not remembered.
	for range roundsKept + 3 {
		v := publish(t, r, s, "drop", drop)
		if err := r.Remove(t.Context(), "drop", v.N); err != nil {
			t.Fatal(err)
		}
		if c := collect(t, r, 0); c.Removed != 2 || c.Listed != 0 {
			t.Fatalf("at once: %+v", c)
		}
	}
	if rounds, err := r.rounds(t.Context()); err != nil || len(rounds) > roundsKept {
		t.Errorf("%d rounds are remembered: %v", len(rounds), err)
	}
	wantWhole(t, r, s, keep)
}

// hookBucket calls hook before the request with the number at.
type hookBucket struct {
	Bucket
	at, n int
	hook  func()
}

func (b *hookBucket) count() {
	if b.n++; b.n == b.at {
		b.hook()
	}
}

func (b *hookBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	b.count()
	return b.Bucket.ReadAt(ctx, key, p, off)
}

func (b *hookBucket) Stat(ctx context.Context, key string) (Object, error) {
	b.count()
	return b.Bucket.Stat(ctx, key)
}

func (b *hookBucket) Put(ctx context.Context, key string, data []byte) error {
	b.count()
	return b.Bucket.Put(ctx, key, data)
}

func (b *hookBucket) PutNew(ctx context.Context, key string, data []byte) error {
	b.count()
	return b.Bucket.PutNew(ctx, key, data)
}

// TestCollectBesidePush lets a collection happen at every step of a push that
// needs what the collection takes: of the same tree, of one that shares chunks
// with it. The push ends whole, or says that it is to be repeated, and is
// whole then.
func TestCollectBesidePush(t *testing.T) {
	t.Parallel()
	large := randomBytes(1, 3<<20)
	s := newStore(t)
	same := addFiles(t, s, map[string][]byte{"a": large})
	shares := addFiles(t, s, map[string][]byte{"a": large, "b": []byte("new")})
	for _, c := range []struct {
		name   string
		before bool // the round is opened before the push, and closed at the step; else opened at the step, closed after the push
		again  cas.Digest
	}{{"close, same tree", true, same}, {"close, shared chunks", true, shares}, {"open, same tree", false, same}, {"open, shared chunks", false, shares}} {
		t.Run(c.name, func(t *testing.T) {
			busy, ended := 0, false
			for at := 1; !ended; at++ {
				dir := filepath.Join(t.TempDir(), "bucket")
				r := newRemote(t, OpenDir(dir))
				v := publish(t, r, s, "m", same)
				if err := r.Remove(t.Context(), "m", v.N); err != nil {
					t.Fatal(err)
				}
				makeOld(t, dir)
				ripen := func() {
					for n := 1; n < 4; n++ {
						p := filepath.Join(dir, roundKey(n, "list"))
						_ = os.Chtimes(p, time.Time{}, time.Now().Add(-2*time.Hour))
					}
				}
				if c.before {
					collect(t, r, time.Hour)
					ripen()
				}
				h := &hookBucket{Bucket: OpenDir(dir), at: at, hook: func() { collect(t, r, time.Hour) }}
				_, err := newRemote(t, h).Push(t.Context(), s, c.again, PushOptions{Bases: []cas.Digest{same}})
				ended = h.n < at
				if err != nil {
					if !errors.Is(err, cas.ErrBusy) {
						t.Fatalf("at request %d: %v", at, err)
					}
					busy++
				}
				if !c.before {
					ripen()
					collect(t, r, time.Hour)
				}
				publish(t, r, s, "m", c.again)
				ripen()
				collect(t, r, time.Hour)
				wantWhole(t, r, s, c.again)
			}
			t.Logf("%d pushes were told to repeat", busy)
			if c.before && busy == 0 {
				t.Error("no push met a collection that removes")
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "bucket")
	s := newStore(t)
	r := newRemote(t, OpenDir(dir))
	one := addFiles(t, s, map[string][]byte{"a": randomBytes(1, 3<<20)})
	two := addFiles(t, s, map[string][]byte{"a": randomBytes(2, 2<<20)})
	publish(t, r, s, "one", one)
	publish(t, r, s, "two", two)
	pack := func(tree cas.Digest) string {
		rc, err := r.Recipe(t.Context(), tree)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := rc.rows(t.Context(), 0, rc.head.stream)
		if err != nil {
			t.Fatal(err)
		}
		return packKey(rows[0].pack)
	}
	damage := func(key string, change func([]byte) []byte) {
		b, err := os.ReadFile(filepath.Join(dir, key))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.b.Put(t.Context(), key, change(b)); err != nil {
			t.Fatal(err)
		}
	}
	flipped := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for _, c := range []struct {
		name   string
		read   bool
		damage func() string
	}{
		{"pack flipped", true, func() string { k := pack(one); damage(k, flipped); return k }},
		{"pack cut", false, func() string { k := pack(one); damage(k, func(b []byte) []byte { return b[:len(b)-9] }); return k }},
		{"pack missing", false, func() string { k := pack(one); r.b.Delete(t.Context(), k); return k }},
		{"recipe flipped", false, func() string { k := recipeKey(one); damage(k, flipped); return k }},
		{"recipe missing", false, func() string { k := recipeKey(one); r.b.Delete(t.Context(), k); return k }},
	} {
		key := c.damage()
		for _, repair := range []bool{false, true} {
			rep, err := r.Check(t.Context(), CheckOptions{Read: c.read, Repair: repair})
			if err != nil || len(rep.Bad) != 1 || rep.Bad[0].Object != key || len(rep.Bad[0].UsedBy) != 1 || rep.Bad[0].UsedBy[0] != "one@1" || rep.Bad[0].Removed != repair {
				t.Errorf("%s: %+v %v", c.name, rep, err)
			}
		}
		if _, err := r.Push(t.Context(), s, one, PushOptions{}); err != nil {
			t.Errorf("%s: push again: %v", c.name, err)
		}
		wantWhole(t, r, s, one)
		wantWhole(t, r, s, two)
	}
	damage("refs/artifact/two/0000000001", flipped)
	if _, err := r.Check(t.Context(), CheckOptions{}); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("a ref that is damaged: %v", err)
	}
	if _, err := r.Collect(t.Context(), CollectOptions{}); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("collected beside a ref that cannot be read: %v", err)
	}
}

// TestCollectDied pushes beside a collection that was killed while it removed:
// nothing is built on what it may still take, and the next one ends its work.
func TestCollectDied(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "bucket")
	s := newStore(t)
	r := newRemote(t, OpenDir(dir))
	large := randomBytes(1, 3<<20)
	old := addFiles(t, s, map[string][]byte{"a": large})
	v := publish(t, r, s, "m", old)
	if err := r.Remove(t.Context(), "m", v.N); err != nil {
		t.Fatal(err)
	}
	makeOld(t, dir)
	collect(t, r, time.Hour)
	if err := r.decide(t.Context(), 1, fateSweep); err != nil {
		t.Fatal(err)
	}
	fresh := addFiles(t, s, map[string][]byte{"a": large, "b": []byte("new")})
	p, err := r.Push(t.Context(), s, fresh, PushOptions{Bases: []cas.Digest{old}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Publish(t.Context(), "m", RefInfo{Tree: fresh, Bytes: p.Bytes, Files: p.Files}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Push(t.Context(), s, old, PushOptions{}); !errors.Is(err, cas.ErrBusy) {
		t.Errorf("a push of what goes: %v", err)
	}
	if c := collect(t, r, time.Hour); c.Removed != 2 {
		t.Errorf("the next collection: %+v", c)
	}
	wantWhole(t, r, s, fresh)
	publish(t, r, s, "old", old)
	wantWhole(t, r, s, old)
}

// TestCollectUnreadable: what a needed recipe needs is not known where that
// cannot be read, so nothing is removed.
func TestCollectUnreadable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	s := newStore(t)
	r := newRemote(t, OpenDir(dir))
	keep := addFiles(t, s, map[string][]byte{"a": randomBytes(1, 3<<20)})
	publish(t, r, s, "keep", keep)
	good, err := os.ReadFile(filepath.Join(dir, recipeKey(keep)))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{20, 70, len(good) - 5} { // the fixed part, the head, the last chunk page
		bad := append([]byte(nil), good...)
		bad[at] ^= 1
		if err := r.b.Put(t.Context(), recipeKey(keep), bad); err != nil {
			t.Fatal(err)
		}
		makeOld(t, dir)
		if c, err := r.Collect(t.Context(), CollectOptions{}); !errors.Is(err, cas.ErrCorrupt) || c.Removed != 0 {
			t.Errorf("byte %d: %+v, %v", at, c, err)
		}
	}
	if err := r.b.Put(t.Context(), recipeKey(keep), good); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, r, s, keep)
}
