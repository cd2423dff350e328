//go:build linux

package fusefs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// noise is what no remote can make smaller.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

func readFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Fatalf("%s has other bytes", path)
	}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// What a remote has is in the mount before any byte of it is here, and is read
// there, from wherever it is shown.
func TestRemoteIsShown(t *testing.T) {
	t.Parallel()
	big := noise(1, 20<<20+99)
	f := newFar(t, map[string]string{"big": big, "sub/deep/small": "hello", "empty": "", "run.sh": "#!/bin/sh\necho ran\n"})
	s := f.store(t)
	m := mount(t, s)
	if got := run(t, "ls", m.path("remotes"), m.path("remotes", "team")); !strings.Contains(got, "team") || !strings.Contains(got, "model") {
		t.Errorf("listed: %q", got)
	}
	if a := f.asked(t); a.requests+a.opened > 0 {
		t.Errorf("the names alone asked the remote for %q", a.keys)
	}
	model := m.path("remotes", "team", "model")
	if got := strings.Fields(run(t, "find", model, "-printf", "%P:%s:%M\n")); !slices.Contains(got, fmt.Sprintf("big:%d:-r--r--r--", len(big))) || !slices.Contains(got, "sub/deep/small:5:-r--r--r--") {
		t.Errorf("found: %q", got)
	}
	readFile(t, model+"/sub/deep/small", "hello")
	readFile(t, model+"/empty", "")
	readFile(t, m.path("remotes", "team", "model@1")+"/big", big)
	readFile(t, model+"/big", big)
	readFile(t, m.path("cas", f.tree.String())+"/sub/deep/small", "hello")

	for _, name := range []string{"none", "model@2", "model@", "model/none", "../nowhere"} {
		_, err := os.Lstat(m.path("remotes", "team", name))
		wantErrno(t, name, err, syscall.ENOENT)
	}
	_, err := os.OpenFile(model+"/big", os.O_RDWR, 0)
	wantErrno(t, "open for writing", err, syscall.EROFS)
	wantErrno(t, "truncate", os.Truncate(model+"/big", 0), syscall.EROFS)
	wantErrno(t, "make", os.WriteFile(model+"/new", nil, 0o666), syscall.EROFS)
	wantErrno(t, "remove", os.Remove(model+"/sub/deep/small"), syscall.EROFS)

	// Several processes at once, by reads and by mappings.
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if out, err := exec.Command(python(t), "-c", `
import mmap, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
whole = f.read()
assert m[:] == whole and len(whole) == int(sys.argv[2])
`, model+"/big", fmt.Sprint(len(big))).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()

	// Names change when curi pull says so, in the mount too.
	f.push(t, publish(t, f.have, "model", map[string]string{"newer": "yes"}))
	if _, err := os.Lstat(model + "/newer"); err == nil {
		t.Error("a name changed without a pull")
	}
	f.pull(t, s)
	readFile(t, model+"/newer", "yes")
	readFile(t, m.path("remotes", "team", "model@1")+"/sub/deep/small", "hello")
}

// A tree of a remote is the input of a stage, an artifact and a result as any
// other.
func TestRemoteInPlaces(t *testing.T) {
	t.Parallel()
	f := newFar(t, map[string]string{"out/model/weights": noise(2, 3<<20), "out/log.txt": "done", "record.json": "{}"})
	s := f.store(t)
	// The test's own store asks no helper: it knows the remote, and no more.
	if _, err := s.KeepPages(t.Context(), "team", f.tree); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Publish(t.Context(), "taken", f.tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRef(t.Context(), cas.Ref{Name: "run/train-000009", Tree: f.tree}); err != nil {
		t.Fatal(err)
	}
	m := mount(t, s)
	p := openPlace(t, s, m, testKey, map[string]cas.Digest{"data": f.tree})
	short := filepath.Base(p.Dir())
	weights := noise(2, 3<<20)
	setPlace(t, s, p, cas.PlaceState{Run: "train-000009", Attempt: 1, Mount: m.info.ID, Result: f.tree})
	for i, path := range []string{m.path("at", short, "out"), m.path("runs", "train-000009", "out"), m.path("artifacts", "taken", "out")} {
		got := run(t, "dd", "if="+path+"/model/weights", "bs=4096", "count=1", fmt.Sprintf("skip=%d", 200+200*i), "status=none")
		if got != weights[(200+200*i)*4096:][:4096] {
			t.Errorf("%s: other bytes", path)
		}
		if a := f.asked(t); a.bytes == 0 || a.bytes > 900<<10 {
			t.Errorf("%s: %d bytes came for 4096: %q", path, a.bytes, a.keys)
		}
	}
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1, Mount: m.info.ID, Active: true, Inputs: map[string]cas.Digest{"data": f.tree}})
	readFile(t, m.path("at", short, "in", "data", "out", "log.txt"), "done")
	readFile(t, m.path("artifacts", "taken", "out", "model", "weights"), noise(2, 3<<20))
	readFile(t, m.path("runs", "train-000009", "out", "log.txt"), "done")
	readFile(t, m.path("runs", "train-000009", "record.json"), "{}")
	setPlace(t, s, p, cas.PlaceState{Run: "train-000009", Attempt: 1, Mount: m.info.ID, Result: f.tree})
	readFile(t, m.path("at", short, "out", "log.txt"), "done")
	f.asked(t)
	readFile(t, m.path("at", short, "out", "model", "weights"), noise(2, 3<<20))
	if a := f.asked(t); a.requests > 0 {
		t.Errorf("what came was asked for again: %q", a.keys)
	}
	if rep, err := s.Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) > 0 {
		t.Errorf("verify: %+v, %v", rep.Bad, err)
	}
}

// The first byte of a file costs little, however many files there are.
func TestRemoteFirstByte(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	for i := range 3000 {
		files[fmt.Sprintf("d%d/f%05d", i%7, i)] = noise(byte(i), 200+i)
	}
	f := newFar(t, files)
	m := mount(t, f.store(t))
	f.tell(t, "slow", true)
	readFile(t, m.path("remotes", "team", "model", "d3", "f01578"), files["d3/f01578"])
	if a := f.asked(t); a.depth > 4 || a.bytes > 256<<10 {
		t.Errorf("%d requests, %d of which each waited for the one before, and %d bytes: %q", a.requests, a.depth, a.bytes, a.keys)
	} else {
		t.Logf("%d requests, %d deep, %d bytes", a.requests, a.depth, a.bytes)
	}
	f.tell(t, "slow", false)
	// All of a directory takes few requests more.
	for i := 3; i < 3000; i += 7 {
		readFile(t, m.path("remotes", "team", "model", "d3", fmt.Sprintf("f%05d", i)), files[fmt.Sprintf("d3/f%05d", i)])
	}
	if a := f.asked(t); a.requests > 60 {
		t.Errorf("%d files took %d requests", 3000/7, a.requests)
	} else {
		t.Logf("%d files: %d requests, %d bytes", 3000/7, a.requests, a.bytes)
	}
}

// What many readers ask for comes once; what nobody asks for does not come.
func TestRemoteReadsOnce(t *testing.T) {
	t.Parallel()
	data := noise(3, 64<<20)
	f := newFar(t, map[string]string{"data": data})
	alone := 0
	for _, readers := range []int{1, 20} {
		m := mount(t, f.store(t))
		path := m.path("remotes", "team", "model", "data")
		run(t, "stat", path)
		f.tell(t, "hang", true)
		f.asked(t)
		var cmds []*exec.Cmd
		for range readers {
			cmd := exec.Command("dd", "if="+path, "of=/dev/null", "bs=4096", "count=1", "skip=5000", "status=none")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		eventually(t, func() bool { return f.underWay(t) > 0 })
		for _, cmd := range cmds {
			eventually(t, func() bool { return sleeps(cmd.Process.Pid) })
		}
		f.tell(t, "hang", false)
		for _, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
		a := f.asked(t)
		if readers == 1 {
			alone = a.requests
		} else if a.requests != alone {
			t.Errorf("%d readers of one page took %d requests, one took %d: %q", readers, a.requests, alone, a.keys)
		}
		// One who jumps gets what he asks for, and little more.
		run(t, python(t), "-c", `
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for i in range(24):
    assert len(os.pread(fd, 4096, i * 37 % 24 * 2500000)) == 4096
`, path)
		if a := f.asked(t); a.bytes > 24*(400<<10) {
			t.Errorf("24 reads of 4 KiB fetched %d bytes", a.bytes)
		}
		// One who goes through it is read ahead of by large requests.
		run(t, "cat", path)
		if a := f.asked(t); a.requests > 150 {
			t.Errorf("reading %d bytes in order took %d requests", len(data), a.requests)
		} else {
			t.Logf("%d readers: in order, %d requests", readers, a.requests)
		}
	}
}

// sleeps reports whether a process waits for something that signals do not end.
func sleeps(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "S") || strings.HasPrefix(rest, "D")
}

// A server that ends in the midst of a file, or is killed while bytes come,
// loses nothing that came.
func TestRemoteIsResumed(t *testing.T) {
	t.Parallel()
	data := noise(4, 72<<20) // more than is read ahead of who reads 15 MiB
	f := newFar(t, map[string]string{"data": data, "small": "hello"})
	s := f.store(t)
	m := mount(t, s)
	head := func(m *mounted, n int) {
		t.Helper()
		got := run(t, "head", "-c", fmt.Sprint(n), m.path("remotes", "team", "model", "data"))
		if got != data[:n] {
			t.Fatal("other bytes")
		}
	}
	head(m, 15<<20)
	f.asked(t)
	m.stop(t) // in order

	m = mount(t, s)
	head(m, 15<<20)
	if a := f.asked(t); a.requests > 0 {
		t.Errorf("what came was asked for again, and what was known of it: %q", a.keys)
	}
	// Now it is killed while a range is under way.
	f.tell(t, "hang", true)
	cmd := exec.Command("cat", m.path("remotes", "team", "model", "data"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.underWay(t) > 0 })
	m.cmd.Process.Kill()
	<-m.done
	if err := cmd.Wait(); err == nil {
		t.Error("a reader whose server died saw nothing of it")
	}
	if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	f.tell(t, "hang", false)
	f.asked(t)

	m = mount(t, s)
	readFile(t, m.path("remotes", "team", "model", "data"), data)
	if a := f.asked(t); a.bytes > 58<<20 {
		t.Errorf("%d bytes came, of which 15 MiB were here", a.bytes)
	}
	eventually(t, func() bool { return s.HasBlob(cas.Sum([]byte(data))) })
	if rep, err := s.Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) > 0 {
		t.Errorf("verify: %+v, %v", rep.Bad, err)
	}
}

// Damage on the way is an error with a name, never a wrong byte, and no more
// once it is over.
func TestRemoteDamage(t *testing.T) {
	t.Parallel()
	data := noise(5, 4<<20)
	f := newFar(t, map[string]string{"data": data, "small": "hello"})
	s := f.store(t)
	m := mount(t, s)
	dir := m.path("remotes", "team", "model")
	run(t, "ls", dir)
	f.tell(t, "flip", true)
	for name, want := range map[string]string{"data": data, "small": "hello"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if !errors.Is(err, syscall.EIO) || !strings.HasPrefix(want, string(got)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		d := cas.Sum([]byte(want)).String()
		// The answer may be faster than the log.
		eventually(t, func() bool { return strings.Contains(m.log.String(), "digest="+d) })
	}
	f.tell(t, "flip", false)
	readFile(t, dir+"/data", data)
	readFile(t, dir+"/small", "hello")
}

// A remote that is away costs little: what only it has is an error at once, and
// what is here is read as ever.
func TestRemoteAway(t *testing.T) {
	t.Parallel()
	files := map[string]string{"data": noise(6, 4<<20)}
	for i := range 300 {
		files[fmt.Sprintf("f%03d", i)] = noise(byte(i), 30_000)
	}
	f := newFar(t, files)
	s := f.store(t)
	publish(t, s, "local", map[string]string{"big": noise(7, 1<<20)})
	m := mount(t, s)
	dir := m.path("remotes", "team", "model")
	run(t, "ls", dir)
	readFile(t, dir+"/f007", files["f007"])
	f.asked(t)
	f.tell(t, "away", true)
	for name := range files {
		if name == "f007" {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil && string(got) == files[name] {
			continue // its neighbour came along with f007
		}
		wantErrno(t, name, err, syscall.EIO)
	}
	a := f.asked(t)
	if a.requests == 0 || a.requests > 30 {
		t.Errorf("300 files of a remote that is away made %d requests", a.requests)
	}
	readFile(t, dir+"/f007", files["f007"])
	readFile(t, m.path("artifacts", "local", "big"), noise(7, 1<<20))
	if text := m.log.String(); !strings.Contains(text, "told to be away") || !strings.Contains(text, cas.Sum([]byte(files["data"])).String()) {
		t.Errorf("the log does not say why: %.2000s", text)
	}
	f.tell(t, "away", false)
	eventually(t, func() bool { _, err := os.ReadFile(dir + "/data"); return err == nil })
	readFile(t, dir+"/data", files["data"])
}

// A file that has become whole is served by passthrough, from the first open
// after the last of those that it was read by.
func TestRemoteFileIsPromoted(t *testing.T) {
	t.Parallel()
	data := noise(8, 6<<20)
	f := newFar(t, map[string]string{"data": data})
	s := f.store(t)
	m := mount(t, s)
	path := m.path("remotes", "team", "model", "data")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	readFile(t, path, data)
	eventually(t, func() bool { return s.HasBlob(cas.Sum([]byte(data))) })
	file.Close()
	readFile(t, path, data) // the mapping holds it still
	if string(mapped) != data {
		t.Error("mapped: other bytes")
	}
	before := m.stats(t)["passthrough_opens"]
	if before != 0 {
		t.Errorf("%d passthrough opens while a mapping was there", before)
	}
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	if !m.info.Passthrough {
		t.Logf("no passthrough: %s", m.info.Reason)
		return
	}
	eventually(t, func() bool {
		readFile(t, path, data)
		return m.stats(t)["passthrough_opens"] > before
	})
	f.asked(t)
	readFile(t, path, data)
	if a := f.asked(t); a.requests > 0 {
		t.Errorf("a whole file was asked for: %q", a.keys)
	}
}

// A process that waits for a remote can be killed, and no other signal ends its
// read.
func TestRemoteReaderIsKilled(t *testing.T) {
	t.Parallel()
	f := newFar(t, map[string]string{"data": noise(9, 4<<20)})
	m := mount(t, f.store(t))
	path := m.path("remotes", "team", "model", "data")
	run(t, "stat", path)
	f.tell(t, "hang", true)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command("cat", path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return f.underWay(t) > 0 && sleeps(cmd.Process.Pid) })
		cmd.Process.Signal(sig)
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatalf("signal %v does not end a process that waits for a remote", sig)
		}
	}
	f.tell(t, "hang", false)

	// A read waits for a page of the cache, a look-up for the server itself.
	m = mount(t, f.store(t))
	path = m.path("remotes", "team", "model", "data")
	f.tell(t, "stall", true)
	f.asked(t)
	cmd := exec.Command("stat", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return f.underWay(t) > 0 && sleeps(cmd.Process.Pid) })
	cmd.Process.Kill()
	cmd.Wait()
	// It did not end by what the remote could not answer in time.
	if st := m.stats(t); st["io"] != 0 || st["busy"] == 0 {
		t.Errorf("a look-up whose process was killed went on: %v", st)
	}

	usr := make(chan os.Signal, 10)
	signal.Notify(usr, syscall.SIGUSR1)
	defer signal.Stop(usr)
	thread, result := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		var st unix.Stat_t
		result <- unix.Stat(path, &st)
	}()
	tid := <-thread
	eventually(t, func() bool { return sleeps(tid) })
	for range 3 {
		if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-result:
			t.Fatalf("a signal with a handler ended a look-up: %v", err)
		case <-time.After(100 * time.Millisecond): // long enough for one that would
		}
	}
	f.tell(t, "stall", false)
	if err := <-result; err != nil {
		t.Errorf("after the signals: %v", err)
	}
}
