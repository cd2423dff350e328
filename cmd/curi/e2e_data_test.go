package main_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// stats are the mount's counters of requests that reached its process.
func (s *site) stats() struct{ Opens, Reads, Writes int64 } {
	s.t.Helper()
	return decode[struct{ Opens, Reads, Writes int64 }](s, s.ok("getfattr", "--only-values", "-n", "user.curi.stats", s.mount))
}

// As root, bytes of local blobs and of outputs never pass through user space.
func TestPassthroughKeepsDataInTheKernel(t *testing.T) {
	s := newSite(t, byMount)
	status := decode[struct {
		Mounts []struct {
			Dir         string
			Passthrough bool
			Reason      string
		}
	}](s, s.ok("curi", "status", "--json"))
	if len(status.Mounts) != 1 {
		t.Fatalf("curi status: %+v", status)
	}
	need(t, status.Mounts[0].Passthrough, "FUSE passthrough: "+status.Mounts[0].Reason)

	s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=16", "status=none")
	s.ok("curi", "add", "large", "--name", "large")
	before := s.stats()
	s.ok("cmp", "large", s.mount+"/artifacts/large/large")
	s.ok("python3", "-c", `import mmap, sys
f = open(sys.argv[1], "rb")
assert mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:] == open("large", "rb").read()`, s.mount+"/artifacts/large/large")
	r := s.stage("--name", "write", "--in", "large=large", "--out", "copy=copy", "--work", "w", "--",
		"sh", "-c", "cp {in.large} {out.copy} && dd if={in.large} of={work.w}/f bs=4k status=none conv=fsync && cmp {work.w}/f {out.copy}")
	s.ok("cmp", "large", r.Outputs["copy"].Path)
	after := s.stats()
	if after.Opens == before.Opens {
		t.Errorf("nothing was opened through the mount: %+v", after)
	}
	if r, w := after.Reads-before.Reads, after.Writes-before.Writes; r != 0 || w != 0 {
		t.Errorf("%d reads and %d writes reached user space", r, w)
	}
}

// Adding and serving hold at most 256 MiB, however large the file.
func TestMemoryIsBounded(t *testing.T) {
	const limit = 256 << 10 // KiB
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		// The start is real and the rest a hole, so that the disk is not what is tested.
		s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=8", "status=none")
		s.ok("truncate", "-s", "1G", "large")
		s.write("peak.py", `import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)`)
		peak := func(argv ...string) {
			t.Helper()
			kib, err := strconv.Atoi(strings.TrimSpace(s.ok(append([]string{"python3", "peak.py"}, argv...)...)))
			if err != nil || kib > limit {
				t.Errorf("%v held %d KiB (%v)", argv, kib, err)
			}
		}
		peak("curi", "add", "large", "--name", "large")
		if w == byUser {
			// A mount that stays, so that its process can be looked at.
			s.mountStore()
		}
		peak(s.execArgv("--name", "copy", "--in", "large=large", "--out", "copy=copy", "--",
			"cp", "--sparse=always", "{in.large}", "{out.copy}")...)
		peak("sh", "-c", "curi cat large | cmp - large")
		peak("curi", "checkout", "large", "mine")
		peak("curi", "fsck")
		if s.mount == "" {
			return
		}
		s.ok("cmp", "large", s.mount+"/artifacts/large/large")
		s.ok("python3", "-c", `import mmap, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
assert sum(m[i] for i in range(8 << 20, len(m), 4096)) == 0`, s.mount+"/artifacts/large/large")
		if kib := peakOf(t, s.server()); kib > limit {
			t.Errorf("curifs held %d KiB", kib)
		}
	})
}

// server is the process that serves the site's mount.
func (s *site) server() int {
	s.t.Helper()
	status := decode[struct {
		Mounts []struct {
			Dir string
			PID int
		}
	}](s, s.ok("curi", "status", "--json"))
	for _, m := range status.Mounts {
		if m.Dir == s.mount {
			return m.PID
		}
	}
	s.t.Fatalf("curi status does not know the mount %s: %+v", s.mount, status)
	return 0
}

// peakOf is the most memory that a process has held, in KiB.
func peakOf(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// The recipe itself leaves nothing mounted and nothing running where no mount
// was up before.
func TestExecLeavesItsOwnMount(t *testing.T) {
	s := newSite(t, byUser)
	r := s.stage(recipe{}.argv()...)
	s.eventually(nil, "the mount made for the run to go", func() bool {
		mounts, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.space.pid), "mounts"))
		if err != nil {
			t.Fatal(err)
		}
		return !strings.Contains(string(mounts), "fuse.curi")
	})
	if text := s.read(r.Outputs["model"].Path); !strings.HasPrefix(text, "model of") {
		t.Errorf("the output's path is gone with the mount: %q", text)
	}
}
