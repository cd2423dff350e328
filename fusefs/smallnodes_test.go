//go:build linux

package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func internalStore(t *testing.T) *cas.Store {
	t.Helper()
	s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func storedFile(t *testing.T, s *cas.Store, name, content string) cas.Entry {
	t.Helper()
	a, err := s.AddReader(t.Context(), strings.NewReader(content), name, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cas.Entry{Name: name, Kind: cas.KindFile, Size: int64(len(content)), Digest: a.Digest}
}

// storedDir stores a tree and returns it as the entry called name.
func storedDir(t *testing.T, s *cas.Store, name string, entries ...cas.Entry) cas.Entry {
	t.Helper()
	tree := &cas.Tree{Entries: entries}
	tree.Sort()
	d, err := s.PutTree(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	return cas.Entry{Name: name, Kind: cas.KindDir, Size: tree.Bytes(), Digest: d}
}

func TestWhatATreeOfSmallFilesIs(t *testing.T) {
	for _, c := range []struct {
		shape treeShape
		want  bool
	}{
		{treeShape{files: smallTreeFiles, bytes: 1000, largest: 100}, true},
		{treeShape{files: smallTreeFiles - 1, bytes: 1000, largest: 100}, false},
		{treeShape{files: 1000, bytes: 1000 * smallTreeMean, largest: smallTreeLargest}, true},
		{treeShape{files: 1000, bytes: 1000*smallTreeMean + 1, largest: smallTreeLargest}, false},
		{treeShape{files: 1000, bytes: 1000 * smallTreeMean, largest: smallTreeLargest + 1}, false},
		{treeShape{files: 1000, widest: maxEntries + 1}, false},
		{treeShape{}, false},
	} {
		if got := c.shape.small(); got != c.want {
			t.Errorf("%+v: have %v", c.shape, got)
		}
	}
}

// Directories that hold the same ones again are counted as often as they show,
// and looked at once: this one would show more files than there are atoms.
func TestShapeOfATreeThatHoldsItselfOften(t *testing.T) {
	s := internalStore(t)
	dir := storedDir(t, s, "a", storedFile(t, s, "f", "x"), storedFile(t, s, "g", "yy"))
	trees := &smallTrees{store: s}
	for depth := range 200 {
		sh, err := trees.shape(t.Context(), dir.Digest, map[cas.Digest]treeShape{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(2) << depth; depth < 30 && (sh.files != want || sh.bytes != 3*want/2 || sh.largest != 2) {
			t.Fatalf("depth %d: have %+v", depth, sh)
		}
		if sh.files < 0 || sh.bytes < 0 {
			t.Fatalf("depth %d: %+v ran over", depth, sh)
		}
		b := dir
		b.Name = "b"
		b.Size, dir.Size = 0, 0 // their sum would run over, and nothing relies on it
		dir = storedDir(t, s, "a", dir, b)
	}
}

// served is a filesystem as the connection for small files sees it.
func served(t *testing.T, s *cas.Store) *smallNodes {
	t.Helper()
	f, err := newFilesystem(s, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return newSmallNodes(f)
}

func (n *smallNodes) find(t *testing.T, dir uint64, name string) fuse.EntryOut {
	t.Helper()
	var out fuse.EntryOut
	if st := n.Lookup(nil, &fuse.InHeader{NodeId: dir}, name, &out); st != fuse.OK {
		t.Fatalf("look up %s: %v", name, st)
	}
	return out
}

// manySmall is a tree of small files in three directories, two of them equal.
func manySmall(t *testing.T, s *cas.Store) cas.Entry {
	t.Helper()
	var files []cas.Entry
	for i := range 60 {
		files = append(files, storedFile(t, s, fmt.Sprintf("f%02d", i), fmt.Sprint("content ", i)))
	}
	one := storedDir(t, s, "one", files...)
	two := one
	two.Name = "two"
	return storedDir(t, s, "", one, two, cas.Entry{Name: "link", Kind: cas.KindSymlink, Target: "one/f00"})
}

// What the kernel forgets is forgotten, and what it knows is not.
func TestNothingIsKeptOfWhatTheKernelForgot(t *testing.T) {
	s := internalStore(t)
	n, tree := served(t, s), manySmall(t, s)
	known := map[uint64]uint64{} // node → look-ups
	for range 2 {
		top := n.find(t, fuse.FUSE_ROOT_ID, tree.Digest.String())
		known[top.NodeId]++
		for _, dir := range []string{"one", "two"} {
			d := n.find(t, top.NodeId, dir)
			known[d.NodeId]++
			for i := range 60 {
				f := n.find(t, d.NodeId, fmt.Sprintf("f%02d", i))
				known[f.NodeId]++
			}
		}
		known[n.find(t, top.NodeId, "link").NodeId]++
	}
	if len(known) != 1+2+120+1 {
		t.Errorf("%d nodes", len(known))
	}
	if len(n.dirs) != 3 || len(n.roots) != 1 {
		t.Errorf("%d directories and %d roots are kept", len(n.dirs), len(n.roots))
	}
	for _, id := range slices.Sorted(maps.Keys(known)) { // parents first
		n.Forget(id, known[id]-1)
	}
	if len(n.dirs) != 3 {
		t.Errorf("%d of 3 directories are kept though known", len(n.dirs))
	}
	for id := range known {
		n.Forget(id, 1)
	}
	if len(n.dirs)+len(n.roots) != 0 {
		t.Errorf("%d directories and %d roots are kept though forgotten", len(n.dirs), len(n.roots))
	}
	var out fuse.AttrOut
	for id := range known {
		if st := n.GetAttr(nil, &fuse.GetAttrIn{InHeader: fuse.InHeader{NodeId: id}}, &out); st != fuse.Status(syscall.ESTALE) {
			t.Errorf("a node that was forgotten: %v", st)
		}
	}
}

// Programs that walk, read and are forgotten again at the same time get what is
// there, and leave nothing.
func TestSmallFilesInParallel(t *testing.T) {
	s := internalStore(t)
	n, tree := served(t, s), manySmall(t, s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				var top, d, f fuse.EntryOut
				if st := n.Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, tree.Digest.String(), &top); st != fuse.OK {
					t.Errorf("the tree: %v", st)
					return
				}
				if st := n.Lookup(nil, &fuse.InHeader{NodeId: top.NodeId}, "two", &d); st != fuse.OK {
					t.Errorf("two: %v", st)
				}
				names := 0
				n.list(d.NodeId, 0, func(fuse.DirEntry, smallNode) bool { names++; return true })
				if st := n.Lookup(nil, &fuse.InHeader{NodeId: d.NodeId}, "f07", &f); st != fuse.OK || names != 62 {
					t.Errorf("two/f07: %v; %d names", st, names)
				}
				buf := make([]byte, 100)
				r, st := n.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: f.NodeId}, Size: 100}, buf)
				if st != fuse.OK {
					t.Errorf("read: %v", st)
				} else if b, _ := r.Bytes(buf); string(b) != "content 7" {
					t.Errorf("read %q", b)
				}
				for _, id := range []uint64{f.NodeId, d.NodeId, top.NodeId} {
					n.Forget(id, 1)
				}
			}
		})
	}
	wg.Wait()
	if len(n.dirs)+len(n.roots) != 0 {
		t.Errorf("%d directories and %d roots are kept", len(n.dirs), len(n.roots))
	}
}

// Programs see the same inode number each time, and no two of a tree share one.
func TestInodeNumbersOfSmallFiles(t *testing.T) {
	s := internalStore(t)
	tree := manySmall(t, s)
	numbers := func() map[string]uint64 {
		n := served(t, s)
		got := map[string]uint64{}
		var walk func(id uint64, path string)
		walk = func(id uint64, path string) {
			n.list(id, 2, func(e fuse.DirEntry, node smallNode) bool {
				out := n.find(t, id, e.Name)
				if out.Ino != e.Ino {
					t.Errorf("%s/%s is %d when listed and %d when looked at", path, e.Name, e.Ino, out.Ino)
				}
				got[path+"/"+e.Name] = out.Ino
				if e.Mode == syscall.S_IFDIR {
					walk(out.NodeId, path+"/"+e.Name)
				}
				return true
			})
		}
		walk(n.find(t, fuse.FUSE_ROOT_ID, tree.Digest.String()).NodeId, "")
		return got
	}
	got := numbers()
	if again := numbers(); !maps.Equal(got, again) || len(got) != 123 {
		t.Errorf("have %d, and others when they are looked at again", len(got))
	}
	seen := map[uint64]string{}
	for path, ino := range got {
		if other, ok := seen[ino]; ok {
			t.Errorf("%s and %s are both %d", path, other, ino)
		}
		seen[ino] = path
	}
}

func TestOnlyTreesOfSmallFilesAreShown(t *testing.T) {
	s := internalStore(t)
	n := served(t, s)
	few := storedDir(t, s, "", storedFile(t, s, "f", "x"))
	for name, want := range map[string]syscall.Errno{
		few.Digest.String():              syscall.ENOENT,
		cas.Sum([]byte("none")).String(): syscall.ENOENT,
		"artifacts":                      syscall.ENOENT,
		manySmall(t, s).Digest.String():  0,
	} {
		var out fuse.EntryOut
		if st := n.Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, name, &out); !errors.Is(syscall.Errno(st), want) {
			t.Errorf("%s: %v", name, st)
		}
		if out.EntryValid != 0 {
			t.Errorf("%s: the kernel may keep the answer", name)
		}
	}
}

func TestTreeThatWasCollectedIsNotShown(t *testing.T) {
	s := internalStore(t)
	n, tree := served(t, s), manySmall(t, s)
	n.find(t, fuse.FUSE_ROOT_ID, tree.Digest.String())
	d := tree.Digest.String()
	if err := os.Remove(filepath.Join(s.Dir(), "trees", d[:2], d)); err != nil {
		t.Fatal(err)
	}
	var out fuse.EntryOut
	if st := n.Lookup(nil, &fuse.InHeader{NodeId: fuse.FUSE_ROOT_ID}, d, &out); st != fuse.ENOENT {
		t.Errorf("have %v", st)
	}
}
