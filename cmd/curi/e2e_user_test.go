package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A namespace is a private mount namespace in which an unprivileged user can
// open /dev/fuse and reach what the tests need, without a change to the
// machine.
type namespace struct{ pid int }

func newNamespace(t *testing.T, reachable ...string) *namespace {
	t.Helper()
	for _, program := range []string{"unshare", "nsenter", "setpriv", "fusermount3"} {
		_, err := exec.LookPath(program)
		need(t, err == nil, program)
	}
	// Its copies of other tests' mounts would keep those alive. The node lies
	// on a file system without nodev, open to everyone.
	script := "set -e\n" + dropMounts + "mount -t tmpfs -o mode=755,dev none \"$1\"\n" +
		"mknod -m 666 \"$1/fuse\" c 10 229\nmount --bind \"$1/fuse\" /dev/fuse\n" +
		reach(t, append(reachable, pythonPaths(t)...)) +
		"echo ready\nexec cat\n"
	stash := t.TempDir()
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", stash)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	need(t, err == nil && line == "ready\n", "a mount namespace of its own")
	return &namespace{cmd.Process.Pid}
}

// dropMounts is shell code that ends a new namespace's copies of mounts. One
// below another may have gone with that already.
const dropMounts = "awk '$3 == \"fuse.curi\" {print $2}' /proc/mounts | xargs -r -n 1 umount -l 2>/dev/null || true\n"

// A user is who runs commands in a namespace.
type user struct {
	name   string // "" is root
	id     int    // of the user and of the group of that name
	groups string // supplementary, comma-separated
}

var theNobody = user{name: "nobody", id: nobody}

// enter returns the argument vector that runs argv there as a user.
func (n *namespace) enter(who user, dir string, argv []string) []string {
	prefix := []string{"nsenter", "--target", strconv.Itoa(n.pid), "--mount", "--"}
	if who.name != "" {
		id := strconv.Itoa(who.id)
		prefix = append(prefix, "setpriv", "--reuid", id, "--regid", id)
		if who.groups == "" {
			prefix = append(prefix, "--clear-groups", "--")
		} else {
			prefix = append(prefix, "--groups", who.groups, "--")
		}
	}
	prefix = append(prefix, "sh", "-c", `cd "$1" && shift && exec "$@"`, "sh", dir)
	return append(prefix, argv...)
}

// reach returns shell commands that make paths reachable for everyone: a
// directory above one that only its owner may enter, such as /root, is covered
// by an empty one in which just these paths appear.
func reach(t *testing.T, paths []string) string {
	covered := map[string][]string{}
	var order []string
	for _, p := range paths {
		for dir := "/"; dir != p; {
			rest, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(p, dir), "/"), "/")
			dir = filepath.Join(dir, rest)
			info, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode()&0o001 == 0 && dir != p {
				if covered[dir] == nil {
					order = append(order, dir)
				}
				covered[dir] = append(covered[dir], p)
				break
			}
		}
	}
	var script strings.Builder
	for i, dir := range order {
		fmt.Fprintf(&script, "mkdir \"$1/%d\"\nmount --bind '%s' \"$1/%d\"\nmount -t tmpfs -o mode=755 none '%s'\n", i, dir, i, dir)
		for _, p := range covered[dir] {
			fmt.Fprintf(&script, "mkdir -p '%s'\nmount --bind \"$1/%d/%s\" '%s'\n", p, i, strings.TrimPrefix(p, dir+"/"), p)
		}
	}
	return script.String()
}

// pythonPaths are the directories that the interpreter runs from.
func pythonPaths(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(python(), "-c", "import sys; print(sys.prefix); print(sys.base_prefix)").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}
