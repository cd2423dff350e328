package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newLab makes a site in a mount namespace of its own, for tests that mount
// filesystems: nothing of them shows outside, and nothing can stay. Commands
// run as root; the project is empty and there is no store yet.
func newLab(t *testing.T) *site {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to mount filesystems")
	need(t, python() != "", "Python with PyTorch (make test installs it; or CURI_TEST_PYTHON)")
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	// Short, so that TMPDIR of a run fits below the places of a store there: a
	// link that shortens it would be in everybody's /tmp, and lead nowhere for
	// those outside of the lab, who sweep such links.
	top, err := os.MkdirTemp("/tmp", "cl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(top); err != nil {
			t.Error(err)
		}
	})
	s := &site{t: t, way: byMount, dir: top + "/project", side: top + "/side"}
	for _, dir := range []string{top, s.dir, s.side, top + "/home", top + "/mnt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.env = []string{
		"PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + top + "/home", "SIDE=" + s.side, "LANG=C.UTF-8",
		"USER=tester", "LOGNAME=tester", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CEILING_DIRECTORIES=" + top,
	}
	s.space = newNamespace(t, bin, top)
	s.write("curi.yaml", "project: lab\n")
	s.write("digits/numbers.txt", "1 2 3 4\n")
	s.write("digits/sub/more.txt", "5 6\n")
	s.ok("chmod", "755", "digits/sub/more.txt")
	s.ok("ln", "-s", "sub/more.txt", "digits/link")
	return s
}

// in is the path of a name in the lab's directory.
func (s *site) in(name string) string { return filepath.Join(filepath.Dir(s.dir), name) }

// seen is where this process sees a path of the lab's namespace.
func (s *site) seen(path string) string { return fmt.Sprintf("/proc/%d/root%s", s.space.pid, path) }

// as is the lab as another user sees it.
func (s *site) as(u user) *site {
	c := *s
	c.who = u
	c.env = append(c.env[:len(c.env):len(c.env)], "USER="+u.name, "LOGNAME="+u.name)
	return &c
}

// A disk is a filesystem that a lab can have.
type disk string

const (
	diskExt4    disk = "ext4"
	diskXFS     disk = "xfs"
	diskBtrfs   disk = "btrfs"
	diskTmpfs   disk = "tmpfs"
	diskOverlay disk = "overlayfs" // its upper layer on ext4
	diskNested  disk = "nested"    // an overlayfs whose lower layer is an overlayfs
)

// reflinks reports whether copies on the disk share their bytes.
func (d disk) reflinks() bool { return d == diskXFS || d == diskBtrfs }

// statusName is what curi status calls the disk.
func (d disk) statusName() string {
	if d == diskNested {
		return "overlayfs"
	}
	return string(d)
}

// makeDisk is a shell script that mounts a filesystem of the kind $1 at $2,
// $3 MiB large; its image lies beside. All of it is root's alone to write.
const makeDisk = `set -e
mkdir -p "$2"
if [ "$1" = tmpfs ]; then exec mount -t tmpfs -o "size=$3m,mode=755" none "$2"; fi
truncate -s "$3M" "$2.img"
case $1 in
ext4 | overlayfs | nested) mkfs.ext4 -q -m 0 "$2.img" ;;
xfs) mkfs.xfs -q "$2.img" ;;
btrfs) mkfs.btrfs -q -m single "$2.img" >/dev/null ;;
esac
overlay() { # overlay NAME LOWER DIR
    mkdir -p "$1.upper" "$1.work" "$2" "$3"
    mount -t overlay -o "lowerdir=$2,upperdir=$1.upper,workdir=$1.work" none "$3"
}
case $1 in
overlayfs | nested)
    mkdir "$2.a"
    mount -o loop "$2.img" "$2.a"
    lower=$2.a/lower
    if [ "$1" = nested ]; then lower=$2.b; overlay "$2.a/b" "$2.a/lower" "$lower"; fi
    overlay "$2.a/top" "$lower" "$2" ;;
*) mount -o loop "$2.img" "$2" ;;
esac
`

// addDisk mounts a filesystem in the lab and returns its directory.
func (s *site) addDisk(kind disk, mib int) string {
	s.t.Helper()
	switch kind {
	case diskXFS, diskBtrfs:
		_, err := exec.LookPath("mkfs." + string(kind))
		need(s.t, err == nil, "mkfs."+string(kind))
		mib = max(mib, 320) // the least that mkfs.xfs takes; the image is sparse
	}
	dir := s.in(string(kind))
	o := s.run("sh", "-c", makeDisk, "sh", string(kind), dir, fmt.Sprint(mib))
	need(s.t, o.status == 0, "a "+string(kind)+" on a loop device: "+o.stderr)
	return dir
}

// useStore makes a store, which every command of the lab uses from now on.
func (s *site) useStore(dir string, options ...string) {
	s.t.Helper()
	s.store = dir
	s.env = append(s.env, "CURI_STORE="+dir)
	s.ok(append([]string{"curi", "store", "init", dir}, options...)...)
}

// mountLab mounts the store in the lab and returns the mount's directory.
func (s *site) mountLab(options ...string) string {
	s.t.Helper()
	dir := s.in("mnt")
	s.ok(append([]string{"curi", "mount", dir}, options...)...)
	// Else its server would keep the namespace, and with it the filesystems.
	s.t.Cleanup(func() { s.run("curi", "umount", dir) })
	return dir
}

// usedBlocks is how many KiB of a filesystem are in use, once all is written.
func (s *site) usedBlocks(dir string) int {
	s.t.Helper()
	s.ok("sync", "-f", dir)
	fields := strings.Fields(s.ok("df", "--output=used", "-k", dir))
	n := 0
	if _, err := fmt.Sscan(fields[len(fields)-1], &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// give makes directories of the lab, with all that is in them, a user's.
func (s *site) give(u user, dirs ...string) {
	s.t.Helper()
	s.ok(append([]string{"chown", "-R", fmt.Sprintf("%d:%d", u.id, u.id)}, dirs...)...)
}
