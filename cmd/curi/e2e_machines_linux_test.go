package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machines are two that share an object store, 20 ms away.
type machines struct {
	*network
	relay *relay
	a, b  *site
}

func newMachines(t *testing.T) *machines {
	t.Helper()
	const key, secret = "AKIDTEST", "secret-of-the-bucket"
	m := &machines{network: newNetwork(t, "a", "b")}
	const addr = serverAddr + ":9000"
	s3ServerAt(t, addr, key, secret, m.network.enter("server"), func() error {
		return m.on("server", func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
	})
	m.relay = newRelay(m.network, addr, 20*time.Millisecond)
	for _, machine := range []struct {
		name string
		site **site
	}{{"a", &m.a}, {"b", &m.b}} {
		s := bareSite(t, byCopy)
		s.enter = m.network.enter(machine.name)
		s.env = append(s.env, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
			"AWS_ACCESS_KEY_ID="+key, "AWS_SECRET_ACCESS_KEY="+secret)
		s.write("curi.yaml", "project: shared\ncapture: none\n")
		url := "s3://models/curi?endpoint=http://" + m.relay.addr
		// The link is no loopback, and the server speaks no TLS.
		s.fails(120, "not encrypted", "curi", "remote", "add", "team", url)
		s.ok("curi", "remote", "add", "team", url+"&insecure=true")
		s.write("seed", "7\n")
		s.ok("curi", "add", "seed", "--name", "seed")
		*machine.site = s
	}
	return m
}

// partly is how much of files that come in parts a store has on its disk.
func partly(s *site) int64 {
	files, _ := filepath.Glob(s.store + "/partial/??/*.map")
	var n int64
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || len(b) < 40 {
			continue
		}
		for _, x := range b[40:] {
			for ; x != 0; x &= x - 1 {
				n += 16 << 10
			}
		}
	}
	return n
}

// TestTwoMachines shares artifacts and results between two machines, and cuts
// the line between them and the server at bad moments.
func TestTwoMachines(t *testing.T) {
	t.Parallel()
	m := newMachines(t)
	a, b := m.a, m.b
	const size = 64 << 20
	a.ok("sh", "-c", "mkdir d && cd d && head -c "+fmt.Sprint(size)+" /dev/urandom > model.ckpt && for i in $(seq 200); do echo $i > f$i; done")
	a.ok("curi", "add", "d", "--name", "model")
	sum := strings.Fields(a.ok("b3sum", "d/model.ckpt"))[0]
	a.ok("curi", "push", "model")

	// The link is cut for a moment, so that nothing comes and nothing is
	// refused, and then all connections with it: the pull goes on by itself.
	m.throttle("b", "200mbit")
	j := b.begin("curi", "pull", "--now", "team/model")
	b.eventually(j, "some of the bytes", func() bool { return partly(b) >= size/10 })
	m.down("b")
	m.relay.away(true)
	b.ok("curi", "ls") // the store is not held up
	m.relay.away(false)
	m.up("b")
	if o := b.finish(j); o.status != 0 {
		t.Fatalf("a pull across a short cut: %s", o)
	}
	if got := b.ok("curi", "cat", "team/model/f77"); got != "77\n" {
		t.Errorf("f77 is %q", got)
	}
	b.ok("curi", "checkout", "team/model", "copy")
	if got := strings.Fields(b.ok("b3sum", "copy/model.ckpt"))[0]; got != sum {
		t.Errorf("the file is %s, not %s", got, sum)
	}

	// A line that stays cut ends the pull, in bounded time and with one line;
	// the next goes on with what came.
	a.ok("sh", "-c", "head -c "+fmt.Sprint(size)+" /dev/urandom > d/model.ckpt && curi add d --name model && curi push model")
	sum = strings.Fields(a.ok("b3sum", "d/model.ckpt"))[0]
	j = b.begin("curi", "pull", "--now", "team/model")
	b.eventually(j, "some of the bytes", func() bool { return partly(b) >= size/10 })
	m.relay.away(true)
	o := b.finish(j)
	if o.status != 123 || strings.Count(strings.TrimSpace(o.stderr), "\n") != 0 || !strings.Contains(o.stderr, "not reachable now") {
		t.Errorf("a pull across a lasting cut: %s", o)
	}
	had := partly(b)
	if had < size/10 {
		t.Errorf("%d bytes are left of what came", had)
	}
	b.ok("curi", "fsck")

	// Without the line: what is here is read and hit, a new result is owed.
	stage := func(word string) []string {
		return []string{"curi", "stage", "exec", "--name", "copy", "--no-mount", "--param", "word=" + word, "--in", "seed=seed", "--out", "out=out", "--",
			"sh", "-c", "cat {in.seed} > {out.out} && echo {param.word} >> {out.out} && echo ran $(hostname)"}
	}
	if got := b.ok("curi", "cat", "team/model@1/f7"); got != "7\n" {
		t.Errorf("without the line f7 is %q", got)
	}
	b.ok(stage("one")...)
	b.ok(stage("one")...)
	b.fails(123, "not reachable now", "curi", "pull")

	m.relay.away(false)
	m.throttle("b", "1gbit")
	b.ok("curi", "push", "--wait")
	b.ok("curi", "pull", "--now", "team/model")
	b.ok("curi", "checkout", "team/model", "copy2")
	if got := strings.Fields(b.ok("b3sum", "copy2/model.ckpt"))[0]; got != sum {
		t.Errorf("the file is %s, not %s", got, sum)
	}
	// What b computed without the line is a hit on a now.
	if o := a.run(stage("one")...); o.status != 0 || strings.Contains(o.stdout, "ran") {
		t.Errorf("no hit on the other machine: %s", o)
	}
	for _, s := range []*site{a, b} {
		s.ok("curi", "fsck")
		s.ok("curi", "remote", "fsck", "team", "--read")
	}
}
