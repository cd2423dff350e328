package remote

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestDirTemp: what a writer that was killed left is removed by a collection,
// what one writes that lives is not; no directory stays that is empty.
func TestDirTemp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	r := newRemote(t, OpenDir(dir))
	dead, alive := filepath.Join(dir, "packs/aa", dirTemp+"1"), filepath.Join(dir, dirTemp+"2")
	if err := os.MkdirAll(filepath.Dir(dead), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{dead, alive} {
		if err := os.WriteFile(f, []byte("half"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(dead, time.Time{}, time.Now().Add(-2*oldTemp)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Collect(t.Context(), CollectOptions{Grace: time.Hour, DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); err != nil {
		t.Errorf("a dry run removed it: %v", err)
	}
	collect(t, r, time.Hour)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("that of a writer that may live: %v", err)
	}
	mustPut(t, r.b, "lease/key/0000000001", "x")
	mustPut(t, r.b, "lease/other/0000000001", "x")
	if err := r.b.Delete(t.Context(), "lease/key/0000000001"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lease/key")); !os.IsNotExist(err) {
		t.Errorf("an empty directory stays: %v", err)
	}
	if _, err := r.b.Stat(t.Context(), "lease/other/0000000001"); err != nil {
		t.Error(err)
	}
}

// TestDirDelete makes files in a directory that others take away whenever it is
// empty.
func TestDirDelete(t *testing.T) {
	t.Parallel()
	b := &dirBucket{filepath.Join(t.TempDir(), "bucket")}
	dir := filepath.Join(b.dir, "a/b")
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				if err := b.Delete(t.Context(), "a/b/c"); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		}
	})
	for range 3000 {
		f, _, err := b.temp(dir)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}
