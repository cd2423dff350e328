//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// inUserNamespace mounts in a user namespace of its own, where the kernel
// allows no passthrough.
func inUserNamespace(t *testing.T, s *cas.Store) *mounted {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	m := serve(t, s, dir, []string{"unshare", "-Ur", "-m"})
	m.within = []string{"nsenter", "-t", strconv.Itoa(m.cmd.Process.Pid), "-U", "-m"}
	return m
}

func TestWithoutPassthrough(t *testing.T) {
	s := newStore(t)
	m := inUserNamespace(t, s)
	if m.info.Passthrough || !strings.Contains(m.info.Reason, "first user namespace") {
		t.Fatalf("want no passthrough and why, have %v %q", m.info.Passthrough, m.info.Reason)
	}
	everydayFiles(t, s, m)
}

// asUserWithFusermount serves as another user, who mounts by fusermount3.
func asUserWithFusermount(t *testing.T, s *cas.Store) *mounted {
	t.Helper()
	needRoot(t)
	for _, p := range []string{"fusermount3", "setpriv", "nsenter"} {
		if _, err := exec.LookPath(p); err != nil {
			skip(t, "needs "+p)
		}
	}
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(bin), 0o755)
	root := t.TempDir()
	os.Chmod(filepath.Dir(root), 0o755)
	os.Chmod(root, 0o755)
	dir, node := filepath.Join(root, "mnt"), filepath.Join(root, "fuse")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mknod", "-m", "666", node, "c", "10", "229")
	run(t, "chown", "-R", "65534:65534", s.Dir(), dir)
	by := append([]string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /dev/fuse && exec "$@"`, node}, asNobody...)
	m := serve(t, s, dir, by)
	m.within = append([]string{"nsenter", "-t", strconv.Itoa(m.cmd.Process.Pid), "-m"}, asNobody...)
	return m
}

func TestUserWithFusermount(t *testing.T) {
	s := newStore(t)
	m := asUserWithFusermount(t, s)
	if m.info.Passthrough || m.info.UID != 65534 {
		t.Fatalf("want a mount of user 65534 without passthrough, have %+v", m.info)
	}
	v := publish(t, s, "first", map[string]string{"f": "1"})
	run(t, "chown", "-R", "65534:65534", s.Dir())
	p := s.Place(testKey)
	setPlace(t, s, p, cas.PlaceState{Run: "r-000001", Mount: m.info.ID, Active: true, Inputs: map[string]cas.Digest{"set": v.Tree}})
	for _, d := range []string{"out", "work", "logs", "tmp"} {
		os.MkdirAll(filepath.Join(p.Dir(), d), 0o755)
	}
	run(t, "chown", "-R", "65534:65534", s.Dir())
	script := `set -e; cd "$1"; cat artifacts/first/f; cd at/0123456789abcdef
		echo hi >work/x; mv work/x out/y; cat out/y in/set/f; stat -c %u out/y
		! echo no >in/set/f; grep fuse.curi /proc/self/mounts | cut -d' ' -f1,3`
	out := run(t, append(m.within, "sh", "-c", script, "sh", m.dir)...)
	if !strings.Contains(out, "1hi\n165534\n") || !strings.HasSuffix(out, "curi fuse.curi\n") || !strings.Contains(out, "Read-only file system") {
		t.Errorf("have %q", out)
	}
}

func TestEverydayFilesWithoutRoot(t *testing.T) {
	s := newStore(t)
	everydayFiles(t, s, asUserWithFusermount(t, s))
}

// Another mount namespace cannot be asked to refresh; the server notices by
// itself.
func TestChangesReachOtherMountNamespaces(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"f": "1"})
	m := inUserNamespace(t, s)
	read := func() string {
		return run(t, append(m.within, "cat", m.path("artifacts/data/f"))...)
	}
	if got := read(); got != "1" {
		t.Fatalf("have %q", got)
	}
	publish(t, s, "data", map[string]string{"f": "2"})
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return read() == "2" })
}

// With the writeback cache the kernel believes no size but its own. Files that
// are written by another way, to logs or by another mount, must show all the
// same, and so must they once this mount writes them again.
func TestFilesWrittenBehindAMountWithoutPassthrough(t *testing.T) {
	s := newStore(t)
	m := inUserNamespace(t, s)
	file := m.path("at", testKey[:16], "work/a/ckpt")
	within := func(script string) string {
		return run(t, append(m.within, "sh", "-c", script, "sh", file)...)
	}
	p := openPlace(t, s, m, testKey, nil)
	if got := within(`printf one >"$1"; cat "$1"`); got != "one" {
		t.Fatalf("have %q", got)
	}
	disk := filepath.Join(p.Dir(), "work/a/ckpt")
	for run, content := range []string{"one, two", "short", "much longer than it was"} {
		// A run that writes through another mount.
		setPlace(t, s, p, cas.PlaceState{Run: fmt.Sprintf("r-%06d", 2*run+1), Mount: "another", Active: true})
		if err := os.WriteFile(disk, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := within(`cat "$1"; stat -c %s "$1"`); got != fmt.Sprintf("%s%d\n", content, len(content)) {
			t.Errorf("the mount shows %q instead of %q", got, content)
		}
		setPlace(t, s, p, cas.PlaceState{Run: fmt.Sprintf("r-%06d", 2*run+2), Mount: m.info.ID, Active: true})
		if got := within(`cat "$1"; printf + >>"$1"`); got != content {
			t.Errorf("the next run through the mount reads %q instead of %q", got, content)
		}
		if b, err := os.ReadFile(disk); err != nil || string(b) != content+"+" {
			t.Errorf("appending made %q of %q, %v", b, content, err)
		}
	}
}

// A copy by holes, as cp makes it, must not take for a hole what the kernel
// has not written to disk yet.
func TestNewDataIsNoHole(t *testing.T) {
	const script = `import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 22)
os.pwrite(fd, b'data', 1 << 21)
data = os.lseek(fd, 0, os.SEEK_DATA)
print(data <= 1 << 21 < os.lseek(fd, data, os.SEEK_HOLE))`
	for name, mounts := range map[string]func(*testing.T, *cas.Store) *mounted{
		"passthrough": func(t *testing.T, s *cas.Store) *mounted { return mount(t, s) },
		"writeback":   inUserNamespace,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			m := mounts(t, s)
			openPlace(t, s, m, testKey, nil)
			argv := append(m.within, python(t), "-c", script, m.path("at", testKey[:16], "work/a/sparse"))
			if got := run(t, argv...); got != "True\n" {
				t.Errorf("have %q", got)
			}
		})
	}
}

// With the writeback cache the kernel takes bytes for which the disk has no
// room. Programs that close a file without a look never hear of it; whoever
// publishes the file must.
func TestFullDiskIsNotForgotten(t *testing.T) {
	needRoot(t)
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=8m"); err != nil {
		skip(t, "cannot mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := cas.Open(t.Context(), filepath.Join(small, "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := inUserNamespace(t, s)
	openPlace(t, s, m, testKey, nil)
	within := func(script string) string {
		return run(t, append(m.within, "sh", "-c", script, "sh", m.path("at", testKey[:16]), m.dir)...)
	}
	lost := python(t) + ` -c 'import os, sys
try: print(os.getxattr(sys.argv[1], "user.curi.lost.train-000001").decode())
except OSError as e: print(e.strerror)' "$2"`
	within(`head -c 1M /dev/zero >"$1/out/a/fits"; head -c 20M /dev/zero >"$1/logs/a/log" || :; rm "$1/logs/a/log"`)
	if got := within(lost); got != "No data available\n" {
		t.Errorf("before: %q", got)
	}
	within(`head -c 20M /dev/zero >"$1/out/a/large" || :; rm "$1/out/a/large"`)
	if got := within(lost); got != "out/a/large: no space left on device\n" {
		t.Errorf("after: %q", got)
	}
}
