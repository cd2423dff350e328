package cas

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() { childRoles["member"] = memberOfTheStore }

// memberOfTheStore does all that a user of a store does, with a umask that
// lets nobody else in: args are the directory of files to add and a name.
func memberOfTheStore(ctx context.Context, s *Store, args []string) error {
	syscall.Umask(0o077)
	dir, me := args[0], args[1]
	added, err := s.AddPath(ctx, dir, AddOptions{})
	if err != nil {
		return err
	}
	if _, _, err := s.Publish(ctx, "shared", added.Tree, PublishOptions{Tag: "newest"}); err != nil {
		return err
	}
	for _, name := range []string{"run/same", "stage/" + me} {
		if err := s.SetRef(ctx, Ref{Name: name, Tree: added.Tree}); err != nil {
			return err
		}
		if err := s.TouchRef(ctx, name); err != nil {
			return err
		}
	}
	added.Release()
	if _, err := s.View(ctx, added.Tree); err != nil {
		return err
	}
	lock, err := s.Lock(ctx, KeyLock(strings.Repeat("a", 64)), me, nil)
	if err != nil {
		return err
	}
	place := s.Place(strings.Repeat("a", 64))
	if err := place.SetState(ctx, PlaceState{Result: added.Tree}); err != nil {
		return err
	}
	if err := place.SetSealing(ctx, true); err != nil {
		return err
	}
	// What the other user's run wrote.
	out := filepath.Join(place.Dir(), "out-"+me)
	if err := s.mkdir(out); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "model"), []byte("trained by "+me), 0o600); err != nil {
		return err
	}
	sealed, err := s.Seal(ctx, out, SealOptions{})
	if err != nil {
		return err
	}
	if err := s.SetRef(ctx, Ref{Name: "part/x/" + me, Tree: sealed.Tree}); err != nil {
		return err
	}
	sealed.Release()
	if err := lock.Release(); err != nil {
		return err
	}
	if vs, err := s.Versions(ctx, "shared"); err != nil {
		return err
	} else if len(vs) > 1 {
		if err := s.RemoveVersions(ctx, "shared", []int{vs[0].N}); err != nil {
			return err
		}
	}
	if r, err := s.Verify(ctx, VerifyOptions{}); err != nil || len(r.Bad) > 0 {
		return fmt.Errorf("verify: %v %v", r.Bad, err)
	}
	r, err := s.Collect(ctx, CollectOptions{PlaceAge: time.Nanosecond, Expire: func(Ref, time.Time) bool { return strings.HasPrefix(me, "b-") }})
	if err != nil {
		return err
	}
	fmt.Println("removed", r.RemovedBlobs, "places", r.RemovedPlaces)
	return nil
}

// member runs memberOfTheStore as a user.
func member(t *testing.T, exe string, s *Store, uid uint32, gid uint32, dir, name string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, s.Dir(), dir, name)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // says where it hangs
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childRole+"=member")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid + 1000, Groups: []uint32{gid}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s as user %d: %v\n%s", name, uid, err, out)
	}
	return string(out)
}

// publicExe is this test binary where everybody may run it.
func publicExe(t *testing.T) (exe, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root")
		}
		t.Skip("this test needs root")
	}
	dir = t.TempDir()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe = filepath.Join(dir, "test")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for p := dir; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return exe, dir
}

// filesOf makes a directory of files that everybody may read.
func filesOf(t *testing.T, top, name string) string {
	t.Helper()
	dir := filepath.Join(top, "files-"+name)
	files := map[string]string{"same": "the same for all"}
	for i := range 300 { // some in each room of the store
		files["d/"+strconv.Itoa(i)] = name + strconv.Itoa(i)
	}
	writeFiles(t, dir, files)
	return dir
}

// Two members of a group, each with a umask of 077, use one store.
func TestTwoUsersShareAStore(t *testing.T) {
	exe, top := publicExe(t)
	const group = 54321
	s, err := Open(t.Context(), filepath.Join(top, "store"), Options{Create: true, Group: strconv.Itoa(group)})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		uid  uint32
		name string
	}{{60001, "a"}, {60002, "b-after-a"}, {60001, "a-again"}} {
		member(t, exe, s, m.uid, group, filesOf(t, top, m.name), m.name)
	}
	err = filepath.WalkDir(s.Dir(), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if e.IsDir() && fi.Mode()&(os.ModeSetgid|0o770) != os.ModeSetgid|0o770 || fi.Sys().(*syscall.Stat_t).Gid != group {
			t.Errorf("%s is %v of group %d", path, fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Root works in the private store of a user (a mount with passthrough needs
// root), who must be able to go on.
func TestRootInAUsersStore(t *testing.T) {
	exe, top := publicExe(t)
	store := filepath.Join(top, "store")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(store, 60001, 60001); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), store, Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := filesOf(t, top, "root")
	member(t, exe, s, 0, 0, dir, "root")
	member(t, exe, s, 60001, 60001, filesOf(t, top, "a"), "b-after-root")
	member(t, exe, s, 0, 0, dir, "b-root")
	member(t, exe, s, 60001, 60001, filesOf(t, top, "b"), "b-last")
}
