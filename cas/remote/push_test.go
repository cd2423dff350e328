package remote

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/curi-store/curi/cas"
)

func newStore(t testing.TB) *cas.Store {
	t.Helper()
	s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newRemote(t testing.TB, b Bucket) *Remote {
	t.Helper()
	r, err := Open(t.Context(), b, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// randomBytes yields n bytes that do not compress, the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// addFiles stores a directory of these files and returns its tree.
func addFiles(t testing.TB, s *cas.Store, files map[string][]byte) cas.Digest {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	for name, b := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	a, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Release)
	return a.Tree
}

// wideFiles is how many files the widest directory of mixedFiles has.
const wideFiles = 1000

// mixedFiles is a tree of all that is special: empty, small, equal, large and
// very large files, numbers, deep and wide directories.
func mixedFiles() map[string][]byte {
	files := map[string][]byte{
		"empty":              nil,
		"small":              []byte("hello\n"),
		"same/as/small":      []byte("hello\n"),
		"deep/a/b/c/d/e/f":   []byte("deep"),
		"large":              randomBytes(1, 3<<20),
		"larger":             randomBytes(2, 19<<20+123),
		"text":               bytes.Repeat([]byte("the same again and again "), 200_000),
		"floats":             normals(400_000),
		"just/at/the/border": randomBytes(3, cas.MinOutboard),
		"just/above/it":      randomBytes(4, cas.MinOutboard+1),
	}
	for i := range wideFiles {
		files[fmt.Sprintf("wide/file-%05d.txt", i)] = randomBytes(uint64(100+i), 100+i%3000)
	}
	return files
}

func normals(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, 4*n)
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(r.NormFloat64())))
	}
	return b
}

// sameTree compares what two stores have of a tree, byte for byte, and looks
// whether the second is sound.
func sameTree(t testing.TB, tree cas.Digest, a, b *cas.Store) {
	t.Helper()
	n := 0
	err := a.Walk(t.Context(), tree, func(path string, e cas.Entry) error {
		if !e.IsRegular() {
			return nil
		}
		n++
		have, err := readBlob(t.Context(), b, e.Digest)
		if err != nil {
			return err
		}
		want, err := readBlob(t.Context(), a, e.Digest)
		if err == nil && !bytes.Equal(have, want) {
			err = fmt.Errorf("%s: the bytes differ", path)
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("after %d files: %v", n, err)
	}
	rep, err := b.Verify(t.Context(), cas.VerifyOptions{})
	if err != nil || len(rep.Bad) > 0 {
		t.Fatalf("verify %s: %v %v", b.Dir(), rep.Bad, err)
	}
}

func readBlob(ctx context.Context, s *cas.Store, d cas.Digest) ([]byte, error) {
	f, err := s.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.Size())
	_, err = f.ReadAt(b, 0)
	if len(b) == 0 {
		err = nil
	}
	return b, err
}

func TestPushPull(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "bucket")
	a, b := newStore(t), newStore(t)
	r := newRemote(t, OpenDir(dir))
	tree := addFiles(t, a, mixedFiles())
	p, err := r.Push(t.Context(), a, tree, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", p)
	if !p.New || p.Files != wideFiles+10 {
		t.Errorf("pushed %+v", p)
	}
	again, err := r.Push(t.Context(), a, tree, PushOptions{})
	if err != nil || again.New || again.Sent != 0 {
		t.Errorf("pushed again: %+v, %v", again, err)
	}
	got, err := r.Pull(t.Context(), b, tree, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Release()
	if got.Tree != tree || got.Bytes != p.Bytes || got.Files != p.Files {
		t.Errorf("pulled %+v, pushed %+v", got, p)
	}
	sameTree(t, tree, a, b)
	n := 0
	filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { n++; return nil })
	if n > 20 {
		t.Errorf("the bucket has %d files and directories: as many as there are files or chunks?", n)
	}
}

// TestLookup finds single files by the recipe alone.
func TestLookup(t *testing.T) {
	t.Parallel()
	a := newStore(t)
	r := newRemote(t, OpenDir(t.TempDir()))
	files := mixedFiles()
	tree := addFiles(t, a, files)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); err != nil {
		t.Fatal(err)
	}
	rc, err := r.Recipe(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := rc.Lookup(t.Context(), rc.Root(), "wide")
	if err != nil {
		t.Fatal(err)
	}
	if wide.place.length <= treePageSize {
		t.Fatalf("the wide directory has only %d bytes", wide.place.length)
	}
	for i := range wideFiles {
		name := fmt.Sprintf("file-%05d.txt", i)
		n, err := rc.Lookup(t.Context(), wide, name)
		if err != nil {
			t.Fatal(err)
		}
		if n.Digest != cas.Sum(files["wide/"+name]) {
			t.Fatalf("%s is %s", name, n.Digest)
		}
	}
	for _, name := range []string{"a", "file-00000.txt0", "file-01234.tx", "zzz"} {
		if n, err := rc.Lookup(t.Context(), wide, name); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s: %v, %v", name, n, err)
		}
	}
}

// changed is data of which share was changed in place, in runs of 1 MiB.
func changed(data []byte, share float64) []byte {
	b := bytes.Clone(data)
	const run = 1 << 20
	n := int(float64(len(b)) * share / run)
	for i := range n {
		at := i * (len(b) / n)
		copy(b[at:at+run], randomBytes(uint64(1000+i), run))
	}
	return b
}

// TestPushChanged: of a checkpoint that changed a little, little is sent.
func TestPushChanged(t *testing.T) {
	t.Parallel()
	a := newStore(t)
	data := randomBytes(11, 48<<20)
	for _, c := range []struct {
		name string
		next []byte
		most float64
	}{
		{"10 % in place", changed(data, 0.10), 0.15},
		{"1,000 bytes in front", append(randomBytes(12, 1000), data...), 0.02},
		{"the same under another name", data, 0.001},
	} {
		r := newRemote(t, OpenDir(t.TempDir()))
		first := addFiles(t, a, map[string][]byte{"model.ckpt": data})
		one, err := r.Push(t.Context(), a, first, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if one.Sent < int64(len(data)) {
			t.Fatalf("%s: the first push sent %d bytes", c.name, one.Sent)
		}
		second := addFiles(t, a, map[string][]byte{"renamed/model.ckpt": c.next})
		two, err := r.Push(t.Context(), a, second, PushOptions{Bases: []cas.Digest{first}})
		if err != nil {
			t.Fatal(err)
		}
		share := float64(two.Sent) / float64(len(data))
		t.Logf("%s: %.4f", c.name, share)
		if share > c.most {
			t.Errorf("%s: the second push sent %.3f of the bytes, want %.3f", c.name, share, c.most)
		}
		b := newStore(t)
		got, err := r.Pull(t.Context(), b, second, PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		got.Release()
		sameTree(t, second, a, b)
	}
}

// cutBucket fails every write after some; "killed" there.
type cutBucket struct {
	Bucket
	left atomic.Int64
}

var errCut = errors.New("cut off")

func (b *cutBucket) Put(ctx context.Context, key string, data []byte) error {
	if b.left.Add(-1) < 0 {
		return errCut
	}
	return b.Bucket.Put(ctx, key, data)
}

// TestPushResumes: what a push sent that was cut off is not sent again.
func TestPushResumes(t *testing.T) {
	t.Parallel()
	a := newStore(t)
	tree := addFiles(t, a, map[string][]byte{"big": randomBytes(21, 150<<20), "small": []byte("x")})
	dir := t.TempDir()
	cut := &cutBucket{Bucket: OpenDir(dir)}
	r := newRemote(t, cut)
	cut.left.Store(1)
	if _, err := r.Push(t.Context(), a, tree, PushOptions{}); !errors.Is(err, errCut) {
		t.Fatalf("cut off: %v", err)
	}
	if _, err := r.Recipe(t.Context(), tree); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a push that was cut off left a recipe: %v", err)
	}
	cut.left.Store(1000)
	p, err := r.Push(t.Context(), a, tree, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Sent > 90<<20 {
		t.Errorf("sent %d bytes again", p.Sent)
	}
	b := newStore(t)
	got, err := r.Pull(t.Context(), b, tree, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got.Release()
	sameTree(t, tree, a, b)
}
