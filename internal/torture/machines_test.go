package torture

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// machines are two rigs, each with a store of its own, that know one remote.
type machines struct {
	a, b *rig
	dir  string // what both see
}

// hasty is the patience of leases in these tests.
const hasty = "CURI_FAULT_TIMES=lease.beat=100ms;lease.silence=3s;lease.poll=100ms;contact=2s"

// twoMachines makes them, with a remote in a directory or on an S3 server.
func twoMachines(t *testing.T, kind string) *machines {
	t.Helper()
	if kind == "s3" {
		url, _ := s3Bucket(t)
		return twoMachinesAt(t, url)
	}
	return twoMachinesAt(t, "")
}

// twoMachinesAt makes them, with the remote at url, or in their directory.
func twoMachinesAt(t *testing.T, url string) *machines {
	t.Helper()
	m := &machines{dir: t.TempDir()} // before the rigs, which end with what is in it
	m.a, m.b = newRig(t), newRig(t)
	if url == "" {
		url = "file://" + m.dir + "/bucket"
	}
	for name, r := range map[string]*rig{"a": m.a, "b": m.b} {
		r.env = append(r.env, hasty, "MACHINE="+name, "GO="+m.dir+"/go-"+name, "RAN="+m.dir+"/ran")
		r.ok("curi", "remote", "add", "team", url)
	}
	return m
}

// stage is a call of a stage whose command says that it started and does then.
func stage(then string) []string {
	return []string{"curi", "stage", "exec", "--json", "--no-mount", "--name", "train", "--out", "m=m.txt", "--shell", "--",
		`echo $MACHINE >> $RAN; until [ -e $GO ]; do sleep 0.05; done; ` + then}
}

// ran lists the machines on which the command started, in order.
func (m *machines) ran() string {
	b, _ := os.ReadFile(m.dir + "/ran")
	return strings.Join(strings.Fields(string(b)), " ")
}

// goOn lets the command go on on a machine.
func (m *machines) goOn(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(m.dir+"/go-"+name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// both starts the stage on a, and on b when it runs there; b then waits.
func (m *machines) both(t *testing.T, then string) (first, second *job) {
	t.Helper()
	first = m.a.start(nil, stage(then)...)
	m.a.eventually("a to run", func() bool { return m.ran() == "a" })
	second = m.b.start(nil, stage(then)...)
	m.b.eventually("b to wait", func() bool {
		return done(second) || strings.Contains(second.stderr.String(), "runs this very stage, since ") || m.ran() != "a"
	})
	if m.ran() != "a" {
		m.goOn(t, "a")
		m.goOn(t, "b")
		t.Fatalf("b does not wait: it ran on %q", m.ran())
	}
	return first, second
}

func TestTwoMachinesRunAStageOnce(t *testing.T) {
	for _, kind := range []string{"file", "s3"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := twoMachines(t, kind)
			first, second := m.both(t, "echo model > {out.m}")
			m.goOn(t, "a")
			one, two := m.a.finish(first), m.b.finish(second)
			var res struct {
				Run    string
				Cached bool
			}
			if err := json.Unmarshal([]byte(two.stdout), &res); err != nil || one.status != 0 || two.status != 0 || !res.Cached || m.ran() != "a" {
				t.Fatalf("it ran on %q (%v)\na: %s\nb: %s", m.ran(), err, one, two)
			}
			if !strings.Contains(one.stdout, res.Run) || !strings.Contains(two.stderr, "remote team: "+res.Run+" of ") {
				t.Errorf("b waited for, or took, another run than a's\na: %s\nb: %s", one, two)
			}
			// The next call finds a lease that is over, and runs if it has to.
			m.goOn(t, "b")
			o := m.b.run(nil, append([]string{"curi", "stage", "exec", "--force"}, stage("echo model > {out.m}")[3:]...)...)
			if o.status != 0 || m.ran() != "a b" {
				t.Errorf("--force: it ran on %q: %s", m.ran(), o)
			}
			m.b.sound()
		})
	}
}

// What failed on one machine may succeed on another, and its log is there.
func TestFailureElsewhereIsNotTheWaiters(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	first, second := m.both(t, "[ $MACHINE = b ] && echo model > {out.m}")
	m.goOn(t, "b")
	m.goOn(t, "a")
	one, two := m.a.finish(first), m.b.finish(second)
	if one.status != 1 || two.status != 0 || m.ran() != "a b" {
		t.Errorf("it ran on %q\na: %s\nb: %s", m.ran(), one, two)
	}
	if !strings.Contains(two.stderr, "ended with exit status 1; this machine runs the stage") {
		t.Errorf("b does not say why it runs: %s", two)
	}
}

// A machine that dies is taken over from.
func TestWaiterElsewhereTakesOverFromTheDead(t *testing.T) {
	for _, kind := range []string{"file", "s3"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			m := twoMachines(t, kind)
			first, second := m.both(t, "echo model > {out.m}")
			m.goOn(t, "b")
			if err := syscall.Kill(first.Process.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			m.a.finish(first)
			two := m.b.finish(second)
			if two.status != 0 || m.ran() != "a b" || !strings.Contains(two.stderr, "gave no sign of life") {
				t.Errorf("it ran on %q: %s", m.ran(), two)
			}
		})
	}
}

// A machine that goes on after its own dead does not wait for them.
func TestOwnDeadAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	m.a.env = append(m.a.env, strings.Replace(hasty, "silence=3s", "silence=1h", 1))
	first := m.a.start(nil, stage("echo model > {out.m}")...)
	m.a.eventually("a to run", func() bool { return m.ran() == "a" })
	if err := syscall.Kill(first.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.a.finish(first)
	m.goOn(t, "a")
	o := m.a.run(nil, stage("echo model > {out.m}")...)
	if o.status != 0 || strings.Contains(o.stderr, "remote team: ") {
		t.Errorf("the next call: %s", o)
	}
}

// A machine that was cut off meanwhile loses nothing: its result stays its own,
// and the log says that another one is everybody's.
func TestFirstPublishedResultWins(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	first, second := m.both(t, "echo model of $MACHINE > {out.m}")
	m.goOn(t, "b")
	// Stopped, it is as silent as if its line were cut; its command runs on.
	if err := syscall.Kill(first.Process.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	two := m.b.finish(second)
	if two.status != 0 || m.ran() != "a b" {
		t.Errorf("it ran on %q: %s", m.ran(), two)
	}
	m.goOn(t, "a")
	if err := syscall.Kill(first.Process.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	one := m.a.finish(first)
	for _, text := range []string{"does not always make the same", "another machine took this stage over"} {
		if one.status != 0 || !strings.Contains(one.stderr, text) {
			t.Errorf("a does not say %q: %s", text, one)
		}
	}
	var log []struct {
		Differs []struct{ Remote, Run string }
	}
	if err := json.Unmarshal([]byte(m.a.ok("curi", "log", "--json")), &log); err != nil || len(log) != 1 || len(log[0].Differs) != 1 || log[0].Differs[0].Remote != "team" {
		t.Errorf("the log of a: %+v, %v", log, err)
	}
	if out := m.a.ok("curi", "cat", "train.m"); out != "model of a\n" {
		t.Errorf("a has %q, not its own result", out)
	}
	third := newRig(t)
	third.env = append(third.env, "MACHINE=c", "GO=/dev/null", "RAN="+m.dir+"/ran")
	third.ok("curi", "remote", "add", "team", "file://"+m.dir+"/bucket")
	third.ok(stage("echo model of $MACHINE > {out.m}")...)
	if out := third.ok("curi", "cat", "train.m"); out != "model of b\n" {
		t.Errorf("a third machine has %q, not what was published first", out)
	}
}

// A remote that answers nothing costs one attempt, and the calls after it none.
func TestDeafRemoteIsLeftAlone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var came atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			came.Add(1)
		}
	}()
	m := twoMachines(t, "file")
	m.goOn(t, "a")
	r := m.a
	r.ok("curi", "remote", "rm", "team")
	r.ok("curi", "remote", "add", "team", "s3://models/curi?endpoint=http://"+l.Addr().String())
	o := r.run(nil, stage("echo model > {out.m}")...)
	if o.status != 0 || !strings.Contains(o.stderr, "no answer within") || !strings.Contains(o.stderr, "is not on remote team yet") || came.Load() == 0 {
		t.Errorf("the first call, %d connections: %s", came.Load(), o)
	}
	before := came.Load()
	o = r.run(nil, stage("echo another > {out.m}")...)
	if o.status != 0 || !strings.Contains(o.stderr, "remote team did not answer") || came.Load() != before {
		t.Errorf("the second call, %d connections more: %s", came.Load()-before, o)
	}
	if left, err := filepath.Glob(r.store + "/remotes/team/owed/*"); err != nil || len(left) != 2 {
		t.Errorf("owed: %v, %v", left, err)
	}
	if out := r.ok("curi", "status"); !strings.Contains(out, "2 results to remote team") {
		t.Errorf("status says %q", out)
	}
}

// local is how many bytes of a thing a rig has, and how many there are.
func local(r *rig, ref string) (here, all int64) {
	r.t.Helper()
	var d struct {
		Bytes int64
		Local int64 `json:"local_bytes"`
	}
	if err := json.Unmarshal([]byte(r.ok("curi", "show", "--json", ref)), &d); err != nil {
		r.t.Fatal(err)
	}
	return d.Local, d.Bytes
}

// What a remote has is an input, and a result, whose bytes come when they are
// read; --prefetch brings an input before.
func TestRemoteInputsAndResultsAreReadLazily(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	big := strings.Repeat("0123456789abcdef", 1<<20) // 16 MiB, all chunks alike
	m.a.write("data/big", big[:8<<20]+"x"+big[8<<20:])
	m.a.write("data/small", "small")
	m.a.ok("curi", "add", "data", "--name", "data")
	m.a.ok("curi", "push", "data")
	making := []string{"curi", "stage", "exec", "--json", "--no-mount", "--name", "make", "--out", "d=d/", "--shell", "--",
		"head -c 16777217 /dev/zero > {out.d}/big; echo small > {out.d}/small"}
	m.a.ok(making...)

	b := m.b
	b.ok("curi", "pull")
	read := func(name string, more ...string) []string {
		return append(append([]string{"curi", "stage", "exec", "--name", name, "--in", "d=team/data", "--out", "n=n"}, more...),
			"--shell", "--", ": "+name+"; head -c 4096 {in.d}/big > {out.n}; cat {in.d}/small >> {out.n}")
	}
	b.ok(read("lazy")...)
	if out := b.ok("curi", "cat", "lazy.n"); out != big[:4096]+"small" {
		t.Errorf("the command read %d bytes, and not those that were written", len(out))
	}
	if here, all := local(b, "team/data"); here >= all || all != 16<<20+1+5 {
		t.Errorf("%d of %d bytes came for the 4 KiB that were read", here, all)
	}
	o := b.run(nil, read("whole", "--prefetch")...)
	if here, all := local(b, "team/data"); o.status != 0 || here != all {
		t.Errorf("%d of %d bytes came before a command that wants all: %s", here, all, o)
	}

	b.ok("curi", "mount", b.mnt)
	var res struct {
		Cached  bool
		Outputs map[string]struct {
			Path  string
			Bytes int64
			Files int
		}
	}
	for range 2 { // from the remote, then from what the store knows of it
		if err := json.Unmarshal([]byte(b.ok(making...)), &res); err != nil {
			t.Fatal(err)
		}
		d := res.Outputs["d"]
		if !res.Cached || d.Bytes != 16777217+6 || d.Files != 2 || !strings.HasPrefix(d.Path, b.mnt) {
			t.Fatalf("the hit: %+v", res)
		}
		if out := b.ok("cat", d.Path+"/small"); out != "small\n" {
			t.Errorf("the small file reads %q", out)
		}
		if out := b.ok("head", "-c", "10", d.Path+"/big"); out != strings.Repeat("\x00", 10) {
			t.Errorf("the large file begins with %q", out)
		}
	}
	// A hit needs neither the remote nor a store that was not cleaned up.
	b.ok("curi", "gc")
	if err := os.Rename(m.dir+"/bucket", m.dir+"/away"); err != nil {
		t.Fatal(err)
	}
	res.Cached = false
	if err := json.Unmarshal([]byte(b.ok(making...)), &res); err != nil || !res.Cached {
		t.Errorf("without the remote: %+v, %v", res, err)
	}
	if out := b.ok("cat", res.Outputs["d"].Path+"/small"); out != "small\n" {
		t.Errorf("without the remote, what came reads %q", out)
	}
	if err := os.Rename(m.dir+"/away", m.dir+"/bucket"); err != nil {
		t.Fatal(err)
	}
	// It is an input of the next stage, and whole where somebody wants it so.
	b.ok("curi", "stage", "exec", "--name", "next", "--in", "d=make.d", "--out", "n=n", "--shell", "--", "wc -c < {in.d}/big > {out.n}")
	if out := b.ok("curi", "cat", "next.n"); out != "16777217\n" {
		t.Errorf("the next stage read %q bytes", out)
	}
	b.sound()
}
