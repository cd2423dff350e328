//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// openFiles counts the descriptors of the server.
func (m *mounted) openFiles(t *testing.T) int {
	t.Helper()
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.info.PID))
	if err != nil {
		t.Fatal(err)
	}
	return len(ents)
}

// numbered makes n files of a few bytes in two directories.
func numbered(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("d%d/f%04d", i%2, i)] = fmt.Sprintf("content of %d\n", i)
	}
	return files
}

func TestOpenSmallFilesCostNoDescriptors(t *testing.T) {
	s := newStore(t)
	files := numbered(200)
	publish(t, s, "data", files)
	m := mount(t, s)
	before := m.openFiles(t)
	for name, want := range files {
		path := m.path("artifacts/data", name)
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Fatalf("%s: %q, %v", name, b, err)
		}
		f, err := os.Open(path) // its bytes are in the page cache
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	if after := m.openFiles(t); after > before+50 {
		t.Errorf("%d descriptors with 200 open files, %d before", after, before)
	}
}

// Who walks a second time, sizes included, asks about directories alone.
func TestSecondWalkAsksOfNoFile(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", numbered(300))
	m := mount(t, s, "-o", "debug")
	walk := func() string { return run(t, "find", m.path("artifacts/data"), "-type", "f", "-printf", "%s\n") }
	first := walk()
	if n := strings.Count(first, "\n"); n != 300 {
		t.Fatalf("%d files", n)
	}
	requests := func(kind string) int { return strings.Count(m.log.String(), `msg="`+kind+" ") }
	// Whoever drops the caches of the machine spoils a walk, not all.
	least := map[string]int{"lookup": 1000, "readdir": 1000, "getattr": 1000}
	for range 8 {
		before := map[string]int{}
		for k := range least {
			before[k] = requests(k)
		}
		if walk() != first {
			t.Error("a later walk found something else")
		}
		for k := range least {
			least[k] = min(least[k], requests(k)-before[k])
		}
	}
	for k, n := range least {
		if n > 10 || n > 0 && k != "getattr" {
			t.Errorf("at least %d requests %s each time", n, k)
		}
	}
	if requests("readdir") == 0 {
		t.Error("the log shows no requests")
	}
}

func TestSmallFileThatGoesWhileItIsOpen(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"file": "x"})
	m := mount(t, s)
	f, err := os.Open(m.path("artifacts/data/file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := cas.Sum([]byte("x")).String()
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", d[:2], d)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(make([]byte, 1)); !strings.Contains(errString(err), "input/output error") {
		t.Errorf("read: %v", err)
	}
	eventually(t, func() bool { return strings.Contains(m.log.String(), d) })
}

// What a verification put into quarantine may be wrong in the page cache too.
func TestSmallFileThatWentCannotBeOpenedFromTheCache(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"file": "x"})
	m := mount(t, s)
	file := m.path("artifacts/data/file")
	if b, err := os.ReadFile(file); err != nil || string(b) != "x" {
		t.Fatalf("%q, %v", b, err)
	}
	d := cas.Sum([]byte("x")).String()
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", d[:2], d)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(file); !strings.Contains(errString(err), "input/output error") {
		t.Errorf("have %q, %v", b, err)
	}
}

// With the writeback cache the kernel asks at each close unless it is told
// that there is nothing to do.
func TestCloseAsksNothingOfTheServer(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", numbered(20))
	dir := t.TempDir()
	needRoot(t)
	m := serve(t, s, dir, []string{"unshare", "-Ur", "-m"}, "-o", "debug")
	m.within = []string{"nsenter", "-t", fmt.Sprint(m.cmd.Process.Pid), "-U", "-m"}
	openPlace(t, s, m, testKey, nil)
	run(t, append(m.within, "sh", "-c", `cd "$1"; cat artifacts/data/*/*; for i in 1 2 3 4; do echo $i >at/0123456789abcdef/work/a/$i; done`, "sh", m.dir)...)
	m.stop(t)
	if n := strings.Count(m.log.String(), `msg="flush `); n > 1 {
		t.Errorf("%d requests at closing", n)
	} else if n == 0 {
		t.Error("not even the first, so the log does not show them")
	}
}
