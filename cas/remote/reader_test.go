package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// countedBucket notes what is read of a bucket.
type countedBucket struct {
	Bucket
	mu    sync.Mutex
	reads []string
	bytes int64
	hook  func(key string, p []byte) error // after a read
}

func (b *countedBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	n, err := b.Bucket.ReadAt(ctx, key, p, off)
	b.mu.Lock()
	b.reads = append(b.reads, fmt.Sprintf("%s %d+%d", key, off, n))
	b.bytes += int64(n)
	hook := b.hook
	b.mu.Unlock()
	if hook != nil {
		if herr := hook(key, p[:n]); herr != nil {
			return 0, herr
		}
	}
	return n, err
}

// take returns what was read since the last call.
func (b *countedBucket) take() (reads []string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads, n = b.reads, b.bytes
	b.reads, b.bytes = nil, 0
	return reads, n
}

func (b *countedBucket) setHook(hook func(key string, p []byte) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = hook
}

// readsBy makes a store whose remote team is b.
func readsBy(t testing.TB, b Bucket) *cas.Store {
	t.Helper()
	s := newStore(t)
	if err := (Config{Name: "team", URL: "file:///nowhere", Policy: ByHand}).Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	reader := NewReader(s, BucketOptions{})
	reader.open = func(context.Context, string, BucketOptions) (Bucket, error) { return b, nil }
	s.UseRemotes(reader)
	return s
}

// readerOf makes a store that reads the remote in dir, and counts.
func readerOf(t testing.TB, s *cas.Store, dir string) *countedBucket {
	t.Helper()
	if err := (Config{Name: "team", URL: "file://" + dir, Policy: ByHand}).Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	counted := &countedBucket{Bucket: OpenDir(dir)}
	r := NewReader(s, BucketOptions{})
	r.open = func(context.Context, string, BucketOptions) (Bucket, error) { return counted, nil }
	s.UseRemotes(r)
	t.Cleanup(func() {
		s.Close()
		r.Close()
	})
	return counted
}

// again opens the store as another process does.
func reopen(t testing.TB, s *cas.Store) *cas.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := cas.Open(t.Context(), s.Dir(), cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pushed makes a remote that has a tree of these files.
func pushed(t testing.TB, files map[string][]byte) (a *cas.Store, dir string, tree cas.Digest) {
	t.Helper()
	a, dir = newStore(t), t.TempDir()
	r := newRemote(t, OpenDir(dir))
	tree = addFiles(t, a, files)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	return a, dir, tree
}

// someFiles are files of all sizes.
func someFiles() map[string][]byte {
	files := map[string][]byte{
		"empty": nil, "small": []byte("hello\n"), "deep/a/b/c/d/e/f": []byte("deep"),
		"larger": randomBytes(2, 19<<20+123), "text": bytes.Repeat([]byte("the same again and again "), 100_000),
		"border/at": randomBytes(3, cas.MinOutboard), "border/above": randomBytes(4, cas.MinOutboard+1),
	}
	for i := range 30 {
		files[fmt.Sprintf("wide/file-%05d-%0200d.txt", i, i)] = randomBytes(uint64(100+i), 100+i%3000)
	}
	return files
}

// goThrough opens all of a tree by its names.
func goThrough(t testing.TB, s *cas.Store, tree cas.Digest) {
	t.Helper()
	err := s.Walk(t.Context(), tree, func(path string, e cas.Entry) error {
		if !e.IsRegular() {
			return nil
		}
		b, err := readBlob(t.Context(), s, e.Digest)
		if err == nil && cas.Sum(b) != e.Digest {
			err = fmt.Errorf("%s: wrong bytes", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAdopt: a tree of which nothing is here is named, pinned and read as any
// other, also when the remote is gone again.
func TestAdopt(t *testing.T) {
	t.Parallel()
	files := someFiles()
	a, dir, tree := pushed(t, files)
	b := newStore(t)
	counted := readerOf(t, b, dir)

	if _, err := b.Adopt(t.Context(), "team", cas.Sum([]byte("another"))); err == nil {
		t.Error("a tree that the remote does not have was taken over")
	}
	if err := b.SetRef(t.Context(), cas.Ref{Name: "stage/x", Tree: tree}); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a tree that nobody knows was named: %v", err)
	}
	counted.take()
	added, err := b.Adopt(t.Context(), "team", tree)
	if err != nil {
		t.Fatal(err)
	}
	reads, n := counted.take()
	if len(reads) > 3 || n > 256<<10 {
		t.Errorf("%d bytes by %q", n, reads)
	}
	c := newStore(t)
	counted2 := readerOf(t, c, dir)
	rc, err := newRemote(t, OpenDir(dir)).ResultRecipe(t.Context(), tree)
	if err == nil {
		err = rc.Keep(t.Context(), c, "team")
	}
	if err == nil {
		var again *cas.Added
		if again, err = c.Adopt(t.Context(), "team", tree); err == nil {
			again.Release()
		}
	}
	if reads, _ := counted2.take(); err != nil || len(reads) > 0 {
		t.Errorf("what was known was asked for again: %q, %v", reads, err)
	}
	if added.Files != int64(len(files)) || added.Bytes == 0 || b.HasTree(tree) || !b.HasLazyTree(tree) {
		t.Errorf("taken over: %+v", added)
	}
	if err := b.SetRef(t.Context(), cas.Ref{Name: "stage/x", Tree: tree}); err != nil {
		t.Fatal(err)
	}
	added.Release()
	pin, err := b.Pin(t.Context(), "a run", tree)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()

	e, err := b.Lookup(t.Context(), tree, "deep/a/b/c/d/e/f")
	if err != nil || e.Digest != cas.Sum([]byte("deep")) {
		t.Errorf("look-up: %+v, %v", e, err)
	}
	if _, err := b.Lookup(t.Context(), tree, "deep/none"); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("look-up of nothing: %v", err)
	}
	goThrough(t, b, tree)
	sameTree(t, tree, a, b)
	counted.take()

	// What came stays: without the remote, in a process of its own, after a
	// collection.
	b = reopen(t, b)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	counted = readerOf(t, b, dir)
	if _, err := b.Collect(t.Context(), cas.CollectOptions{PartialAge: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	goThrough(t, b, tree)
	sameTree(t, tree, a, b)
	if reads, _ := counted.take(); len(reads) > 0 {
		t.Errorf("the remote was asked for %q", reads)
	}

	if d, isTree, err := b.ResolvePrefix(t.Context(), tree.String()[:12]); err != nil || !isTree || d != tree {
		t.Errorf("by its prefix: %v %v %v", d, isTree, err)
	}
	if u, err := b.Usage(t.Context(), tree); err != nil || u.Own < 20<<20 {
		t.Errorf("usage: %+v, %v", u, err)
	}

	// When nothing needs it any more it goes, with all that came of it.
	if err := b.DeleteRef(t.Context(), "stage/x"); err != nil {
		t.Fatal(err)
	}
	pin.Release()
	rep, err := b.Collect(t.Context(), cas.CollectOptions{PartialAge: time.Nanosecond})
	if err != nil || rep.KeptBlobs != 0 || b.HasLazyTree(tree) {
		t.Errorf("collected: %+v, %v", rep, err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Dir(), "lazy", "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestComplete brings all of a tree of which some was read.
func TestComplete(t *testing.T) {
	t.Parallel()
	a, dir, tree := pushed(t, someFiles())
	b := newStore(t)
	counted := readerOf(t, b, dir)
	added, err := b.Adopt(t.Context(), "team", tree)
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	e, err := b.Lookup(t.Context(), tree, "larger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readBlob(t.Context(), b, e.Digest); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := b.Checkout(t.Context(), tree, out, cas.CheckoutOptions{}); err != nil {
		t.Fatal(err)
	}
	if have, err := os.ReadFile(filepath.Join(out, "text")); err != nil || !bytes.Equal(have, someFiles()["text"]) {
		t.Errorf("checked out: %v", err)
	}
	if !b.HasTree(tree) {
		t.Error("it is not whole after a checkout")
	}
	counted.take()
	var told int
	whole, err := b.Complete(t.Context(), tree, func(_, _, _, _ int64) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Release()
	if reads, _ := counted.take(); len(reads) > 0 || whole.Files != added.Files || whole.Bytes != added.Bytes {
		t.Errorf("completed again: %+v, by %q", whole, reads)
	}
	sameTree(t, tree, a, b)
	if _, err := b.Collect(t.Context(), cas.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if b.HasLazyTree(tree) {
		t.Error("a whole tree is still called lazy after a collection")
	}
	sameTree(t, tree, a, b)
}

// open opens a file of a lazy tree.
func openLazy(t testing.TB, s *cas.Store, tree cas.Digest, path ...string) *cas.LazyFile {
	t.Helper()
	lt, err := s.OpenTreeOf(t.Context(), "team", tree)
	if err != nil {
		t.Fatal(err)
	}
	e, err := lt.Root(t.Context())
	for _, name := range path {
		if err == nil {
			e, err = lt.Lookup(t.Context(), e, name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := lt.OpenFile(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestLazyFirstByte: little traffic leads to a byte, wherever it is.
func TestLazyFirstByte(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{}
	for i := range 800 {
		files[longName(i)] = randomBytes(uint64(i), 300)
	}
	files["large"] = randomBytes(7, 40<<20)
	_, dir, tree := pushed(t, files)
	for _, name := range []string{longName(357), "large"} {
		for _, off := range []int64{0, 300, 33 << 20} {
			want := files[name]
			if off >= int64(len(want)) {
				continue
			}
			b := newStore(t)
			counted := readerOf(t, b, dir)
			f := openLazy(t, b, tree, name)
			got := make([]byte, 1)
			if _, err := f.Reader().ReadAt(t.Context(), got, off); err != nil || got[0] != want[off] {
				t.Fatalf("%s at %d: %v", name, off, err)
			}
			// The pages of a range's chunks, and the chunks, are asked for together.
			reads, n := counted.take()
			t.Logf("%.9s at %d: %d requests, %d bytes", name, off, len(reads), n)
			if n > 256<<10 || len(reads) > 9 {
				t.Errorf("%s at %d: %d bytes by %q", name, off, n, reads)
			}
		}
	}
}

// TestLazyReadAhead: a reader in order is read ahead of more and more, one that
// jumps about gets little more than he asks for.
func TestLazyReadAhead(t *testing.T) {
	t.Parallel()
	data := randomBytes(8, 96<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data})
	b := newStore(t)
	counted := readerOf(t, b, dir)
	f := openLazy(t, b, tree, "f")
	r := f.Reader()
	buf := make([]byte, 4096)
	var asked int64
	for i := range 64 {
		off := int64(i*37%64)<<20 + int64(i)*5000
		if _, err := r.ReadAt(t.Context(), buf, off); err != nil || !bytes.Equal(buf, data[off:off+4096]) {
			t.Fatal(err)
		}
		asked += 4096
	}
	_, n := counted.take()
	t.Logf("random: %d bytes for %d", n, asked)
	if n > 64*(80<<10) {
		t.Errorf("random reads of %d bytes fetched %d", asked, n)
	}

	// Records of a MiB here and there, each in parts: as much again comes ahead,
	// and half as much.
	b = newStore(t)
	counted = readerOf(t, b, dir)
	f = openLazy(t, b, tree, "f")
	buf = make([]byte, 128<<10)
	r = f.Reader()
	records := 0
	for off := int64(91 << 20); off > 0; off -= 13 << 20 {
		for at := off; at < off+1<<20; at += int64(len(buf)) {
			if _, err := r.ReadAt(t.Context(), buf, at); err != nil || !bytes.Equal(buf, data[at:at+int64(len(buf))]) {
				t.Fatal(err)
			}
		}
		records++
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, n = counted.take()
	t.Logf("records: %d bytes for %d", n, records<<20)
	if n > int64(records)*(5<<19)+512<<10 {
		t.Errorf("%d records of a MiB fetched %d bytes", records, n)
	}

	b = newStore(t)
	counted = readerOf(t, b, dir)
	f = openLazy(t, b, tree, "f")
	readThrough(t, f, data)
	reads, n := counted.take()
	t.Logf("in order: %d bytes by %d requests", n, len(reads))
	// 8 MiB a request in the midst of it; the first ones are small.
	if len(reads) > 96/8+20 || n > int64(len(data))+1<<20 {
		t.Errorf("in order: %d bytes by %d requests", n, len(reads))
	}
}

// TestLazyOnce: what many ask for is fetched once.
func TestLazyOnce(t *testing.T) {
	t.Parallel()
	data := randomBytes(9, 20<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data, "small": data[:5000]})
	for _, name := range []string{"f", "small"} {
		alone := 0
		for _, readers := range []int{1, 20} {
			b := newStore(t)
			counted := readerOf(t, b, dir)
			f := openLazy(t, b, tree, name)
			var begun, wg sync.WaitGroup
			begun.Add(readers)
			counted.setHook(func(string, []byte) error { begun.Wait(); return nil }) // all are there before the first is answered
			for range readers {
				wg.Go(func() {
					buf := make([]byte, 5000)
					begun.Done()
					if n, err := f.Reader().ReadAt(t.Context(), buf, 0); n != 5000 || err != nil || !bytes.Equal(buf, data[:5000]) {
						t.Errorf("%d %v", n, err)
					}
				})
			}
			wg.Wait()
			reads, _ := counted.take()
			if readers == 1 {
				alone = len(reads)
			} else if len(reads) != alone {
				t.Errorf("%s: %d readers made %d requests, one made %d: %q", name, readers, len(reads), alone, reads)
			}
		}
	}
}

// damage flips a bit of a file, or cuts it off.
func damage(t testing.TB, path string, n int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n%3 == 2 {
		b = b[:len(b)/2]
	} else {
		b[(n*7919+11)%len(b)] ^= 1 << (n % 8)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// longName is a name that no recipe can make much shorter.
func longName(i int) string { return fmt.Sprintf("%x", randomBytes(uint64(i), 100)) }

// TestLazyRenewed: where the chunks lie may change when a tree is pushed again
// after a collection. What was kept of before leads nowhere, and is read anew.
func TestLazyRenewed(t *testing.T) {
	t.Parallel()
	data := randomBytes(1, 12<<20)
	files := map[string][]byte{"f": data, "small": []byte("hello")}
	a, dir, tree := pushed(t, files)
	s := newStore(t)
	readerOf(t, s, dir)
	f := openLazy(t, s, tree, "f")
	buf := make([]byte, 1000)
	if _, err := f.Reader().ReadAt(t.Context(), buf, 0); err != nil {
		t.Fatal(err)
	}
	for _, room := range []string{"packs", "recipes"} {
		if err := os.RemoveAll(filepath.Join(dir, room)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Reader().ReadAt(t.Context(), buf, 5<<20); !errors.Is(err, ErrGone) || errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of a tree that is gone: %v", err)
	}
	// Now its chunks lie in packs with others.
	files["another"] = randomBytes(2, 3<<20)
	r := newRemote(t, OpenDir(dir))
	other := addFiles(t, a, files)
	for _, push := range []struct {
		tree  cas.Digest
		bases []cas.Digest
	}{{other, nil}, {tree, []cas.Digest{other}}} {
		if _, err := r.Push(t.Context(), a, push.tree, PushOptions{Bases: push.bases}); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	readerOf(t, s, dir)
	f = openLazy(t, s, tree, "f")
	for _, off := range []int64{7 << 20, 0, 11 << 20} {
		if _, err := f.Reader().ReadAt(t.Context(), buf, off); err != nil || !bytes.Equal(buf, data[off:off+1000]) {
			t.Fatalf("at %d: %v", off, err)
		}
	}
	if _, err := openLazy(t, s, tree, "small").Reader().ReadAt(t.Context(), buf[:5], 0); err != nil || string(buf[:5]) != "hello" {
		t.Errorf("small: %v", err)
	}
}

// TestAdoptDir: a directory of a lazy tree is one by itself, for who needs no
// more.
func TestAdoptDir(t *testing.T) {
	t.Parallel()
	weights := randomBytes(1, 3<<20)
	a, dir, tree := pushed(t, map[string][]byte{"out/model/weights": weights, "out/model/sub/small": []byte("hello"), "out/huge": randomBytes(2, 9<<20)})
	s := newStore(t)
	counted := readerOf(t, s, dir)
	added, err := s.Adopt(t.Context(), "team", tree)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Lookup(t.Context(), tree, "out/model")
	if err != nil {
		t.Fatal(err)
	}
	counted.take()
	model, err := s.AdoptDir(t.Context(), e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if reads, _ := counted.take(); len(reads) > 0 || model.Bytes != int64(len(weights))+5 {
		t.Errorf("%+v took %q", model, reads)
	}
	if _, err := s.AdoptDir(t.Context(), cas.Sum([]byte("never met"))); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("of none that was met: %v", err)
	}
	if err := s.SetRef(t.Context(), cas.Ref{Name: "x/model", Tree: e.Digest}); err != nil {
		t.Fatal(err)
	}
	model.Release()
	added.Release()
	// The tree that it lies in may go from here.
	if _, err := s.Collect(t.Context(), cas.CollectOptions{PartialAge: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	if s.HasLazyTree(tree) || !s.HasLazyTree(e.Digest) {
		t.Error("the wrong one was collected")
	}
	s = reopen(t, s)
	counted = readerOf(t, s, dir)
	lt, err := s.OpenLazyTree(t.Context(), e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	root, err := lt.Root(t.Context())
	if err == nil {
		root, err = lt.Lookup(t.Context(), root, "weights")
	}
	if err != nil || root.Digest != cas.Sum(weights) {
		t.Errorf("weights: %+v, %v", root, err)
	}
	goThrough(t, s, e.Digest)
	counted.take()
	whole, err := s.Complete(t.Context(), e.Digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Release()
	if _, n := counted.take(); n > 1<<20 || whole.Files != 2 || !s.HasTree(e.Digest) || s.HasTree(tree) {
		t.Errorf("completed: %+v, by %d bytes", whole, n)
	}
	sameTree(t, e.Digest, a, s)
}
