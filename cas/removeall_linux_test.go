package cas

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whose directory root removes may give its names to links meanwhile.
func TestRemoveAllFollowsNoLink(t *testing.T) {
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	if err := os.Mkdir(victim, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, link := filepath.Join(top, "dir"), filepath.Join(top, "link")
	for range 1000 {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, link); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 10 {
				_ = unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, filepath.Join(dir, "sub"), unix.RENAME_EXCHANGE)
			}
		}()
		_ = removeAll(dir)
		<-done
		os.RemoveAll(dir)
		os.RemoveAll(link)
		if fi, err := os.Stat(victim); err != nil || fi.Mode().Perm() != 0o700 {
			t.Fatalf("what the link led to: %v, %v", fi.Mode(), err)
		}
	}
}

// Without root's rights the modes stand in the way.
func TestRemoveAllOfReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	writeFiles(t, dir, map[string]string{"a/b/c": "c", "a/b/d/e": "e"})
	for _, d := range []string{"a/b/d", "a/b", "a"} {
		if err := os.Chmod(filepath.Join(dir, d), 0o500); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
