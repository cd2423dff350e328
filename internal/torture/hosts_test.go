package torture

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// loopbackMain serves the directory $FROM at $TO until stdin ends, as a file
// server does one machine: with an flock of that mount's own.
func loopbackMain() int {
	root, err := fs.NewLoopbackRoot(os.Getenv("FROM"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Nothing is kept: what the other machine did is seen at once.
	zero := time.Duration(0)
	s, err := fs.Mount(os.Getenv("TO"), root, &fs.Options{
		EntryTimeout: &zero, AttrTimeout: &zero, NegativeTimeout: &zero,
		MountOptions: fuse.MountOptions{DirectMount: true, AllowOther: true, FsName: "machine", Name: "loopback"},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("serving")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for s.Unmount() != nil {
		time.Sleep(50 * time.Millisecond)
	}
	return 0
}

// host is a machine that uses the rig's store by a file server: another name,
// another boot, processes of its own, and no flock that others see.
type host struct {
	r    *rig
	name string
	env  []string
}

func newHost(r *rig, name string) *host {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	top := filepath.Dir(r.store)
	at := filepath.Join(top, name)
	if err := os.Mkdir(at, 0o755); err != nil {
		r.t.Fatal(err)
	}
	boot := filepath.Join(r.side, "boot-"+name)
	if err := os.WriteFile(boot, fmt.Appendf(nil, "00000000-0000-0000-0000-%012x\n", name), 0o644); err != nil {
		r.t.Fatal(err)
	}
	server := exec.Command(self)
	server.Args[0] = "loopback"
	server.Env = append(os.Environ(), "FROM="+r.store, "TO="+at)
	server.Stderr = os.Stderr
	in, err := server.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := server.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		in.Close()
		_ = server.Wait()
	})
	if line := make([]byte, 8); true {
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "serving\n" {
			r.t.Fatalf("the file server of %s does not serve: %v", name, err)
		}
	}
	return &host{r, name, []string{"CURI_STORE=" + at, "MACHINE=" + name, "BOOT=" + boot, "GO=" + r.side + "/go", "RAN=" + r.side + "/ran",
		"CURI_FAULT_TIMES=lock.silence=5s;lock.beat=200ms;lock.settle=500ms"}}
}

const asHost = `hostname "$MACHINE" && mount --bind "$BOOT" /proc/sys/kernel/random/boot_id && "$@"; exit $?` // a child of the first process, which no signal stops

func (h *host) start(env []string, argv ...string) *job {
	h.r.t.Helper()
	argv = append([]string{"unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", asHost, "sh"}, argv...)
	return h.r.start(append(h.env, env...), argv...)
}

func (h *host) run(argv ...string) outcome {
	h.r.t.Helper()
	return h.r.finish(h.start(nil, argv...))
}

func (h *host) ok(argv ...string) string {
	h.r.t.Helper()
	o := h.run(argv...)
	if o.status != 0 {
		h.r.t.Fatalf("want success on %s: %s", h.name, o)
	}
	return o.stdout
}

// ran lists the machines on which a stage's command started, in order.
func (r *rig) ran() string {
	b, _ := os.ReadFile(r.side + "/ran")
	return strings.Join(strings.Fields(string(b)), " ")
}

func twoHosts(t *testing.T) (r *rig, a, b *host) {
	r = newRig(t)
	a, b = newHost(r, "node-a"), newHost(r, "node-b")
	// Whatever failed, the commands are to end before the rig does.
	t.Cleanup(func() { _ = os.WriteFile(r.side+"/go", nil, 0o644) })
	return r, a, b
}

// stopped is a process of the machine that was stopped, or 0.
func (h *host) stopped() int {
	for _, pid := range pidsWith(h.r.t, h.env[0]) {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if strings.Contains(string(stat), ") T ") {
			return pid
		}
	}
	return 0
}

// Two machines find the lock of a key free at once: one runs.
func TestTwoHostsStartAKeyAtOnce(t *testing.T) {
	t.Parallel()
	r, a, b := twoHosts(t)
	if err := os.WriteFile(r.side+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	argv := stage("echo model > {out.m}")
	// Each has the flock that only it sees, and has not said so.
	first, second := a.start(faults("curi/lock.taken=stop"), argv...), b.start(faults("curi/lock.taken=stop"), argv...)
	r.eventually("both to have found it free", func() bool { return a.stopped() != 0 && b.stopped() != 0 })
	for _, h := range []*host{a, b} {
		if err := syscall.Kill(h.stopped(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	one, two := r.finish(first), r.finish(second)
	if one.status != 0 || two.status != 0 || len(strings.Fields(r.ran())) != 1 {
		t.Errorf("it ran on %q\na: %s\nb: %s", r.ran(), one, two)
	}
	// Tags of one artifact, too: both move theirs, none is lost.
	r.write("x", "x")
	a.ok("curi", "add", "x", "--name", "x")
	first, second = a.start(nil, "sh", "-c", "curi tag x a1 && curi tag x a2"), b.start(nil, "sh", "-c", "curi tag x b1 && curi tag x b2")
	one, two = r.finish(first), r.finish(second)
	if out := a.ok("curi", "show", "x", "--json"); strings.Count(out, `"a1"`)+strings.Count(out, `"a2"`)+strings.Count(out, `"b1"`)+strings.Count(out, `"b2"`) != 4 {
		t.Errorf("tags are lost: %s\na: %s\nb: %s", out, one, two)
	}
	r.sound()
}

// A collection on one machine, beside a run and adds on another, takes nothing
// that they need.
func TestCollectionBesideARunOfAnotherHost(t *testing.T) {
	t.Parallel()
	r, a, b := twoHosts(t)
	r.write(".curi/config.yaml", "keep: 0s\nkeep_work: 0s\n")
	r.write("data/one", "one")
	r.write("data/two", "two")
	a.ok("curi", "add", "data", "--name", "data")
	run := a.start(nil, append([]string{"curi", "stage", "exec", "--in", "d=data"}, stage("cat {in.d}/* > {out.m}")[3:]...)...)
	r.eventually("the run", func() bool { return r.ran() == "node-a" })
	// The run alone needs the input now.
	a.ok("curi", "rm", "data")
	adds := a.start(nil, "sh", "-c", `for i in $(seq 8); do echo same > f; echo $i > g; curi add f --name f && curi add g --name g && curi rm f || exit 1; done`)
	for !done(adds) {
		b.ok("curi", "gc")
	}
	if o := r.finish(adds); o.status != 0 {
		t.Errorf("adds beside a collection elsewhere: %s", o)
	}
	b.ok("curi", "gc")
	if err := os.WriteFile(r.side+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o := r.finish(run); o.status != 0 {
		t.Errorf("the run: %s", o)
	}
	if out := b.ok("curi", "cat", "train.m"); out != "onetwo" {
		t.Errorf("its result is %q", out)
	}
	r.sound()
}

// A machine that goes down holds its key no longer than its silence.
func TestRunOfACrashedHostIsTakenOver(t *testing.T) {
	t.Parallel()
	r, a, b := twoHosts(t)
	argv := stage("echo model > {out.m}")
	first := a.start(nil, argv...)
	r.eventually("a to run", func() bool { return r.ran() == "node-a" })
	second := b.start(nil, argv...)
	r.eventually("b to wait", func() bool { return done(second) || strings.Contains(second.stderr.String(), "waiting for run train-") })
	if err := syscall.Kill(first.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.finish(first)
	r.eventually("b to take over", func() bool { return done(second) || r.ran() == "node-a node-b" })
	if err := os.WriteFile(r.side+"/go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if o := r.finish(second); o.status != 0 || r.ran() != "node-a node-b" {
		t.Errorf("it ran on %q: %s", r.ran(), o)
	}
	if out := b.ok("curi", "log", "--json"); !strings.Contains(out, `"lost"`) {
		t.Errorf("the log does not say that the first run was lost: %s", out)
	}
	r.sound()
}
