package cas

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fileCount counts the regular files below one of the store's directories.
func fileCount(t *testing.T, s *Store, room string) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.Dir(), room), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCollectKeepsWhatIsNamed(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	named := putFiles(t, s, map[string]string{"a": "version", "sub/b": "shared"})
	tagged := putFiles(t, s, map[string]string{"a": "old version"})
	reffed := putFiles(t, s, map[string]string{"a": "result"})
	pinned := putFiles(t, s, map[string]string{"a": "pinned"})
	expired := putFiles(t, s, map[string]string{"a": "expired", "sub/b": "shared", "deep/c": "only here"})
	putFiles(t, s, map[string]string{"a": "nobody's", "x/y": "nobody's either"})
	putBlob(t, s, "loose")

	for _, d := range []Digest{tagged, named} {
		if _, _, err := s.Publish(ctx, "data", d, PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, d := range map[string]Digest{"stage/k": reffed, "run/old": expired, "run/treeless": {}} {
		if err := s.SetRef(ctx, Ref{Name: name, Tree: d}); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-60 * 24 * time.Hour)
	if err := os.Chtimes(s.refPath("run/old"), old, old); err != nil {
		t.Fatal(err)
	}
	pin, err := s.Pin(ctx, "test", pinned)
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(ctx, expired)
	if err != nil {
		t.Fatal(err)
	}
	o := CollectOptions{DryRun: true, Expire: func(r Ref, used time.Time) bool {
		return strings.HasPrefix(r.Name, "run/") && time.Since(used) > 30*24*time.Hour
	}}
	dry, err := s.Collect(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if n := fileCount(t, s, "blobs"); n != 10 {
		t.Errorf("%d blobs after a dry run, want 10", n)
	}
	o.DryRun = false
	r, err := s.Collect(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if dry != r {
		t.Errorf("the dry run said %+v, then %+v was removed", dry, r)
	}
	if r.RemovedBlobs != 5 || r.KeptBlobs != 5 || r.RemovedRefs != 1 {
		t.Errorf("got %+v", r)
	}
	if n := fileCount(t, s, "blobs"); n != 5 {
		t.Errorf("%d blobs are left, want 5", n)
	}
	for _, d := range []Digest{named, tagged, reffed, pinned} {
		if err := s.Walk(ctx, d, func(path string, e Entry) error {
			if e.IsRegular() && !s.HasBlob(e.Digest) {
				t.Errorf("%s of a tree that is needed is gone", path)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Ref(ctx, "run/old"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the expired ref: %v", err)
	}
	if _, err := os.Stat(view); !os.IsNotExist(err) {
		t.Errorf("the view of a tree that is gone: %v", err)
	}
	if err := pin.Release(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(ctx, CollectOptions{}); err != nil || r.RemovedBlobs != 1 {
		t.Errorf("after the pin ended: %+v, %v", r, err)
	}
	if _, err := s.Pin(ctx, "too late", pinned); !errors.Is(err, ErrNotFound) {
		t.Errorf("pinning what is gone: %v", err)
	}
}

func TestCollectStopsAtWhatItCannotRead(t *testing.T) {
	ctx := t.Context()
	for name, damage := range map[string]func(t *testing.T, s *Store, tree Digest) string{
		"tree": func(t *testing.T, s *Store, tree Digest) string {
			overwrite(t, s.treePath(tree), "nonsense")
			return s.treePath(tree)
		},
		"version": func(t *testing.T, s *Store, tree Digest) string {
			overwrite(t, s.versionPath("data", 1), "{")
			return s.versionPath("data", 1)
		},
		"ref": func(t *testing.T, s *Store, tree Digest) string {
			if err := s.SetRef(ctx, Ref{Name: "run/x"}); err != nil {
				t.Fatal(err)
			}
			overwrite(t, s.refPath("run/x"), "[]")
			return s.refPath("run/x")
		},
		"place": func(t *testing.T, s *Store, tree Digest) string {
			key := strings.Repeat("5", 64)
			if err := s.Place(key).SetState(ctx, PlaceState{Run: "r"}); err != nil {
				t.Fatal(err)
			}
			overwrite(t, filepath.Join(s.Place(key).Dir(), "state.json"), "")
			return s.Place(key).Dir()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t)
			tree := putFiles(t, s, map[string]string{"a": "1"})
			if _, _, err := s.Publish(ctx, "data", tree, PublishOptions{}); err != nil {
				t.Fatal(err)
			}
			putBlob(t, s, "loose")
			path := damage(t, s, tree)
			r, err := s.Collect(ctx, CollectOptions{})
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Errorf("want an error that names %s, have %v", path, err)
			}
			if n := fileCount(t, s, "blobs"); n != 2 || r.RemovedBlobs != 0 {
				t.Errorf("%d of 2 blobs are left, the report says %+v", n, r)
			}
		})
	}
}

// overwrite replaces the bytes of a file of any mode.
func overwrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCollectPlaces(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	input := putFiles(t, s, map[string]string{"a": "input"})
	result := putFiles(t, s, map[string]string{"a": "result"})
	key := func(c string) string { return strings.Repeat(c, 64) }
	age := func(p *Place) {
		old := time.Now().Add(-20 * 24 * time.Hour)
		filepath.WalkDir(p.Dir(), func(path string, e os.DirEntry, err error) error {
			return os.Chtimes(path, old, old)
		})
	}
	makePlace := func(c string, st PlaceState) *Place {
		p := s.Place(key(c))
		if err := p.SetState(ctx, st); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(p.Dir(), "work/ckpt"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.Dir(), "work/ckpt/last.pt"), make([]byte, 1000), 0o644); err != nil {
			t.Fatal(err)
		}
		age(p)
		return p
	}
	done := makePlace("a", PlaceState{Result: result, Inputs: map[string]Digest{"d": input}})
	running := makePlace("b", PlaceState{Active: true, Inputs: map[string]Digest{"d": input}})
	crashed := makePlace("c", PlaceState{Active: true})
	fresh := makePlace("d", PlaceState{Active: true})
	if err := os.WriteFile(filepath.Join(fresh.Dir(), "work/ckpt/new.pt"), []byte("checkpoint of today"), 0o644); err != nil {
		t.Fatal(err)
	}
	rested := makePlace("e", PlaceState{Result: result})
	now := time.Now()
	if err := os.Chtimes(filepath.Join(rested.Dir(), "state.json"), now, now); err != nil {
		t.Fatal(err)
	}
	lock, err := s.Lock(ctx, KeyLock(key("b")), "run b", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()

	o := CollectOptions{PlaceAge: 14 * 24 * time.Hour, DryRun: true}
	dry, err := s.Collect(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	o.DryRun = false
	r, err := s.Collect(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if dry != r || r.RemovedPlaces != 2 {
		t.Errorf("dry run %+v, then %+v; want 2 places", dry, r)
	}
	for _, p := range []struct {
		*Place
		stays bool
	}{{done, false}, {running, true}, {crashed, false}, {fresh, true}, {rested, true}} {
		if _, err := os.Stat(filepath.Join(p.Dir(), "work/ckpt/last.pt")); (err == nil) != p.stays {
			t.Errorf("place %s: stays %v, %v", p.key[:1], p.stays, err)
		}
	}
	if !s.HasTree(input) {
		t.Error("the input of a running stage is gone")
	}
	if s.HasTree(result) {
		t.Error("a result that was withdrawn is still there")
	}
	if st, err := rested.State(ctx); err != nil || !st.Result.IsZero() {
		t.Errorf("the place of the withdrawn result still names it: %+v, %v", st, err)
	}
}

func TestCollectRemovesOldLocks(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	old := time.Now().Add(-20 * 24 * time.Hour)
	lock := func(c string) (*Lock, string) {
		l, err := s.Lock(ctx, KeyLock(strings.Repeat(c, 64)), "me", nil)
		if err != nil {
			t.Fatal(err)
		}
		return l, l.File().Name()
	}
	free, freePath := lock("a")
	free.Release()
	held, heldPath := lock("b")
	defer held.Release()
	young, youngPath := lock("c")
	young.Release()
	for _, path := range []string{freePath, heldPath} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Collect(ctx, CollectOptions{PlaceAge: 14 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{freePath: false, heldPath: true, youngPath: true} {
		if _, err := os.Stat(path); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %v", path, err, stays)
		}
	}
}

// What a member of the group makes another can use, whatever the umask.
func TestSharedStoreSmallFiles(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"), Options{Create: true, Group: strconv.Itoa(os.Getgid())})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	tree := mixedTree(t, s)
	if _, _, err := s.Publish(ctx, "x", tree, PublishOptions{Tag: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRef(ctx, Ref{Name: "part/a/b", Tree: tree}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.View(ctx, tree); err != nil {
		t.Fatal(err)
	}
	p := s.Place(strings.Repeat("0", 64))
	if err := p.SetState(ctx, PlaceState{}); err != nil {
		t.Fatal(err)
	}
	if err := p.SetSealing(ctx, true); err != nil {
		t.Fatal(err)
	}
	lock, err := s.Lock(ctx, "key/x", "me", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	pin, err := s.Pin(ctx, "me", tree)
	if err != nil {
		t.Fatal(err)
	}
	defer pin.Release()
	reg, err := s.RegisterMount(ctx, Mount{Dir: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	use, err := s.Use(ctx, liveMount(t, s, reg.ID()))
	if err != nil {
		t.Fatal(err)
	}
	defer use.Close()
	for _, room := range []string{"refs", "locks", "pins", "mounts", "at", "views"} {
		filepath.WalkDir(filepath.Join(s.Dir(), room), func(path string, e os.DirEntry, err error) error {
			if err != nil {
				t.Error(err)
				return nil
			}
			fi, err := e.Info()
			switch {
			case err != nil:
				t.Error(err)
			case e.IsDir() && fi.Mode()&(os.ModeSetgid|0o777) != os.ModeSetgid|0o770:
				t.Errorf("%s is %v", path, fi.Mode())
			case e.Type().IsRegular() && room != "views" && fi.Mode().Perm() != 0o660:
				t.Errorf("%s is %v", path, fi.Mode())
			}
			return nil
		})
	}
}

// What a run stored by AddTree is there until it is named, whatever is
// collected meanwhile.
func TestAddTreeOutlivesACollection(t *testing.T) {
	s, ctx := newTestStore(t), t.Context()
	tree := &Tree{Entries: []Entry{{Name: "a", Kind: KindFile, Size: 1, Digest: putBlob(t, s, "a")}}}
	added, err := s.AddTree(ctx, tree)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(ctx, CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRef(ctx, Ref{Name: "run/x", Tree: added.Tree}); err != nil {
		t.Errorf("it was collected: %v", err)
	}
	added.Release()
	if err := s.DeleteRef(ctx, "run/x"); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(ctx, CollectOptions{}); err != nil || r.RemovedTrees != 1 {
		t.Errorf("after its release: %+v, %v", r, err)
	}
}

// What is being written is not left over, however old a clock that jumped makes
// it look.
func TestCollectionLeavesWhatIsBeingWritten(t *testing.T) {
	s := newTestStore(t)
	file, err := s.stage()
	if err != nil {
		t.Fatal(err)
	}
	view := filepath.Join(s.Dir(), "views", tempView+"0123")
	if err := s.makeDirs(view); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(view)
	if err != nil {
		t.Fatal(err)
	}
	if err := flock(dir, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	collect := func() (left int) {
		t.Helper()
		old := time.Now().Add(-48 * time.Hour)
		for _, path := range []string{file.Name(), view} {
			_ = os.Chtimes(path, old, old)
		}
		if _, err := s.Collect(t.Context(), CollectOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file.Name(), view} {
			if _, err := os.Lstat(path); err == nil {
				left++
			}
		}
		return left
	}
	if n := collect(); n != 2 {
		t.Errorf("%d of 2 are left while they are written", n)
	}
	file.Close()
	dir.Close()
	if n := collect(); n != 0 {
		t.Errorf("%d are left that nobody writes", n)
	}
}
