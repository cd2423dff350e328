package cas

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// settle waits until what was just written is old enough to be trusted.
func settle() { time.Sleep(racyTime + 100*time.Millisecond) }

// unknown returns which of the files the next add would read.
func unknown(t *testing.T, s *Store, dir string, files ...string) []string {
	t.Helper()
	var names []string
	c := s.openStatCache()
	for _, f := range files {
		st, err := lstatFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if _, known := c.lookup(&node{src: filepath.Join(dir, f), state: st}); !known {
			names = append(names, f)
		}
	}
	return names
}

func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"same": "same", "changed": "before", "replaced": "one"})
	all := []string{"same", "changed", "replaced"}
	first := mustAdd(t, s, dir, AddOptions{})
	// Just written: a second change might not show in the times.
	if got := unknown(t, s, dir, all...); len(got) != 3 {
		t.Errorf("written a moment ago, and only %q would be read again", got)
	}
	settle()
	mustAdd(t, s, dir, AddOptions{})
	if got := unknown(t, s, dir, all...); len(got) != 0 {
		t.Errorf("%q did not change and would be read again", got)
	}
	info, err := os.Stat(filepath.Join(dir, "changed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "changed"), []byte("after!"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Same size, same mtime: ctime tells.
	if err := os.Chtimes(filepath.Join(dir, "changed"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"new": "two"})
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "replaced")); err != nil {
		t.Fatal(err)
	}
	a := mustAdd(t, s, dir, AddOptions{})
	got := contents(t, s, a.Tree)
	if got["same"] != "same" || got["changed"] != "after!" || got["replaced"] != "two" {
		t.Errorf("stored %q", got)
	}
	if a.Tree == first.Tree {
		t.Error("the changed tree has the digest of the old one")
	}
}

// bytesRead is how many bytes this process has read so far, from anything.
func bytesRead(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(strings.TrimPrefix(string(b), "rchar: "), "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStatCacheAfterDamage(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	big := noise(3, 16<<20)
	writeFiles(t, dir, map[string]string{"a": string(big)})
	settle()
	a := mustAdd(t, s, dir, AddOptions{})
	before := bytesRead(t)
	if b := mustAdd(t, s, dir, AddOptions{}); b.Tree != a.Tree {
		t.Errorf("the same file made %s and %s", a.Tree, b.Tree)
	}
	if n := bytesRead(t) - before; n > 1<<20 {
		t.Errorf("adding an unchanged file of 16 MiB read %d bytes", n)
	}
	// A blob that is gone is stored again though the file is known.
	if err := os.Remove(s.blobPath(Sum(big))); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s, mustAdd(t, s, dir, AddOptions{}).Tree); got["a"] != string(big) {
		t.Error("the blob was not stored again")
	}
	shards, err := filepath.Glob(filepath.Join(s.Dir(), "index", "files", "*"))
	if err != nil || len(shards) != 1 {
		t.Fatalf("shards %v %v", shards, err)
	}
	good, err := os.ReadFile(shards[0])
	if err != nil {
		t.Fatal(err)
	}
	st, err := lstatFile(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	n := &node{src: filepath.Join(dir, "a"), state: st}
	if d, ok := s.openStatCache().lookup(n); !ok || d != Sum(big) {
		t.Fatalf("not cached: %s %v", d, ok)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if err := os.WriteFile(shards[0], bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if d, ok := s.openStatCache().lookup(n); ok {
			t.Fatalf("byte %d flipped, and believed: %s", i, d)
		}
	}
	for _, n := range []int{0, 1, len(good) / 2, len(good) - 1} {
		if err := os.WriteFile(shards[0], good[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if b := mustAdd(t, s, dir, AddOptions{}); b.Tree != a.Tree {
			t.Errorf("cut to %d bytes: added %s, want %s", n, b.Tree, a.Tree)
		}
	}
}

// Two images of a reproducible build differ in nothing that stat tells.
func TestImageThatIsReplacedIsReadAgain(t *testing.T) {
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			needsRoot(t, fmt.Errorf("%s: %w: %s", name, err, out))
		}
		return strings.TrimSpace(string(out))
	}
	s, dir := addStore(t), t.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	loop := ""
	labels := []string{strings.Repeat("0", 2<<20), strings.Repeat("1", 2<<20)}
	for i, text := range labels {
		data := filepath.Join(dir, "data")
		writeFiles(t, data, map[string]string{"labels": text})
		run("mksquashfs", data, image, "-noappend", "-quiet", "-no-progress", "-all-time", "1700000000", "-mkfs-time", "1700000000")
		if loop == "" {
			loop = run("losetup", "--find", "--show", image)
			t.Cleanup(func() { run("losetup", "-d", loop) })
		} else { // the same device, as after a reboot
			run("losetup", "--set-capacity", loop)
		}
		// The kernel keeps a block of the old image where something holds on to it.
		for deadline := time.Now().Add(time.Minute); ; run("umount", mnt) {
			run("blockdev", "--flushbufs", loop)
			run("mount", "-t", "squashfs", "-o", "ro", loop, mnt)
			if b, err := os.ReadFile(filepath.Join(mnt, "labels")); err == nil && string(b) == text {
				break
			} else if time.Now().After(deadline) {
				run("umount", mnt)
				t.Fatalf("image %d is not the one that is mounted: %v", i, err)
			}
		}
		a, err := s.AddPath(t.Context(), mnt, AddOptions{})
		run("umount", mnt)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Release()
		if got := contents(t, s, a.Tree)["labels"]; got != text {
			t.Errorf("image %d holds %.10s…, and was added as %.10s…", i, text, got)
		}
	}
}
