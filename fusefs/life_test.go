//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// curifsFails runs curifs, which must fail with one line.
func curifsFails(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err == nil {
		t.Errorf("curifs %q succeeded: %s", args, out)
	}
	if n := strings.Count(string(out), "\n"); n != 1 || strings.Contains(string(out), "goroutine") {
		t.Errorf("curifs %q printed %d lines: %s", args, n, out)
	}
	return string(out)
}

func TestMountPointErrors(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	dir := t.TempDir()
	file, full := filepath.Join(dir, "file"), filepath.Join(dir, "full")
	os.WriteFile(file, nil, 0o644)
	os.MkdirAll(filepath.Join(full, "thing"), 0o755)
	empty := filepath.Join(dir, "empty")
	os.Mkdir(empty, 0o755)
	for want, args := range map[string][]string{
		"is already mounted":            {s.Dir(), m.dir},
		"is not a directory":            {s.Dir(), file},
		`is not empty (it has "thing")`: {s.Dir(), full},
		"does not exist":                {s.Dir(), filepath.Join(dir, "none")},
		"is not a store":                {dir, empty},
		"unknown option":                {s.Dir(), empty, "-o", "allow_othr"},
		"want STORE and DIR":            {s.Dir()},
		"leave the option out":          {s.Dir(), empty, "-o", "ro,nodev"},
	} {
		if got := curifsFails(t, args...); !strings.Contains(got, want) {
			t.Errorf("curifs %q: want %q, have %s", args, want, got)
		}
	}
	bin, _ := curifs()
	hidden := `mount -t tmpfs none /dev && exec "$@"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", hidden, "sh", bin, s.Dir(), empty).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "/dev/fuse is missing") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("without /dev/fuse: %v: %s", err, out)
	}
	os.Chmod(filepath.Dir(bin), 0o755)
	os.Chmod(filepath.Dir(dir), 0o755)
	run(t, "chown", "-R", "65534", empty)
	cmd := exec.Command(asNobody[0], append(asNobody[1:], bin, s.Dir(), empty)...)
	cmd.Env = []string{"PATH=/nowhere"}
	cmd.Path, _ = exec.LookPath(asNobody[0])
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "fusermount3, which is not in PATH") {
		t.Errorf("without fusermount3: %v: %s", err, out)
	}
	if got := run(t, bin, "--version"); !strings.HasPrefix(got, "curifs ") {
		t.Errorf("--version: %q", got)
	}
}

func TestOptionsOfFstab(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "rw,nodev,nosuid,noauto,user,_netdev,x-systemd.automount,defaults", "-n", "-t", "curi")
	if m.info.AllowOther || m.info.Auto {
		t.Errorf("have %+v", m.info)
	}
}

// As mount(8) calls its helper, which must come back.
func TestMountHelperGoesToTheBackground(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	helper := filepath.Join(t.TempDir(), "mount.curi")
	if err := os.Symlink(bin, helper); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, helper, s.Dir(), dir, "-o", "rw,_netdev")
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if _, err := os.Stat(filepath.Join(dir, "artifacts")); err != nil {
		t.Error(err)
	}
	run(t, "umount", dir)
	eventually(t, func() bool {
		live, stale, err := s.Mounts(t.Context())
		return err == nil && len(live)+len(stale) == 0
	})
	if out, err := exec.Command(helper, s.Dir(), filepath.Join(dir, "none")).CombinedOutput(); err == nil || !strings.Contains(string(out), "does not exist") {
		t.Errorf("a failure in the background: %v: %s", err, out)
	}
}

func TestSignalRightAfterTheStartLeavesNoMount(t *testing.T) {
	needRoot(t)
	s := newStore(t)
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range 25 {
		cmd := exec.Command(bin, s.Dir(), dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait() // its own handler, or the signal before the program began
		if isMounted(dir) {
			unix.Unmount(dir, unix.MNT_DETACH)
			t.Fatalf("mounted after a signal %d ms after the start", i)
		}
	}
}

func TestShutdownWithOpenFilesIsBounded(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"big": strings.Repeat("x", 1<<20), "small": "s"})
	m := mount(t, s)
	f, err := os.Open(m.path("artifacts/data/big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wd := exec.Command("sleep", "60")
	wd.Dir = m.path("artifacts")
	if err := wd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { wd.Process.Kill(); wd.Wait() }()
	m.stop(t) // fails the test if it takes too long, or leaves the mount
	if live, stale, err := s.Mounts(t.Context()); err != nil || len(live)+len(stale) > 0 {
		t.Errorf("still registered: %v %v %v", live, stale, err)
	}
}

func TestServerThatWasKilled(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	openPlace(t, s, m, testKey, nil)
	m.cmd.Process.Kill()
	<-m.done
	if _, err := os.Stat(m.dir); !strings.Contains(errString(err), "not connected") && !strings.Contains(errString(err), "abort") {
		t.Errorf("a dead mount: %v", err)
	}
	live, stale, err := s.Mounts(t.Context())
	if err != nil || len(live) != 0 || len(stale) != 1 || stale[0].Dir != m.dir {
		t.Errorf("registered: live %v, stale %v, %v", live, stale, err)
	}
	if got := curifsFails(t, s.Dir(), m.dir); !strings.Contains(got, "server died") {
		t.Errorf("mounting over it: %s", got)
	}
	run(t, "umount", m.dir)
	if _, err := names(m.dir); err != nil {
		t.Error(err)
	}
	again := serve(t, s, m.dir, nil)
	if _, err := os.Stat(again.path("artifacts")); err != nil {
		t.Error(err)
	}
}

func errString(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestUnmountedFromOutside(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	run(t, "umount", m.dir)
	if err := <-m.done; err != nil {
		t.Errorf("curifs failed: %v: %s", err, m.log)
	}
	if live, stale, _ := s.Mounts(t.Context()); len(live)+len(stale) > 0 {
		t.Errorf("still registered: %v %v", live, stale)
	}
}

func TestAutoMountLeavesWithItsLastUser(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "auto")
	if !m.info.Auto {
		t.Fatalf("have %+v", m.info)
	}
	var uses []*os.File
	for range 2 {
		u, err := s.Use(t.Context(), m.info)
		if err != nil {
			t.Fatal(err)
		}
		uses = append(uses, u)
	}
	uses[0].Close()
	if _, err := os.Stat(m.path("artifacts")); err != nil {
		t.Errorf("it left with a user: %v", err)
	}
	uses[1].Close()
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("curifs failed: %v: %s", err, m.log)
		}
	case <-time.After(20 * time.Second):
		t.Error("it stays without users")
	}
	if _, err := s.Use(t.Context(), m.info); err == nil {
		t.Error("a mount that left can be used")
	}
}
