package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nobody is the user without rights; fusermount3 wants one that has a name.
const nobody = 65534

func command(argv []string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }

// asNobody gives the store to nobody and returns the words that start a
// command as that user, who mounts by fusermount3. The rows of root must have
// been measured. Who is not root already is without passthrough as it is.
func (b *bench) asNobody() ([]string, error) {
	if err := b.unmount(); err != nil {
		return nil, err
	}
	home := b.path("nobody")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, nil
	}
	// /dev/fuse is often root's alone.
	node := b.path("fuse")
	if _, err := os.Stat(node); err != nil {
		if _, err := b.output("mknod", "-m", "666", node, "c", "10", "229"); err != nil {
			return nil, err
		}
	}
	if _, err := b.output("chown", "-R", fmt.Sprintf("%d:%d", nobody, nobody), b.store, b.project, home, b.path("home")); err != nil {
		return nil, err
	}
	b.given = true
	by := []string{
		"unshare", "-m", "sh", "-c", `mount --bind "$0" /dev/fuse && exec "$@"`, node,
		"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups",
	}
	for _, p := range []string{b.self, b.tool("curi"), filepath.Join(b.store, "curi-store.json")} {
		if _, err := b.output(by[0], append(by[1:], "test", "-r", p)...); err != nil {
			return nil, fmt.Errorf("another user cannot reach %s: choose a working directory that all may enter (-dir): %s", p, strings.TrimSpace(err.Error()))
		}
	}
	return by, nil
}
