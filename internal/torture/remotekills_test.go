package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const sharedNames = 4 // of artifacts on the remote

func sharedName(random *rand.Rand) string { return fmt.Sprint("data", random.IntN(sharedNames)) }

// remoteDeeds are what machines do with a remote that they share.
var remoteDeeds = []deed{
	{name: "push", weight: 40, argv: func(m *mixture, random *rand.Rand) []string {
		name := sharedName(random)
		m.addSource(random, name)
		return []string{"curi", "push", name}
	}},
	{name: "pull", weight: 40, argv: func(_ *mixture, random *rand.Rand) []string {
		return []string{"curi", "pull", "--now", "team/" + sharedName(random)}
	}},
	{name: "remote-gc", weight: 15, argv: func(*mixture, *rand.Rand) []string { return []string{"curi", "remote", "gc", "team"} }},
	{name: "remote-rm", weight: 10, argv: func(_ *mixture, random *rand.Rand) []string {
		return []string{"curi", "remote", "rm", "team", sharedName(random)}
	}},
	{name: "gc", weight: 5, argv: func(*mixture, *rand.Rand) []string { return []string{"curi", "gc"} }},
}

// addSource adds a directory whose files all say the same; now and then one is
// so large that it is pulled in parts.
func (m *mixture) addSource(random *rand.Rand, name string) {
	m.t.Helper()
	dir := m.source(random)
	if random.IntN(6) == 0 {
		m.ok("sh", "-c", fmt.Sprintf("cat %[1]s/large %[1]s/large %[1]s/large > %[1]s/x && for i in 1 2 3 4 5 6 7 8 9 10; do cat %[1]s/x; done > %[1]s/huge && rm %[1]s/x", dir))
	}
	m.ok("curi", "add", dir, "--move", "--name", name)
}

// TestRemoteKills kills -remotekills processes of two machines that push to,
// pull from and collect one remote at once, half of them at a step of their
// own. Between rounds the remote and both stores are whole, and everything that
// is named there can be had. An object store is spoken to by a helper, which is
// killed as any other and does not outlive who started it.
func TestRemoteKills(t *testing.T) {
	for _, kind := range []string{"file", "s3"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			remoteKillsOf(t, kind)
		})
	}
}

func remoteKillsOf(t *testing.T, kind string) {
	randomness(t)
	url, objects := "", ""
	if kind == "s3" {
		url, objects = s3Bucket(t)
	}
	a, b := newRig(t), newRig(t)
	b.side = a.side // one bucket
	machines := []*mixture{}
	for _, r := range []*rig{a, b} {
		r.url, r.objects = url, objects
		m := &mixture{rig: r, deeds: remoteDeeds, roles: []string{"curi"}, long: map[string]time.Duration{}, far: map[string]int{}}
		m.addRemote()
		m.write(".curi/config.yaml", "keep: 1h\n")
		machines = append(machines, m)
	}
	machines[0].addSource(rand.New(rand.NewPCG(*seed, 0)), "data0")
	a.ok("curi", "push", "data0")
	const rounds = 4
	done := func() (n int64) { return machines[0].kills.Load() + machines[1].kills.Load() }
	for round := range rounds {
		until := int64(*remoteKills * (round + 1) / rounds)
		var wg sync.WaitGroup
		for w, m := range machines {
			random := rand.New(rand.NewPCG(*seed, uint64(1+round*len(machines)+w)))
			wg.Go(func() {
				for done() < until && !t.Failed() {
					m.kill(random)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, m := range machines {
			m.settle()
			m.sound()
			m.wholeRemote()
		}
		// The collections of the next round end what this one begins.
		a.noTemp()
		a.age()
	}
	for _, m := range machines {
		m.staging(0)
		if left, _ := filepath.Glob(m.store + "/partial/??/*"); len(left) > 0 {
			t.Logf("partial blobs of pulls that nobody repeated: %d files", len(left))
		}
		m.write(".curi/config.yaml", "keep: 1ms\n")
		m.ok("curi", "gc")
		if left, _ := filepath.Glob(m.store + "/partial/??/*"); len(left) > 0 {
			t.Errorf("a collection leaves %v", left)
		}
	}
	t.Logf("%d kills", done())
}

// wholeRemote pulls everything that has a name on the remote, and checks it.
func (m *mixture) wholeRemote() {
	m.t.Helper()
	m.ok("curi", "pull")
	var list []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal([]byte(m.ok("curi", "ls", "--json", "team/")), &list); err != nil {
		m.t.Fatal(err)
	}
	for i, a := range list {
		dir := fmt.Sprintf("pulled-%d", i)
		m.ok("curi", "pull", "--now", a.Name)
		m.ok("curi", "checkout", a.Name, dir)
		m.wholeDir(a.Name, filepath.Join(m.dir, dir))
		if out, err := exec.Command("rm", "-rf", filepath.Join(m.dir, dir)).CombinedOutput(); err != nil {
			m.t.Errorf("%v: %s", err, out)
		}
	}
}
