//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// Readers hammer two names that change 250 times each. After each change is
// refreshed, no new read may see an older one.
func TestNoStaleNameAfterRefresh(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	const rounds = 250
	trees := make([]cas.Digest, rounds)
	for i := range trees {
		a, err := s.PutTree(t.Context(), &cas.Tree{Entries: []cas.Entry{{Name: "n", Kind: cas.KindSymlink, Target: strconv.Itoa(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		trees[i] = a
	}
	p := s.Place(testKey)
	var shown atomic.Int64 // the newest number that a refresh has shown
	change := func(i int) {
		if _, _, err := s.Publish(t.Context(), "data", trees[i], cas.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
		setPlace(t, s, p, cas.PlaceState{Run: "r-000001", Inputs: map[string]cas.Digest{"set": trees[i]}})
		shown.Store(int64(i))
	}
	change(0)
	paths := []string{m.path("artifacts/data/n"), m.path("at", testKey[:16], "in/set/n")}
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for r := range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				time.Sleep(100 * time.Microsecond) // leave the processor to the server
				floor := shown.Load()
				path := paths[r%2]
				if r == 3 {
					os.ReadDir(filepath.Dir(filepath.Dir(path)))
				}
				target, err := os.Readlink(path)
				if err != nil {
					t.Error(err)
					return
				}
				if n, _ := strconv.ParseInt(target, 10, 64); n < floor {
					t.Errorf("%s shows %d after %d was shown", path, n, floor)
					return
				}
			}
		})
	}
	for i := 1; i < rounds && !t.Failed(); i++ {
		change(i)
	}
	close(stop)
	readers.Wait()
}

func TestNamesComeAndGo(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	exists := func(elem ...string) bool {
		_, err := os.Lstat(m.path(elem...))
		return err == nil
	}
	if exists("artifacts/data") {
		t.Fatal("an artifact that is not there")
	}
	v := publish(t, s, "data", map[string]string{"f": "1"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Tag(t.Context(), "data", 1, "best"))
	must(s.Refresh(t.Context()))
	for _, name := range []string{"artifacts/data", "artifacts/data@1", "artifacts/data@best", "cas/" + v.Tree.String()} {
		if !exists(name) || !exists(name, "f") {
			t.Errorf("%s does not show", name)
		}
	}
	for _, name := range []string{"artifacts/data@2", "artifacts/data@", "artifacts/@1", "artifacts/none", "cas/x", "runs/none", "at/none", "remotes/none", "none"} {
		if exists(name) {
			t.Errorf("%s shows", name)
		}
	}
	if got, err := names(m.path("artifacts")); err != nil || fmt.Sprint(got) != "[data]" {
		t.Errorf("artifacts lists %v, %v", got, err)
	}
	if got, err := names(m.dir); err != nil || fmt.Sprint(got) != "[artifacts at cas remotes runs]" {
		t.Errorf("the root lists %v, %v", got, err)
	}
	wd, err := os.Open(m.path("artifacts/data"))
	must(err)
	defer wd.Close()
	must(s.RemoveVersions(t.Context(), "data", []int{1}))
	must(s.Refresh(t.Context()))
	for _, name := range []string{"artifacts/data", "artifacts/data@1", "artifacts/data@best"} {
		if exists(name) {
			t.Errorf("%s still shows", name)
		}
	}
	if got, err := wd.Readdirnames(-1); err != nil || fmt.Sprint(got) != "[f]" {
		t.Errorf("a directory that was open lists %v, %v", got, err)
	}
}

func names(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names, err
}

// A refresh that changes nothing for a directory leaves processes in it where
// they are.
func TestRefreshKeepsWorkingDirectories(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	publish(t, s, "data", map[string]string{"f": "1"})
	openPlace(t, s, m, testKey, nil)
	dirs := []string{m.path("artifacts/data"), m.path("at", testKey[:16], "work/a"), m.path("at", testKey[:16]), m.path("runs")}
	var before []os.FileInfo
	for _, d := range dirs {
		fi, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, fi)
	}
	publish(t, s, "other", map[string]string{"f": "2"})
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, d := range dirs {
		if fi, err := os.Stat(d); err != nil || !os.SameFile(fi, before[i]) {
			t.Errorf("%s is another directory now: %v", d, err)
		}
	}
}
