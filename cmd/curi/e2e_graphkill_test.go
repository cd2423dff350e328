package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// slowSite is a project of small stages that each wait for a file.
func slowSite(t *testing.T, w way, n int, more string) *site {
	s := bareSite(t, w)
	var y strings.Builder
	y.WriteString("stages:\n  first: {shell: 'echo first >> $SIDE/ran; echo x > {out.o}', out: {o: o}}\n")
	for i := range n {
		fmt.Fprintf(&y, "  s%d:\n    shell: 'echo {in.x} > {out.o}; echo s%d >> $SIDE/ran; echo $$ >> $SIDE/pids; while ! test -e $SIDE/go; do sleep 0.05; done'\n    in: {x: first.o}\n    out: {o: o}\n%s", i, i, more)
	}
	y.WriteString("  last: {shell: 'echo last >> $SIDE/ran; cat")
	for i := range n {
		fmt.Fprintf(&y, " {in.x%d}", i)
	}
	y.WriteString(" > {out.o}', out: {o: o}, in: {")
	for i := range n {
		fmt.Fprintf(&y, "x%d: s%d.o, ", i, i)
	}
	y.WriteString("}}\n")
	s.write("curi.yaml", y.String())
	return s
}

// Curi is killed while a graph runs: nothing goes on, nothing stays locked, and
// the next call goes on where it was.
func TestProjectKilled(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := slowSite(t, w, 3, "    resources: {cpus: 1}\n")
		j := s.begin(s.execArgv("--all", "--jobs", "2")...)
		s.eventually(j, "two stages to run", func() bool { return len(s.lines("pids")) == 2 })
		if err := j.Process.Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		_ = j.Wait()
		for _, pid := range s.lines("pids") {
			s.eventually(nil, "the orphan to end", func() bool { return !alive(pid) })
		}
		// The guard settles what curi left.
		want := []string{"first: cached", "s0: failed", "s1: failed", "s2: stale", "last: stale"}
		s.eventually(nil, "the runs to be settled", func() bool { return slices.Equal(s.status(), want) })
		s.wantRan("first", "s0", "s1")
		s.touch("go")
		s.ok(s.execArgv("--all", "--jobs", "3")...)
		s.wantRan("s0", "s1", "s2", "last")
	})
}

// Curi is killed after each thing that it says, again and again: each call goes
// on where the one before was, and nothing is left of any.
func TestProjectKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 3, "    resources: {cpus: 1}\n")
	s.touch("go") // nobody waits
	for n := 1; ; n++ {
		j := s.begin(s.execArgv("--all", "--jobs", "2")...)
		said := func() bool { return strings.Count(j.stderr.String(), "\n") >= n }
		s.eventually(nil, fmt.Sprintf("%d lines, or the end", n), func() bool { return said() || !alive(strconv.Itoa(j.Process.Pid)) })
		_ = j.Process.Signal(os.Kill)
		if o := s.finish(j); o.status == 0 {
			break
		} else if o.status != 137 {
			t.Fatal(o)
		}
		if n > 40 {
			t.Fatal("it never comes to an end")
		}
	}
	for _, line := range s.status() {
		if !strings.HasSuffix(line, ": cached") {
			t.Error(line)
		}
	}
	for _, pid := range s.lines("pids") {
		s.eventually(nil, "the orphan to end", func() bool { return !alive(pid) })
	}
	if text := s.ok("curi", "cat", "last.o"); strings.Count(text, "/in/x/o\n") != 3 {
		t.Errorf("the last stage made %q", text)
	}
	s.ok("curi", "fsck")
	s.wantNothingHeld()
}

// wantNothingHeld checks that nobody has a lock of a GPU, a CPU or a key.
func (s *site) wantNothingHeld() {
	s.t.Helper()
	var locks []string
	for _, pattern := range []string{"/locks/slot/*/*", "/locks/key/*"} {
		found, _ := filepath.Glob(s.store + pattern)
		locks = append(locks, found...)
	}
	if len(locks) == 0 {
		s.t.Error("there are no locks to look at")
	}
	for _, lock := range locks {
		s.eventually(nil, lock+" to be free", func() bool { return s.run("flock", "--nonblock", lock, "true").status == 0 })
	}
}

// Nobody settles a run whose curi and guard are killed at once; nobody is told
// that it goes on all the same.
func TestRunThatNobodySettled(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 1, "")
	j := s.begin(s.execArgv("s0")...)
	s.eventually(j, "the stage to run", func() bool { return len(s.lines("pids")) == 1 })
	// The command dies with the guard.
	for _, pid := range []int{j.Process.Pid, parentOf(t, s.lines("pids")[0])} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_ = j.Wait()
	type told struct {
		Status string `json:"status"`
	}
	// A process that is on its way out holds the key a moment longer.
	s.eventually(nil, "curi log to say that it is lost", func() bool {
		return decode[[]told](s, s.ok("curi", "log", "--stage", "s0", "--json"))[0].Status == "lost"
	})
	if st := decode[struct{ Running []told }](s, s.ok("curi", "status", "--json")); len(st.Running) > 0 {
		t.Errorf("still said to run: %v", st.Running)
	}
	if n := len(decode[[]told](s, s.ok("curi", "log", "--failed", "--json"))); n != 1 {
		t.Errorf("%d runs failed, want one", n)
	}
}

// Two calls at once run each stage once.
func TestTwoProjectsAtOnce(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 2, "")
	jobs := []*job{s.begin(s.execArgv("--all", "--jobs", "2")...), s.begin(s.execArgv("--all", "--jobs", "2")...)}
	s.eventually(nil, "one to wait for the other", func() bool {
		waits := 0
		for _, j := range jobs {
			waits += strings.Count(j.stderr.String(), "waiting for run s")
		}
		return waits == 2
	})
	s.touch("go")
	for _, j := range jobs {
		if o := s.finish(j); o.status != 0 {
			t.Error(o)
		}
	}
	s.wantRan("first", "s0", "s1", "last")
}

// GPUs are shared out to calls of the same machine, each its own.
func TestProjectSharesGPUs(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 2, "    resources: {gpus: 1}\n    params: {n: 1}\n    via: env\n    env: [WHO]\n")
	file, err := os.ReadFile(filepath.Join(s.dir, "curi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("curi.yaml", strings.ReplaceAll(string(file), "echo $$ >>", "echo gpu-$CUDA_VISIBLE_DEVICES >> $SIDE/gpus; echo $$ >>"))
	s.env = append(s.env, "CUDA_VISIBLE_DEVICES=3,GPU-5f")
	s.fails(124, "wants 3 GPUs, and this machine gives it 2", append([]string{"sh", "-c", `sed -i 's/gpus: 1/gpus: 3/' curi.yaml; "$@"; rc=$?; sed -i 's/gpus: 3/gpus: 1/' curi.yaml; exit $rc`, "-"}, s.execArgv("s0")...)...)
	_ = os.Remove(s.side + "/ran")
	s.env = append(s.env, "WHO=a")
	first := s.begin(s.execArgv("s0", "s1", "--jobs", "2")...)
	s.eventually(first, "both GPUs to be in use", func() bool { return len(s.lines("pids")) == 2 })
	gpus := s.lines("gpus")
	slices.Sort(gpus)
	if !slices.Equal(gpus, []string{"gpu-3", "gpu-GPU-5f"}) {
		t.Errorf("the runs saw %v", gpus)
	}
	s.env = append(s.env, "WHO=b")
	second := s.begin(s.execArgv("s0")...)
	s.eventually(second, "another call to wait", func() bool { return strings.Contains(second.stderr.String(), "waiting for 1 of 1 gpus") })
	// Who is killed gives them back, but not before what it ran is gone: while
	// the guards are stopped, the GPUs are held.
	var guards []int
	for _, pid := range s.lines("pids") {
		guards = append(guards, parentOf(t, pid))
	}
	signalAll := func(sig syscall.Signal) {
		for _, pid := range guards {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Error(err)
			}
		}
	}
	signalAll(syscall.SIGSTOP)
	err = first.Process.Signal(os.Kill)
	_ = first.Wait()
	locks, _ := filepath.Glob(s.store + "/locks/slot/*/gpus-*")
	for _, lock := range locks {
		if o := s.run("flock", "--nonblock", lock, "true"); o.status != 1 {
			t.Errorf("%s is free while what held it runs: %s", lock, o)
		}
	}
	signalAll(syscall.SIGCONT)
	if err != nil || len(locks) != 2 {
		t.Fatalf("locks %v, %v", locks, err)
	}
	s.eventually(second, "the other call to get one", func() bool { return len(s.lines("pids")) == 3 })
	s.touch("go")
	if o := s.finish(second); o.status != 0 {
		t.Error(o)
	}
	s.wantRan("s0", "s1", "s0")
}

// parentOf is the parent of a process.
func parentOf(t *testing.T, pid string) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Ctrl-C ends what runs, and nothing more begins.
func TestProjectInterrupted(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 3, "")
	j := s.begin(s.execArgv("--all", "--jobs", "2", "--keep-going")...)
	s.eventually(j, "two stages to run", func() bool { return len(s.lines("pids")) == 2 })
	if err := j.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(j); o.status != 130 {
		t.Errorf("want status 130, got %s", o)
	}
	for _, pid := range s.lines("pids") {
		if alive(pid) {
			t.Errorf("process %s goes on", pid)
		}
	}
	s.wantRan("first", "s0", "s1")
}
