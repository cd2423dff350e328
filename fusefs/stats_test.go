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

// useFiles reads two inputs twice each, writes 70,000 bytes, is refused three
// times and looks twice for what is not there. In the end it holds an input and
// a directory open.
const useFiles = `
import os, sys
big, small, out, at = sys.argv[1:5]
for path in (big, big, small, small):
    with open(path, 'rb') as f: f.read()
with open(out, 'wb', buffering=0) as f: f.write(b'x' * 70000)
for path in (big, small):
    try: open(path, 'r+b')
    except OSError: continue
    raise SystemExit('opened for writing: ' + path)
for path in (at + '/none', at + '/nothing'): assert not os.path.exists(path)
os.setxattr(at + '/work', 'user.held', b'1')
try: os.rename(small, at + '/work/x')
except OSError: pass
else: raise SystemExit('renamed an input')
held = open(small, 'rb'); listed = os.open(at, os.O_RDONLY)
print('held', flush=True)
sys.stdin.read()
`

func TestCountersTellWhatProgramsDid(t *testing.T) {
	for name, mounts := range map[string]func(*testing.T, *cas.Store) *mounted{
		"passthrough": func(t *testing.T, s *cas.Store) *mounted { return mount(t, s) },
		"writeback":   inUserNamespace,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			v := publish(t, s, "data", map[string]string{"big": strings.Repeat("b", 362144), "small": "small"})
			m := mounts(t, s)
			openPlace(t, s, m, testKey, map[string]cas.Digest{"set": v.Tree})
			at := m.path("at", testKey[:16])
			if st := m.stats(t); st["opens"] != 0 || st["open_files"] != 0 {
				t.Fatalf("before anything was opened: %v", st)
			}
			before := m.stats(t)
			argv := append(m.within, python(t), "-c", useFiles, filepath.Join(at, "in/set/big"), filepath.Join(at, "in/set/small"), filepath.Join(at, "out/a/o"), at)
			release := holdOpen(t, argv)
			// The kernel tells of a close in its own time.
			eventually(t, func() bool { return m.stats(t)["open_files"] == 1 })
			after := m.stats(t)

			want := map[string]int64{
				"opens": 6, "open_files": 1, "open_dirs": 1, "passthrough_opens": 3,
				"reads": 1, "read_bytes": 5, "writes": 0, "written_bytes": 0,
				"cache_hits": 1, "cache_misses": 1,
				"refused": 3, "io": 0, "space": 0, "busy": 0, "limit": 0,
			}
			if !m.info.Passthrough {
				want["passthrough_opens"] = 0
				// big and small are each read from disk once, then from the cache.
				want["cache_hits"], want["cache_misses"] = 2, 2
				want["read_bytes"] = 362149
				want["written_bytes"] = 70000
				// How many requests that takes is the kernel's choice.
				delete(want, "reads")
				delete(want, "writes")
				if n := after["reads"] - before["reads"]; n < 2 {
					t.Errorf("the bytes of two files came by %d reads", n)
				}
			}
			for key, n := range want {
				if got := after[key] - before[key]; got != n {
					t.Errorf("%s went up by %d, want %d", key, got, n)
				}
			}
			if n := after["absent"] - before["absent"]; n < 2 {
				t.Errorf("two names that are not there count as %d", n)
			}
			if after["uptime_seconds"] < 0 {
				t.Errorf("served for %d s", after["uptime_seconds"])
			}
			release()
			eventually(t, func() bool {
				st := m.stats(t)
				return st["open_files"] == 0 && st["open_dirs"] == 0
			})
			// What was open and never read came from the cache too, if anything.
			if st := m.stats(t); st["cache_hits"] != after["cache_hits"]+1 {
				t.Errorf("after the last close %d cache hits, before %d", st["cache_hits"], after["cache_hits"])
			}
		})
	}
}

func TestDamageCountsAsTrouble(t *testing.T) {
	s := newStore(t)
	v := publish(t, s, "data", map[string]string{"f": "bytes"})
	m := mount(t, s)
	e, err := s.Lookup(t.Context(), v.Tree, "f")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", e.Digest.String()[:2], e.Digest.String())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(m.path("artifacts/data/f")); err == nil {
		t.Fatal("read a blob that is gone")
	}
	if st := m.stats(t); st["io"] != 1 || st["absent"] != 0 {
		t.Errorf("a lost blob counts as %v", st)
	}
}

func TestDebugLogsRequestsByPath(t *testing.T) {
	s := newStore(t)
	publish(t, s, "data", map[string]string{"sub/f": "bytes"})
	m := mount(t, s, "--debug")
	openPlace(t, s, m, testKey, nil)
	run(t, "ls", "-l", m.path("artifacts/data/sub"))
	run(t, "cat", m.path("artifacts/data/sub/f"))
	run(t, "sh", "-c", "! touch "+m.path("artifacts/data/sub/g"))
	work := m.path("at", testKey[:16], "work")
	run(t, "sh", "-c", fmt.Sprintf("cd %s && mkdir d && exec 3>d/new && mv d moved && exec 3>&-", work))
	eventually(t, func() bool { return m.stats(t)["open_files"] == 0 })
	m.stop(t)
	log := m.log.String()
	for _, want := range []string{
		`msg="lookup /artifacts/data" `, `msg="readdir /artifacts/data/sub" `,
		`msg="open /artifacts/data/sub/f" flags=O_RDONLY answer=ok`, `msg="read /artifacts/data/sub/f" bytes=5 offset=0 answer=ok`,
		`msg="create /artifacts/data/sub/g" flags=O_WRONLY|O_CREAT answer=EROFS`,
		`msg="create /at/` + testKey[:16] + `/work/d/new" `, `msg="rename /at/` + testKey[:16] + `/work/d" to=/at/` + testKey[:16] + `/work/moved answer=ok`,
		`msg="close /at/` + testKey[:16] + `/work/moved/new" `,
		`msg="close /artifacts/data/sub/f" `,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", log)
	}
}
