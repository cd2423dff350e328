//go:build linux

package fusefs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// Programs choose by access(2) where they keep their caches; root's answer
// must be true as well.
func TestAccessTellsWhatCanBeWritten(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"f": "1"})
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, nil)
	work := m.path("at", testKey[:16], "work/a")
	file := filepath.Join(work, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	want := func(path string, mode uint32, err error) {
		t.Helper()
		if got := unix.Access(path, mode); got != err {
			t.Errorf("access(%s, %o): %v, want %v", path, mode, got, err)
		}
	}
	for _, path := range []string{m.dir, m.path("at"), m.path("artifacts/data"), m.path("artifacts/data/f")} {
		want(path, unix.W_OK, unix.EROFS)
		want(path, unix.R_OK, nil)
	}
	want(m.path("artifacts/data/f"), unix.X_OK, unix.EACCES)
	want(m.path("artifacts/data"), unix.X_OK, nil)
	for _, path := range []string{work, file} {
		want(path, unix.W_OK|unix.R_OK, nil)
	}
	want(file, unix.X_OK, unix.EACCES)
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1})
	for _, path := range []string{work, file} {
		want(path, unix.W_OK, unix.EROFS)
		want(path, unix.R_OK, nil)
	}
}
