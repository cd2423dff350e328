package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A meter is an address in front of a server that counts what the server sends.
type meter struct {
	addr string
	sent atomic.Int64
}

func newMeter(t *testing.T, to string) *meter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := &meter{addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go m.pass(c, to)
		}
	}()
	return m
}

func (m *meter) pass(c net.Conn, to string) {
	defer c.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, c)
		far.Close()
	}()
	_, _ = io.Copy(c, io.TeeReader(far, m))
}

func (m *meter) Write(b []byte) (int, error) {
	m.sent.Add(int64(len(b)))
	return len(b), nil
}

// metered is a site whose remote "team" is on an S3 server, and becomes other
// machines of it.
type metered struct {
	*site
	*meter
	url    string // by way of the meter
	stores int
}

func newMetered(t *testing.T) *metered {
	t.Helper()
	const key, secret = "AKIDTEST", "secret-of-the-bucket"
	url := s3Server(t, key, secret)
	at, addr, _ := strings.Cut(url, "http://")
	m := &metered{site: bareSite(t, byCopy), meter: newMeter(t, addr)}
	m.env = append(m.env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret)
	m.url = at + "http://" + m.addr
	m.ok("curi", "remote", "add", "team", m.url)
	return m
}

// fresh makes it another machine, which knows the names and has nothing.
func (m *metered) fresh() {
	m.t.Helper()
	m.stores++
	m.env = append(m.env, fmt.Sprintf("CURI_STORE=%s/machine%d", filepath.Dir(m.store), m.stores))
	m.ok("curi", "remote", "add", "team", m.url)
	m.ok("curi", "pull")
	m.sent.Store(0)
}

// moved checks how much came since the last time.
func (m *metered) moved(what string, most int64) {
	m.t.Helper()
	// Beside the bytes: answers, what tells where things lie, whole chunks.
	if n := m.sent.Swap(0); n > most+3<<20 {
		m.t.Errorf("%s: the server sent %d bytes for %d", what, n, most)
	}
}

// mounted mounts the store of the machine that it is now, until the returned
// function is called, or the test ends.
func (m *metered) mounted() (dir string, umount func()) {
	m.t.Helper()
	dir, err := os.MkdirTemp("/tmp", "curi-e2e-")
	if err != nil {
		m.t.Fatal(err)
	}
	m.ok("curi", "mount", dir)
	umount = sync.OnceFunc(func() {
		m.ok("curi", "umount", dir)
		if err := os.Remove(dir); err != nil {
			m.t.Error(err)
		}
	})
	m.t.Cleanup(umount)
	return dir, umount
}

// TestPartsOfWhatIsElsewhere uses a part of an artifact and of a result that
// only a remote has: as a copy, by its path, as an input. What is beside it
// does not come.
func TestPartsOfWhatIsElsewhere(t *testing.T) {
	t.Parallel()
	s := newMetered(t)
	s.write("curi.yaml", "project: parts\ncapture: none\n")
	const big, mid = 24_000_000, 1_000_000
	s.ok("sh", "-c", fmt.Sprintf("mkdir -p d/sub d/leads && head -c %d /dev/urandom > d/big && head -c %d /dev/urandom > d/sub/mid && echo small > d/sub/small && ln -s ../big d/leads/out", big, mid))
	s.ok("curi", "add", "d", "--name", "data")
	s.ok("curi", "push", "data")
	make := []string{"curi", "stage", "exec", "--name", "make", "--out", "m=m/", "--", "sh", "-c", "cp -r d/. {out.m} && echo more > {out.m}/more"}
	s.ok(slices.Insert(slices.Clone(make), 3, "--no-mount")...)

	same := func(a, b string) {
		t.Helper()
		s.ok("diff", "-r", a, b)
	}

	s.fresh()
	s.ok("curi", "checkout", "team/data/sub", "copy")
	s.moved("a copy of a directory", mid)
	same("copy", "d/sub")
	s.ok("curi", "checkout", "team/data/sub/small/", "copy2")
	s.moved("a copy of a file", 0)
	same("copy2/small", "d/sub/small")
	if out := s.ok("curi", "cat", "team/data/sub/small"); out != "small\n" {
		t.Errorf("cat says %q", out)
	}

	// A path stays, through a collection, as what was pulled does.
	s.fresh()
	file := strings.TrimSpace(s.ok("curi", "path", "team/data/sub/mid"))
	dir := strings.TrimSpace(s.ok("curi", "path", "team/data/sub"))
	s.moved("paths", mid)
	s.ok("curi", "gc")
	same(file, "d/sub/mid")
	same(dir, "d/sub")
	s.ok("curi", "fsck")
	out := strings.TrimSpace(s.ok("curi", "path", "team/data/leads")) // which leads out of it
	same(out+"/out", "d/big")

	// A result, of which a mount shows what is not here.
	s.fresh()
	mnt, umount := s.mounted()
	if r := decode[struct{ Cached bool }](s.site, s.ok(slices.Insert(slices.Clone(make), 3, "--json")...)); !r.Cached {
		t.Fatal("no hit")
	}
	p := strings.TrimSpace(s.ok("curi", "path", "make.m/sub/small"))
	if got := s.ok("cat", p); !strings.HasPrefix(p, mnt) || got != "small\n" {
		t.Errorf("%s holds %q", p, got)
	}
	s.ok("curi", "diff", "make.m/big", "team/data/big")
	s.moved("a hit, and a small file", 0)
	use := func(options ...string) []string {
		return slices.Concat([]string{"curi", "stage", "exec", "--name", "use", "--in", "f=make.m/big", "--in", "s=make.m/sub", "--out", "n=n"}, options,
			[]string{"--", "sh", "-c", "ls {in.s} > {out.n} && basename {in.f} >> {out.n} && head -c 100 {in.f} | cksum >> {out.n}"})
	}
	s.ok(use()...)
	s.moved("inputs of which a little is read", 1<<20)
	want := "mid\nsmall\nbig\n" + s.ok("sh", "-c", "head -c 100 d/big | cksum")
	if got := s.ok("curi", "cat", "use.n"); got != want {
		t.Errorf("the command saw %q", got)
	}
	s.ok("curi", "checkout", "make.m/sub", "copy3")
	same("copy3", "d/sub")
	s.moved("a copy of a part of a result", mid)
	s.ok("curi", "checkout", "make.m/more", "copy4")
	s.ok("curi", "gc")
	s.ok("curi", "fsck")
	umount()

	// Without a mount the whole of a file comes, and nothing else.
	if p = strings.TrimSpace(s.ok("curi", "path", "make.m/more")); s.ok("cat", p) != "more\n" {
		t.Errorf("%s holds something else", p)
	}
	s.moved("a path of a file of a result", 0)
	s.ok(use("--no-mount", "--force")...)
	s.moved("an input that is a file", big)
	s.ok("curi", "fsck")
}

// TestAggregateOfWhatIsElsewhere gathers results that only a remote has: for a
// hit nothing of them comes, for a run what it reads.
func TestAggregateOfWhatIsElsewhere(t *testing.T) {
	t.Parallel()
	s := newMetered(t)
	const big = 8_000_000
	s.write("curi.yaml", fmt.Sprintf(`project: parts
capture: none
stages:
  train:
    shell: "head -c %d /dev/urandom | tee $CURI_OUT_all/big > $CURI_OUT_file; echo {param.lr} > $CURI_OUT_all/small"
    out: {all: all/, file: model.bin}
    params: {lr: 0.1}
  compare: {aggregate: train, shell: "cat {in.a}/*/small > {out.out}", in: {a: train.all}, out: {out: out.txt}}
  look: {aggregate: train, shell: "cd {in.a} && ls * > {out.out} && cat */small >> {out.out} && cd {in.f} && ls >> {out.out} && head -qc 1000 *.bin | wc -c >> {out.out}", in: {a: train.all, f: train.file}, out: {out: out.txt}}
  whole: {aggregate: train, shell: "cmp {in.a}/base/big {in.f}/base.bin && cmp {in.a}/two/big {in.f}/two.bin && echo same > {out.out}", in: {a: train.all, f: train.file}, out: {out: out.txt}}
parameter_sets: {base: {}, two: {lr: 0.2}}
`, big))
	s.ok("curi", "stage", "exec", "compare", "--no-mount")

	s.fresh()
	_, umount := s.mounted()
	if o := s.run("curi", "stage", "exec", "compare"); o.status != 0 || strings.Contains(o.stderr, " runs: ") {
		t.Fatalf("not all was a hit: %s", o)
	}
	s.moved("a hit", 0)
	s.ok("curi", "stage", "exec", "look")
	s.moved("a run that reads a little", 2<<20)
	if out := s.ok("curi", "cat", "look.out"); out != "sets.json\n\nbase:\nbig\nsmall\n\ntwo:\nbig\nsmall\n0.1\n0.2\nbase.bin\nsets.json\ntwo.bin\n2000\n" {
		t.Errorf("the run saw %q", out)
	}
	s.ok("curi", "gc")
	s.ok("curi", "fsck")
	s.ok("curi", "stage", "exec", "whole")
	umount()
	s.ok("curi", "stage", "exec", "look", "--no-mount", "--force")
	s.ok("curi", "gc")
	s.ok("curi", "fsck")
}
