package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// lazyReads reads at random from several goroutines, and reports every wrong
// byte; it counts the reads that failed.
func lazyReads(t *testing.T, s *cas.Store, tree cas.Digest, files map[string][]byte, each int) (failed int64) {
	t.Helper()
	var bad atomic.Int64
	var wg sync.WaitGroup
	for name, want := range files {
		lt, err := s.OpenTreeOf(t.Context(), "team", tree)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			root, err := lt.Root(t.Context())
			var e cas.LazyEntry
			if err == nil {
				e, err = lt.Lookup(t.Context(), root, name)
			}
			if err != nil {
				if errors.Is(err, cas.ErrNotFound) {
					t.Errorf("%s was not found: %v", name, err)
				}
				bad.Add(1)
				return
			}
			f, err := lt.OpenFile(t.Context(), e)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			var readers sync.WaitGroup
			for k := range 3 {
				readers.Go(func() {
					random, r := rand.New(rand.NewPCG(uint64(k), 1)), f.Reader()
					for range each {
						off := random.IntN(len(want))
						b := make([]byte, 1+random.IntN(100_000))
						n, err := r.ReadAt(t.Context(), b, int64(off))
						switch {
						case err != nil && err != io.EOF:
							bad.Add(1)
						case n != min(len(b), len(want)-off) || !bytes.Equal(b[:n], want[off:off+n]):
							t.Errorf("%s at %d: %d wrong bytes", name, off, n)
						}
					}
				})
			}
			readers.Wait()
		})
	}
	wg.Wait()
	return bad.Load()
}

// TestLazyFaults reads lazily from a real server while everything goes wrong
// that a network and a server can do: the right bytes, or an error. Once it is
// over, all can be read, and the store is whole.
func TestLazyFaults(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 11)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 6})
	r := newRemote(t, b)
	a := newStore(t)
	files := map[string][]byte{"large": randomBytes(1, 20<<20), "floats": normals(600_000)}
	for i := range 6 {
		files[fmt.Sprintf("f%d", i)] = randomBytes(uint64(1000+i), 10+i*5700)
	}
	tree := addFiles(t, a, files)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	s := readsBy(t, b)
	defer s.Close()
	proxy.hurt(0.5, allFaults...)
	failed := lazyReads(t, s, tree, files, 12)
	proxy.hurt(0)
	t.Logf("%d reads failed", failed)
	for _, f := range []string{"flip answer", "cut", "503", "drop before"} {
		if proxy.count(f) == 0 {
			t.Errorf("nothing met %q", f)
		}
	}
	// A remote that was away is asked again after a while.
	var added *cas.Added
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if added, err = s.Complete(t.Context(), tree, nil); err == nil {
			break
		}
		if !errors.Is(err, ErrAway) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	defer added.Release()
	sameTree(t, tree, a, s)
}

// TestLazyDamageHere: what is kept of a remote may be damaged as any file. What
// is read is right all the same, or an error.
func TestLazyDamageHere(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{"large": randomBytes(1, 3<<20), "dir/small": []byte("hello")}
	for i := range 800 {
		files["wide/"+longName(i)] = []byte{byte(i), byte(i >> 8)}
	}
	a, dir, tree := pushed(t, files)
	s := newStore(t)
	counted := readerOf(t, s, dir)
	walk := func() {
		t.Helper()
		n := 0
		err := s.Walk(t.Context(), tree, func(path string, e cas.Entry) error {
			if e.IsRegular() {
				n++
				if e.Digest != cas.Sum(files[path]) {
					return fmt.Errorf("%s is another", path)
				}
			}
			return nil
		})
		if err != nil || n != len(files) {
			t.Fatalf("after %d files: %v", n, err)
		}
	}
	if _, err := s.KeepPages(t.Context(), "team", tree); err != nil {
		t.Fatal(err)
	}
	walk()
	if reads, _ := counted.take(); len(reads) > 4 {
		t.Errorf("going through a directory of 800 long names took %q", reads)
	}
	pages, err := filepath.Glob(filepath.Join(s.Dir(), "lazy", "*", "*", "p*"))
	if err != nil || len(pages) < 3 {
		t.Fatalf("kept: %q, %v", pages, err)
	}
	for i, p := range pages {
		s = reopen(t, s)
		counted = readerOf(t, s, dir)
		damage(t, p, i)
		walk()
		counted.take()
	}
	s = reopen(t, s)
	counted = readerOf(t, s, dir)
	walk() // what was damaged is right again
	if reads, _ := counted.take(); len(reads) > 0 {
		t.Errorf("asked again: %q", reads)
	}
	added, err := s.Complete(t.Context(), tree, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	sameTree(t, tree, a, s)
}

// TestLazyAway: a remote that is away is asked once in a while, not by each who
// wants something.
func TestLazyAway(t *testing.T) {
	t.Parallel()
	_, dir, tree := pushed(t, map[string][]byte{"f": randomBytes(1, 30<<20)})
	s := newStore(t)
	counted := readerOf(t, s, dir)
	f := openLazy(t, s, tree, "f")
	counted.take()
	counted.setHook(func(string, []byte) error { return fmt.Errorf("told so: %w", ErrAway) })
	for i := range 1000 {
		if _, err := f.Reader().ReadAt(t.Context(), make([]byte, 1), int64(i)*20_000); !errors.Is(err, ErrAway) || errors.Is(err, cas.ErrNotFound) {
			t.Fatalf("read %d: %v", i, err)
		}
	}
	if reads, _ := counted.take(); len(reads) == 0 || len(reads) > 40 {
		t.Errorf("1000 reads made %d requests", len(reads))
	}
	counted.setHook(nil)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, err := f.Reader().ReadAt(t.Context(), make([]byte, 1), 9)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestLazyHang reads of a server that takes requests and answers none, or
// begins to: it ends, in an error that names the file and the remote.
func TestLazyHang(t *testing.T) {
	t.Parallel()
	proxy, addr := newFaultProxy(t, s3Server(t), 11)
	b := openS3(t, addr, Patience{Wait: time.Millisecond, Tries: 2})
	r := newRemote(t, b)
	a := newStore(t)
	files := map[string][]byte{"large": randomBytes(1, 2<<20), "small": randomBytes(2, 9000)}
	tree := addFiles(t, a, files)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	patience := &b.(*patient).p
	proper := patience.Timeout
	for _, fault := range []string{"hang", "stall"} {
		for name, data := range files {
			s := readsBy(t, b)
			f := openLazy(t, s, tree, name)
			proxy.hurtOnly("packs/", 1, fault)
			patience.Timeout = 300 * time.Millisecond
			_, err := f.Reader().ReadAt(t.Context(), make([]byte, 10), 5)
			patience.Timeout = proper
			proxy.hurt(0)
			if !errors.Is(err, ErrAway) {
				t.Fatalf("%s of %s: %v", fault, name, err)
			}
			for _, want := range []string{cas.Sum(data).String(), "remote team", "no answer within 300ms", "tried 2 times"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s of %s does not say %q: %v", fault, name, want, err)
				}
			}
		}
		if proxy.count(fault) == 0 {
			t.Errorf("nothing met %q", fault)
		}
	}
}

// TestLazyGivesUp: who gives up does not wait, and takes nothing from others.
func TestLazyGivesUp(t *testing.T) {
	t.Parallel()
	data := randomBytes(1, 3<<20)
	_, dir, tree := pushed(t, map[string][]byte{"f": data})
	s := newStore(t)
	counted := readerOf(t, s, dir)
	f := openLazy(t, s, tree, "f")
	release := make(chan struct{})
	asked := make(chan struct{}, 100)
	counted.setHook(func(string, []byte) error { asked <- struct{}{}; <-release; return nil })
	ctx, cancel := context.WithCancel(t.Context())
	gave, stayed := make(chan error), make(chan error)
	go func() { _, err := f.Reader().ReadAt(ctx, make([]byte, 10), 0); gave <- err }()
	go func() {
		b := make([]byte, 10)
		_, err := f.Reader().ReadAt(t.Context(), b, 0)
		if err == nil && !bytes.Equal(b, data[:10]) {
			err = errors.New("wrong bytes")
		}
		stayed <- err
	}()
	<-asked
	cancel()
	if err := <-gave; !errors.Is(err, context.Canceled) {
		t.Errorf("gave up: %v", err)
	}
	close(release)
	if err := <-stayed; err != nil {
		t.Errorf("stayed: %v", err)
	}
}
