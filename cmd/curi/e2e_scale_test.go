package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// heavy is set where these tests are to run with the numbers that stores are
// said to hold, which takes many minutes: CURI_TEST_HEAVY=1.
var heavy = os.Getenv("CURI_TEST_HEAVY") != ""

// size picks the number for every day or the one for heavy tests.
func scale(everyDay, heavyDay int) int {
	if heavy {
		return heavyDay
	}
	return everyDay
}

// What memory may take, in KiB; docs/cookbook.md tells what it does take.
const (
	baseMemory = 96 << 10 // of any process, buffers and collector included
	addPerFile = 2.0      // of curi add, for each file
	gcPerFile  = 0.5      // of curi gc, fsck and du
	mntPerFile = 2.0      // of curifs, for each file that the kernel knows
)

// newScaleLab makes a lab whose store and files lie in memory, so that the disk
// does not count; the heavy ones on an ext4.
func newScaleLab(t *testing.T) (s *site, fs string) {
	t.Helper()
	s = newLab(t)
	if fs = s.in("fs"); !heavy {
		s.ok("sh", "-c", `mkdir "$1" && mount -t tmpfs -o mode=755 none "$1"`, "sh", fs)
	} else {
		s.ok("sh", "-c", `set -e; mkdir "$1"; truncate -s 40G "$1.img"; mkfs.ext4 -q -m 0 -i 4096 "$1.img"; mount -o loop "$1.img" "$1"`, "sh", fs)
	}
	s.useStore(fs + "/store")
	return s, fs
}

// makeFiles makes n small files that all differ, so many in each directory.
func (s *site) makeFiles(dir string, n, each int) {
	s.t.Helper()
	s.ok("python3", "-c", `if True:
		import os, sys
		top, n, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		for i in range(n):
			d = "%s/d%05d" % (top, i // each)
			if i % each == 0: os.makedirs(d)
			f = os.open("%s/f%07d" % (d, i), os.O_CREAT | os.O_WRONLY, 0o644)
			os.write(f, b"file %d\n" % i)
			os.close(f)`, dir, fmt.Sprint(n), fmt.Sprint(each))
}

// withPeak is a Python program that runs a command and writes the most memory
// that it had to the file $1. (A child of this process begins with the memory
// of this process.)
const withPeak = `if True:
	import resource, subprocess, sys
	status = subprocess.call(sys.argv[2:])
	with open(sys.argv[1], "w") as f:
		print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=f)
	sys.exit(status)`

// peak runs a command that must succeed and returns the most memory that it
// had, in KiB, and what it printed.
func (s *site) peak(argv ...string) (kib int, stdout string) {
	s.t.Helper()
	stdout = s.ok(append([]string{"python3", "-c", withPeak, s.side + "/peak"}, argv...)...)
	kib, err := strconv.Atoi(strings.Join(s.lines("peak"), ""))
	if err != nil {
		s.t.Fatal(err)
	}
	return kib, stdout
}

// bounded checks the memory that something with n files took.
func bounded(t *testing.T, what string, kib, n int, perFile float64) {
	t.Helper()
	t.Logf("%s: %d MiB for %d files", what, kib>>10, n)
	if limit := baseMemory + int(perFile*float64(n)); kib > limit {
		t.Errorf("%s took %d KiB of memory, want at most %d", what, kib, limit)
	}
}

// A server is the process that serves the lab's mount.
type server struct{ pid string }

func (s *site) serverOf(dir string) server {
	s.t.Helper()
	s.mount = dir
	return server{strconv.Itoa(s.server())}
}

// memory is a line of the process's status in KiB: VmHWM is the most it had,
// VmRSS what it has.
func (v server) memory(t *testing.T, line string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + v.pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), line+":")
	n := 0
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// pipes is how many descriptors a server may keep for its large reads.
const pipes = 32

// files is how many descriptors the process has open.
func (v server) files(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/" + v.pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// One artifact of very many files is handled in memory that grows with their
// number, by a known amount; what the mount took it gives back.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	s, fs := newScaleLab(t)
	n, each := scale(50_000, 1_000_000), 1000
	s.makeFiles(fs+"/many", n, each)
	kib, _ := s.peak("curi", "add", fs+"/many", "--name", "many")
	bounded(t, "curi add", kib, n, addPerFile)
	kib, _ = s.peak("curi", "add", fs+"/many", "--name", "many")
	bounded(t, "curi add, once more", kib, n, addPerFile)
	s.ok("rm", "-rf", fs+"/many")
	for _, argv := range [][]string{{"curi", "ls"}, {"curi", "show", "many"}, {"curi", "du"}, {"curi", "gc"}, {"curi", "fsck", "--sample", "1%"}} {
		kib, _ = s.peak(argv...)
		bounded(t, strings.Join(argv[:2], " "), kib, n, gcPerFile)
	}
	kib, _ = s.peak("curi", "checkout", "many/d00003", fs+"/copy")
	bounded(t, "curi checkout of one directory", kib, 0, 0)
	if text := s.ok("cat", fs+"/copy/f0003999"); text != "file 3999\n" {
		t.Error(text)
	}

	if text := s.read(s.path("many/d00003/f0003999")); text != "file 3999\n" {
		t.Error(text)
	}
	if made := s.ok("sh", "-c", `find "$CURI_STORE/views" | wc -l`); len(made) > len("1234\n") {
		t.Errorf("curi path of one file made %s links", made)
	}

	dir := s.mountLab()
	v := s.serverOf(dir)
	base := v.memory(t, "VmRSS")
	for range 2 {
		if found := s.ok("sh", "-c", "find "+dir+"/artifacts/many -type f -size +0 | wc -l"); strings.TrimSpace(found) != strconv.Itoa(n) {
			t.Errorf("find sees %s", found)
		}
	}
	bounded(t, "curifs, after find", v.memory(t, "VmHWM"), n, mntPerFile)
	s.ok("sh", "-c", "find "+dir+"/artifacts/many/d0000* -type f -exec cat {} + >/dev/null")
	bounded(t, "curifs, after cat", v.memory(t, "VmHWM"), n, mntPerFile)
	full := v.memory(t, "VmRSS")
	s.forgotten("the memory", func() bool { return v.memory(t, "VmRSS") < base+(full-base)/3 })
	t.Logf("curifs: %d MiB at first, %d MiB with all files known, %d MiB when they were forgotten", base>>10, full>>10, v.memory(t, "VmRSS")>>10)
}

// forgotten makes the kernel forget the names and inodes of the lab's mount
// that nobody uses, as it does where memory is short, and waits until the
// server has given something back. Its collector runs every two minutes at least.
func (s *site) forgotten(what string, back func() bool) {
	s.t.Helper()
	var forgot time.Time
	for end := time.Now().Add(6 * time.Minute); !back(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("curifs does not give back %s", what)
		}
		if time.Since(forgot) > 5*time.Second {
			s.ok("mount", "-i", "-o", "remount", s.mount) // which shrinks the caches of this filesystem alone
			forgot = time.Now()
		}
	}
}

// A directory of very many entries can be added, listed, looked up in, and be
// what a stage writes.
func TestLargeDirectory(t *testing.T) {
	t.Parallel()
	s, fs := newScaleLab(t)
	n := scale(20_000, 200_000)
	s.makeFiles(fs+"/wide", n, n)
	kib, _ := s.peak("curi", "add", fs+"/wide/d00000", "--name", "wide")
	bounded(t, "curi add", kib, n, addPerFile)
	dir := s.mountLab()
	v := s.serverOf(dir)
	open := v.files(t)
	last := fmt.Sprintf("f%07d", n-1)
	wide := dir + "/artifacts/wide"
	if names := strings.Fields(s.ok("ls", "-U", wide)); len(names) != n {
		t.Errorf("%d names are listed", len(names))
	}
	s.ok("sh", "-c", `test "$(ls -l "$1" | wc -l)" -eq `+strconv.Itoa(n+1), "sh", wide)
	if text := s.ok("cat", wide+"/"+last); text != fmt.Sprintf("file %d\n", n-1) {
		t.Error(text)
	}
	s.fails(1, "", "test", "-e", wide+"/absent")

	for _, way := range []way{byMount, byCopy} {
		s.way = way
		stage := []string{"--name", "wide-" + string(way), "--param", "way=" + string(way), "--in", "d=wide", "--out", "o=o/", "--", "cp", "-r", "{in.d}/.", "{out.o}"}
		argv := s.execArgv(stage...)
		kib, out := s.peak(argv...)
		bounded(t, "curi stage exec, "+string(way), kib, n, addPerFile)
		r := decode[result](s, out)
		if o := r.Outputs["o"]; o.Files != int64(n) || s.read(o.Path+"/"+last) != fmt.Sprintf("file %d\n", n-1) {
			t.Errorf("%s: %+v", way, r)
		}
		if again := s.stage(stage...); !again.Cached {
			t.Errorf("%s: no hit", way)
		}
	}
	bounded(t, "curifs", v.memory(t, "VmHWM"), 2*n, mntPerFile)
	s.forgotten("descriptors", func() bool { return v.files(t) <= open+pipes })
	s.ok("curi", "fsck")
}

// openAll is a Python program that opens every file below the directory $1,
// reads a little of each, and prints how many there are when all are open at once.
const openAll = `if True:
	import os, resource, sys
	hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
	resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
	fds = []
	for top, _, names in os.walk(sys.argv[1]):
		for name in names:
			fds.append(os.open(top + "/" + name, os.O_RDONLY))
	for fd in fds:
		assert os.pread(fd, 4, 0) == b"file"
	print(len(fds))`

// openMany is one that opens the files below $1 again and again, $2 times in
// all, and maps, reads and closes them.
const openMany = `if True:
	import mmap, os, sys
	paths = [top + "/" + name for top, _, names in os.walk(sys.argv[1]) for name in names]
	for i in range(int(sys.argv[2])):
		fd = os.open(paths[i % len(paths)], os.O_RDONLY)
		assert os.read(fd, 4) == b"file"
		if i % 16 == 0:
			m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
			assert m[:4] == b"file"
			m.close()
		os.close(fd)`

// Very many files can be open at once, and opening files very many times
// leaves nothing behind: with passthrough as root, and without.
func TestOpenFiles(t *testing.T) {
	for _, who := range []user{{}, theNobody} {
		t.Run("root="+strconv.FormatBool(who.name == ""), func(t *testing.T) {
			t.Parallel()
			root, fs := newScaleLab(t)
			small, large := scale(4_000, 9_000), scale(200, 1_000)
			root.makeFiles(fs+"/files/small", small, 1000)
			root.makeFiles(fs+"/files/large", large, 1000)
			// Large enough for passthrough, and sparse.
			root.ok("sh", "-c", `find "$1" -type f -exec truncate -s 70000 {} +`, "sh", fs+"/files/large")
			root.ok("curi", "add", fs+"/files", "--name", "files")
			root.give(who, fs, root.in("mnt"), root.in("home"))
			s := root.as(who)
			dir := s.mountLab()
			v := s.serverOf(dir)
			base := v.files(t)
			if n := strings.TrimSpace(s.ok("python3", "-c", openAll, dir+"/artifacts/files")); n != strconv.Itoa(small+large) {
				t.Errorf("%s files were open at once, want %d", n, small+large)
			}
			s.eventually(nil, "curifs to close them", func() bool { return v.files(t) <= base+pipes })
			open := v.files(t)

			opens := scale(10_000, 100_000)
			s.ok("python3", "-c", openMany, dir+"/artifacts/files", fmt.Sprint(opens))
			before := v.memory(t, "VmRSS")
			s.ok("python3", "-c", openMany, dir+"/artifacts/files", fmt.Sprint(opens))
			s.eventually(nil, "curifs to close them", func() bool { return v.files(t) <= open })
			if after := v.memory(t, "VmRSS"); after > before+16<<10 {
				t.Errorf("%d more opens took %d KiB", opens, after-before)
			}
		})
	}
}

// A large sparse file is referred to without much memory and without reading
// its holes.
func TestSparseReference(t *testing.T) {
	t.Parallel()
	s, fs := newScaleLab(t)
	gib := scale(1, 200)
	size := int64(gib) << 30
	path := fs + "/sparse"
	s.ok("truncate", "-s", fmt.Sprint(size), path)
	where := []int64{0, size/2 - 3, size - 8}
	for _, at := range where {
		s.ok("sh", "-c", `printf "%08d" `+strconv.FormatInt(at%100_000_000, 10)+` | dd of="$1" bs=1 seek=`+strconv.FormatInt(at, 10)+` conv=notrunc status=none`, "sh", path)
	}
	kib, out := s.peak("curi", "add", path, "--name", "sparse", "--reference", "--json")
	bounded(t, "curi add --reference", kib, 1, addPerFile)
	if used := s.usedBlocks(fs); used > 64<<10 {
		t.Errorf("%d KiB are in use", used)
	}
	if !heavy {
		if digest, _, _ := strings.Cut(s.ok("b3sum", path), " "); !strings.Contains(out, digest) {
			t.Errorf("curi add printed %s, b3sum %s", out, digest)
		}
	}
	kib, _ = s.peak("curi", "fsck")
	bounded(t, "curi fsck", kib, 1, gcPerFile)
	dir := s.mountLab()
	v := s.serverOf(dir)
	for _, at := range where {
		got := s.ok("sh", "-c", `tail -c +`+strconv.FormatInt(at+1, 10)+` "$1" | head -c 8`, "sh", filepath.Join(dir, "artifacts/sparse/sparse"))
		if want := fmt.Sprintf("%08d", at%100_000_000); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	bounded(t, "curifs", v.memory(t, "VmHWM"), 1, mntPerFile)
	s.ok("truncate", "-s", "+1", path)
	if o := s.run("curi", "fsck"); o.status != 122 || !strings.Contains(o.stdout, "changed since it was added") {
		t.Errorf("curi fsck of a file that changed: %s", o)
	}
}
