//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// Tests of go-fuse that are not for these mounts, and why.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "wrong about Linux: fcntl(2) and flock(2) locks do not see each other; go-fuse does not run it either",
	"Tmpfile":             "there is no O_TMPFILE",
	"XAttrLarge":          "wants a value larger than ext4 keeps",
}

// posixTests makes the test binary run go-fuse's tests in a directory.
const posixTests = "CURI_TEST_POSIX"

// TestPosixChild is go-fuse's tests as another process runs them, which may be
// another user's and see other mounts.
func TestPosixChild(t *testing.T) {
	within := os.Getenv(posixTests)
	if within == "" {
		return
	}
	for name, fn := range posixtest.All {
		if notPosix[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(within, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			fn(t, dir)
		})
	}
}

// runPosixTests runs them in the places of a mount.
func runPosixTests(t *testing.T, m *mounted, by ...string) {
	t.Helper()
	bin := testBinary(t)
	for _, part := range []string{"work", "out"} {
		argv := append(append(slices.Clone(m.within), by...), bin, "-test.run=^TestPosixChild$", "-test.v")
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), posixTests+"="+m.path("at", testKey[:16], part))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("in %s: %v: %s", part, err, out)
			continue
		}
		// One that skips itself tests nothing.
		for name := range posixtest.All {
			if notPosix[name] == "" && !strings.Contains(string(out), "--- PASS: TestPosixChild/"+name+" ") {
				t.Errorf("%s did not pass in %s: %s", name, part, out)
			}
		}
	}
}

func TestPosix(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	openPlace(t, s, m, testKey, nil)
	runPosixTests(t, m)
}

func TestPosixOfAnotherUser(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "allow_other")
	p := openPlace(t, s, m, testKey, nil)
	for _, d := range []string{"work", "out"} {
		chmodAll(t, filepath.Join(p.Dir(), d))
	}
	runPosixTests(t, m, asNobody...)
}

func TestPosixWithoutPassthrough(t *testing.T) {
	s := newStore(t)
	m := inUserNamespace(t, s)
	openPlace(t, s, m, testKey, nil)
	runPosixTests(t, m)
}

func TestPosixWithoutRoot(t *testing.T) {
	s := newStore(t)
	m := asUserWithFusermount(t, s)
	openPlaceOf(t, s, m)
	runPosixTests(t, m)
}
