package cas

import (
	"os"
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
		if _, known := c.lookup(st); !known {
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
	if d, ok := s.openStatCache().lookup(st); !ok || d != Sum(big) {
		t.Fatalf("not cached: %s %v", d, ok)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if err := os.WriteFile(shards[0], bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if d, ok := s.openStatCache().lookup(st); ok {
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
