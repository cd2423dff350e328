package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Whose files are shared may give a directory's name to a link meanwhile.
func TestShareTreeFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		lack(t, "root, to give files to groups")
	}
	top := t.TempDir()
	victim, dir, link := filepath.Join(top, "victim"), filepath.Join(top, "dir"), filepath.Join(top, "link")
	if err := os.Mkdir(victim, 0o755); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(victim, "file")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(dir, "sub")
	if err := errors.Join(os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(sub, "file"), nil, 0o600),
		os.Chown(dir, -1, 65534), os.Symlink(victim, link)); err != nil {
		t.Fatal(err)
	}
	swap := func() { _ = unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, sub, unix.RENAME_EXCHANGE) }
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				swap()
			}
		}
	}()
	for range 3000 {
		(&share{Owner: -1}).tree(dir)
		if fi, err := os.Stat(mine); err != nil || fi.Mode().Perm() != 0o600 || fi.Sys().(*syscall.Stat_t).Gid != 0 {
			t.Fatalf("what the link led to: %v, group %d, %v", fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid, err)
		}
	}
	close(stop)
	<-done
	if fi, err := os.Lstat(sub); err == nil && !fi.IsDir() {
		swap()
	}
	(&share{Owner: -1}).tree(dir)
	if fi, err := os.Stat(filepath.Join(sub, "file")); err != nil || fi.Mode().Perm() != 0o660 || fi.Sys().(*syscall.Stat_t).Gid != 65534 {
		t.Errorf("not shared: %v, %v", fi, err)
	}
}
