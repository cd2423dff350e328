//go:build linux

package fusefs_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// far is a remote in a directory that a mount reaches by a helper program, as
// it does object stores: this test's own, which notes what it is asked and
// fails as it is told. It is told by files beside the directory:
//
//	log    what was asked: begins and ends, a line each
//	slow   each answer takes 30 ms
//	hang   no answer to what lies in packs, until it is gone
//	stall  no answer to anything, until it is gone
//	flip   a bit of what lies in packs is wrong
//	away   the remote does not answer
type far struct {
	dir  string
	tree cas.Digest
	have *cas.Store // where it came from
}

// farHelper makes this test binary such a helper.
const farHelper = "CURI_FUSEFS_FAR"

func serveFar() error {
	return remote.Serve(context.Background(), os.Stdin, os.Stdout, func(_ context.Context, text string) (remote.Bucket, error) {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		b := &farBucket{Bucket: remote.OpenDir(u.Path), dir: u.Path}
		b.note("open")
		return b, nil
	})
}

type farBucket struct {
	remote.Bucket
	dir string
	mu  sync.Mutex
	n   int
}

func (b *farBucket) told(what string) bool {
	_, err := os.Lstat(b.dir + "." + what)
	return err == nil
}

func (b *farBucket) note(format string, args ...any) {
	f, err := os.OpenFile(b.dir+".log", os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err == nil {
		fmt.Fprintf(f, format+"\n", args...)
		f.Close()
	}
}

func (b *farBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	b.mu.Lock()
	b.n++
	n := b.n
	b.note("begin %d %s %d+%d", n, key, off, len(p))
	b.mu.Unlock()
	if b.told("slow") {
		time.Sleep(30 * time.Millisecond)
	}
	pack := strings.HasPrefix(key, "packs/")
	for pack && b.told("hang") || b.told("stall") {
		select {
		case <-ctx.Done():
			b.note("gone %d", n)
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	if b.told("away") {
		b.note("away %d", n)
		return 0, fmt.Errorf("told to be away: %w", remote.ErrAway)
	}
	got, err := b.Bucket.ReadAt(ctx, key, p, off)
	if pack && got > 0 && b.told("flip") {
		p[got/2] ^= 4
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note("end %d %d", n, got)
	return got, err
}

// newFar makes a remote that has these files as the artifact "model".
func newFar(t *testing.T, files map[string]string) *far {
	t.Helper()
	f := &far{dir: filepath.Join(t.TempDir(), "far"), have: newStore(t)}
	v := publish(t, f.have, "model", files)
	f.tree = v.Tree
	f.push(t, v)
	return f
}

func (f *far) open(t *testing.T) *remote.Remote {
	t.Helper()
	r, err := remote.Open(t.Context(), remote.OpenDir(f.dir), remote.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (f *far) push(t *testing.T, v cas.Version) {
	t.Helper()
	r := f.open(t)
	defer r.Close()
	p, err := r.Push(t.Context(), f.have, v.Tree, remote.PushOptions{})
	if err == nil {
		_, _, err = r.Publish(t.Context(), v.Name, remote.RefInfo{Tree: v.Tree, Bytes: p.Bytes, Files: p.Files})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// store makes a store that knows the remote as "team", and its names.
func (f *far) store(t *testing.T) *cas.Store {
	t.Helper()
	s := newStore(t)
	f.knownTo(t, s, "s3://far"+f.dir)
	return s
}

func (f *far) knownTo(t *testing.T, s *cas.Store, url string) {
	t.Helper()
	if err := (remote.Config{Name: "team", URL: url, Policy: remote.ByHand}).Save(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f.pull(t, s)
}

// pull takes the names of the remote, as curi pull does.
func (f *far) pull(t *testing.T, s *cas.Store) {
	t.Helper()
	r := f.open(t)
	defer r.Close()
	if _, err := r.See(t.Context(), s, "team"); err != nil {
		t.Fatal(err)
	}
}

// tell begins or ends a fault.
func (f *far) tell(t *testing.T, what string, begin bool) {
	t.Helper()
	var err error
	if begin {
		err = os.WriteFile(f.dir+"."+what, nil, 0o666)
	} else {
		err = os.Remove(f.dir + "." + what)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// asked is what was asked of a remote.
type asked struct {
	requests, opened int
	bytes            int64
	depth            int // the longest chain of requests of which each waited for the one before
	keys             []string
}

// asked returns what was asked since the last call.
func (f *far) asked(t *testing.T) asked {
	t.Helper()
	b, err := os.ReadFile(f.dir + ".log")
	if os.IsNotExist(err) {
		return asked{}
	}
	if err == nil {
		err = os.Truncate(f.dir+".log", 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	var a asked
	depth, done := map[string]int{}, 0
	for line := range strings.Lines(string(b)) {
		w := strings.Fields(line)
		switch w[0] {
		case "open":
			a.opened++
		case "begin":
			a.requests++
			a.keys = append(a.keys, strings.Join(w[2:], " "))
			depth[w[1]] = done + 1
			a.depth = max(a.depth, done+1)
		case "end", "away", "gone":
			done = max(done, depth[w[1]])
			if w[0] == "end" {
				n, _ := strconv.ParseInt(w[2], 10, 64)
				a.bytes += n
			}
		}
	}
	return a
}

// underWay counts the requests that wait for an answer.
func (f *far) underWay(t *testing.T) int {
	t.Helper()
	b, _ := os.ReadFile(f.dir + ".log")
	return strings.Count(string(b), "begin ") - strings.Count(string(b), "end ") - strings.Count(string(b), "gone ") - strings.Count(string(b), "away ")
}
