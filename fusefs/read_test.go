//go:build linux

package fusefs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

func TestReadsWithPassthroughNeverReachTheServer(t *testing.T) {
	s := newStore(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	v := publish(t, s, "data", map[string]string{"big": string(big), "sub/small": "hello"})
	m := mount(t, s)
	if !m.info.Passthrough {
		skip(t, "no passthrough: "+m.info.Reason)
	}
	for _, p := range []string{m.path("artifacts", "data", "big"), m.path("cas", v.Tree.String(), "big"), m.path("artifacts", "data@1", "big")} {
		got, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, big) {
			t.Errorf("%s has other bytes", p)
		}
	}
	if st := m.stats(t); st["reads"] != 0 || st["opens"] != 3 {
		t.Errorf("want 3 opens and no reads, have %v", st)
	}
	got, err := os.ReadFile(m.path("artifacts", "data", "sub", "small"))
	if err != nil || string(got) != "hello" {
		t.Errorf("small file: %q, %v", got, err)
	}
}

// A store that is only read stays as it is.
func TestReadingLeavesNoAccessTimes(t *testing.T) {
	s := newStore(t)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	publish(t, s, "data", map[string]string{"big": big})
	m := mount(t, s)
	d := cas.Sum([]byte(big)).String()
	blob := filepath.Join(s.Dir(), "blobs", d[:2], d)
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := os.Chtimes(blob, old, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(m.path("artifacts/data/big")); err != nil || string(got) != big {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	fi, err := os.Stat(blob)
	if err != nil {
		t.Fatal(err)
	}
	if at := fi.Sys().(*syscall.Stat_t).Atim; at.Sec != old.Unix() {
		t.Errorf("accessed at %v", time.Unix(at.Sec, 0))
	}
}

// That a name is missing in a tree is asked once: nothing appears there.
func TestMissingNamesAreRemembered(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"a": "1"})
	m := mount(t, s)
	before := int64(0)
	for i := range 100 {
		if _, err := os.Stat(m.path("artifacts/data/b")); !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if i == 0 {
			before = m.stats(t)["lookups"]
		}
	}
	if n := m.stats(t)["lookups"] - before; n > 5 {
		t.Errorf("%d look-ups for a name that was missing before", n)
	}
}
