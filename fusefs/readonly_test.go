//go:build linux

package fusefs_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// readOnlyMount has something of everything that a mount shows, and a place
// where programs may write.
type readOnlyMount struct {
	*mounted
	t     *testing.T
	s     *cas.Store
	p     *cas.Place
	state cas.PlaceState // of p
	tree  cas.Digest
	small cas.Digest // a tree of small files
	blob  cas.Digest
	mine  string // the directory where programs may write
}

func newReadOnlyMount(t *testing.T, s *cas.Store, m *mounted) *readOnlyMount {
	t.Helper()
	r := &readOnlyMount{mounted: m, t: t, s: s, p: s.Place(testKey), mine: m.path("at", strings.Repeat("f", 16), "work/a")}
	big := strings.Repeat("x", 100<<10) // more than what is read through the server
	v := publish(t, s, "data", map[string]string{"d/file": big, "d/e/small": "small"}, cas.Attr{Key: "user.curi.type", Value: "M"})
	r.tree, r.blob = v.Tree, cas.Sum([]byte(big))
	r.small = publish(t, s, "many", numbered(200)).Tree
	inputs := map[string]cas.Digest{"set": v.Tree, "many": r.small}
	info, err := json.Marshal(map[string]string{"key": testKey})
	if err != nil {
		t.Fatal(err)
	}
	result, err := resultTree(t, s, v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	for ref, tree := range map[string]cas.Digest{"run/train-000001": {}, "run/train-000000": result} {
		if err := s.SetRef(t.Context(), cas.Ref{Name: ref, Tree: tree, Info: info}); err != nil {
			t.Fatal(err)
		}
	}
	openPlace(t, s, m, testKey, inputs)
	other := openPlace(t, s, m, strings.Repeat("f", 64), nil)
	for _, d := range []string{"out", "work", "logs", "tmp"} {
		if err := os.WriteFile(filepath.Join(r.p.Dir(), d, "a/file"), []byte("kept"), 0o666); err != nil {
			t.Fatal(err)
		}
		chmodAll(t, filepath.Join(r.p.Dir(), d)) // permissions do not stand in the way
	}
	chmodAll(t, filepath.Join(other.Dir(), "work"))
	r.state = cas.PlaceState{Run: "train-000001", Attempt: 1, Result: result, Inputs: inputs}
	if m.info.UID != 0 {
		run(t, "chown", "-R", "65534:65534", s.Dir())
	}
	return r
}

// end ends the run; its result, if it has one, is shown from then on.
func (r *readOnlyMount) end(result cas.Digest) {
	r.t.Helper()
	r.state.Result = result
	setPlace(r.t, r.s, r.p, r.state)
	if r.info.UID != 0 {
		run(r.t, "chown", "-R", "65534:65534", r.s.Dir())
	}
	if r.within != nil {
		run(r.t, append(slices.Clone(r.within), python(r.t), "-c", "import os, sys; os.getxattr(sys.argv[1], 'user.curi.refresh')", r.dir)...)
	}
}

// refuse tries every way to change each of the files, or directories of names,
// and what they are in.
func (r *readOnlyMount) refuse(root bool, by []string, names ...string) {
	r.t.Helper()
	var files []string
	for _, name := range names {
		files = append(files, r.path(name))
	}
	for i, ways := range tryChanges(r.t, r.mine, files, append(slices.Clone(r.within), by...)...) {
		for way, how := range ways {
			if !refused(way, how, root) {
				r.t.Errorf("%s of %s as root %v: %s", way, names[i], root, how)
			}
		}
	}
}

// everything is what no one may ever change.
func (r *readOnlyMount) everything() []string {
	at := "at/" + testKey[:16]
	return []string{
		"artifacts/data/d/file", "artifacts/data@1/d/e/small", "cas/" + r.tree.String() + "/d/file", "cas/" + r.blob.String(), at + "/in/set/d/file",
		"runs/train-000000/out/data/d/file", "runs/train-000000/record.json", "runs/train-000000/log.txt",
		// Directories whose names change, and what is in them.
		"artifacts", "artifacts/data", "cas", "cas/" + r.tree.String(), "remotes", "runs", "runs/train-000000", "runs/train-000000/out",
		"at", at, at + "/in", at + "/in/set",
	}
}

// ended is what may not be changed when a run is over.
func ended() []string {
	at := "at/" + testKey[:16]
	return []string{at + "/work/a/file", at + "/work/a", at + "/out", at + "/work", at + "/logs", at + "/tmp", at + "/logs/a/file", at + "/tmp/a/file", "runs/train-000001/work/a/file", "runs/train-000001/logs/a/file"}
}

// withTrees starts a program that has an input of small files as a run has it,
// by the connection of its own. In a namespace that shares nothing.
const withTrees = `import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def c(n):
    if n < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n
trees, tree, at = sys.argv[1:4]
here, there = os.open('/proc/self/ns/mnt', os.O_RDONLY), os.open(trees, os.O_RDONLY)
c(libc.setns(there, 0x20000))
mount = c(libc.syscall(428, -100, b'/' + tree.encode(), 1)) # open_tree, OPEN_TREE_CLONE
c(libc.setns(here, 0x20000))
c(libc.syscall(429, mount, b'', -100, at.encode(), 4)) # move_mount
os.closerange(3, 99)
os.execvp(sys.argv[4], sys.argv[4:])`

func (r *readOnlyMount) refuseBySmallConnection(root bool, by []string) {
	r.t.Helper()
	if r.info.Trees == "" {
		r.t.Fatal("there is no connection for small files")
	}
	in := "at/" + testKey[:16] + "/in"
	start := []string{"unshare", "-m", python(r.t), "-c", withTrees, r.info.Trees, r.small.String(), r.path(in, "many")}
	devices := strings.Fields(run(r.t, append(slices.Clone(start), "stat", "-c", "%d", r.path(in), r.path(in, "many"))...))
	if len(devices) != 2 || devices[0] == devices[1] {
		r.t.Fatalf("the input is no mount of its own: %v", devices)
	}
	r.refuse(root, append(start, by...), in+"/many/d0/f0002", in+"/many/d1")
}

func (r *readOnlyMount) all(root bool, by []string) {
	r.t.Helper()
	at := "at/" + testKey[:16]
	result := r.state.Result
	r.refuse(root, by, r.everything()...)
	r.end(cas.Digest{}) // it failed: what it wrote is kept
	r.refuse(root, by, append(ended(), at+"/out/a/file")...)
	r.end(result) // it succeeded
	r.refuse(root, by, append(ended(), at+"/out/data/d/file", at+"/out/data")...)
	if st, err := r.s.Verify(r.t.Context(), cas.VerifyOptions{Sample: 1}); err != nil || len(st.Bad) > 0 {
		r.t.Errorf("the store is damaged: %v %v", st, err)
	}
}

func TestNothingStoredCanBeChanged(t *testing.T) {
	s := newStore(t)
	r := newReadOnlyMount(t, s, mount(t, s))
	r.refuseBySmallConnection(true, nil)
	r.all(true, nil)
}

// With allow_other the kernel checks permissions, before it asks.
func TestNothingStoredCanBeChangedByRoot(t *testing.T) {
	s := newStore(t)
	newReadOnlyMount(t, s, mount(t, s, "-o", "allow_other")).all(true, nil)
}

func TestNothingStoredCanBeChangedByAnotherUser(t *testing.T) {
	s := newStore(t)
	r := newReadOnlyMount(t, s, mount(t, s, "-o", "allow_other"))
	r.refuseBySmallConnection(false, asNobody)
	r.all(false, asNobody)
}

func TestNothingStoredCanBeChangedWithoutRoot(t *testing.T) {
	s := newStore(t)
	newReadOnlyMount(t, s, asUserWithFusermount(t, s)).all(false, nil)
}
