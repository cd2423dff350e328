package torture

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A deed is a command of the mixture that random kills hit.
type deed struct {
	name   string
	weight int
	argv   func(m *mixture, random *rand.Rand) []string
	// alone: two at once would only be in each other's way.
	alone *sync.Mutex
}

// mixture is one store that several processes work with at once.
type mixture struct {
	*rig
	deeds []deed
	roles []string // that a fault may kill
	kills atomic.Int64
	next  atomic.Int64 // number of the next directory that is made

	mu   sync.Mutex
	long map[string]time.Duration // how long a deed takes
	far  map[string]int           // how many steps and calls it passes
}

const (
	mixedNames = 5  // of artifacts
	mixedKeys  = 4  // of stages
	mixedFiles = 12 // in each directory
)

// token is what all files of one directory say, so that half a directory, or
// one of two, shows.
func (m *mixture) source(random *rand.Rand) string {
	dir := filepath.Join("in", strconv.FormatInt(m.next.Add(1), 10))
	token := fmt.Sprintf("token %d\n", random.IntN(30))
	for i := range mixedFiles {
		m.write(fmt.Sprintf("%s/%d", dir, i), token)
	}
	m.write(dir+"/large", strings.Repeat(token, 150<<10)[:1200<<10])
	return dir
}

func mixedName(random *rand.Rand) string { return fmt.Sprint("data", random.IntN(mixedNames)) }

func mixedStage(key int, more ...string) []string {
	argv := append([]string{"curi", "stage", "exec", "--json", "--name", "train", "--param", fmt.Sprint("key=", key), "--out", "model=model.bin", "--out", "logs=logs/",
		"--work", "ck", "--grace", "5s"}, more...)
	return append(argv, "--", "sh", "-c", `echo step >> {work.ck}/steps; (sleep 0.05; :) & cat /etc/hostname > {out.logs}/host
		for i in 0 1 2 3; do echo {param.key} > {out.logs}/$i; done; wait; echo "model {param.key}" > {out.model}`)
}

var mounting, collecting sync.Mutex

var deeds = []deed{
	{name: "add", weight: 30, argv: func(m *mixture, random *rand.Rand) []string {
		return []string{"curi", "add", m.source(random), "--name", mixedName(random), "--tag", "best"}
	}},
	{name: "add-move", weight: 8, argv: func(m *mixture, random *rand.Rand) []string {
		return []string{"curi", "add", m.source(random), "--move", "--name", mixedName(random)}
	}},
	{name: "exec", weight: 12, argv: func(m *mixture, random *rand.Rand) []string { return mixedStage(random.IntN(mixedKeys)) }},
	{name: "exec-no-mount", weight: 15, argv: func(m *mixture, random *rand.Rand) []string {
		return mixedStage(random.IntN(mixedKeys), "--no-mount")
	}},
	{name: "gc", weight: 8, alone: &collecting, argv: func(*mixture, *rand.Rand) []string { return []string{"curi", "gc"} }},
	{name: "rm", weight: 6, argv: func(_ *mixture, random *rand.Rand) []string { return []string{"curi", "rm", mixedName(random)} }},
	{name: "rm-last", weight: 4, argv: func(_ *mixture, random *rand.Rand) []string {
		return []string{"curi", "rm", mixedName(random), "--keep-last", "1"}
	}},
	{name: "rm-run", weight: 3, argv: func(*mixture, *rand.Rand) []string { return []string{"curi", "rm", "train@last"} }},
	{name: "checkout", weight: 6, argv: func(m *mixture, random *rand.Rand) []string {
		return []string{"curi", "checkout", mixedName(random), fmt.Sprint("out/", m.next.Add(1))}
	}},
	{name: "path", weight: 4, argv: func(_ *mixture, random *rand.Rand) []string { return []string{"curi", "path", mixedName(random)} }},
	{name: "mount", weight: 2, alone: &mounting, argv: func(m *mixture, _ *rand.Rand) []string { return []string{"curi", "mount", m.mnt} }},
	{name: "umount", weight: 2, alone: &mounting, argv: func(m *mixture, _ *rand.Rand) []string { return []string{"curi", "umount", m.mnt} }},
	{name: "umount-stale", weight: 2, alone: &mounting, argv: func(*mixture, *rand.Rand) []string { return []string{"curi", "umount", "--stale"} }},
}

func anyDeed(deeds []deed, random *rand.Rand) *deed {
	all := 0
	for i := range deeds {
		all += deeds[i].weight
	}
	n := random.IntN(all)
	for i := range deeds {
		if n -= deeds[i].weight; n < 0 {
			return &deeds[i]
		}
	}
	panic("unreachable")
}

// TestRandomKills kills -kills processes of several that work with one store,
// half of them at a step or call of their own, half of them at any time.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	randomness(t)
	m := &mixture{rig: newRig(t), deeds: deeds, roles: []string{"curi", "curi", "guard", "curifs"}, long: map[string]time.Duration{}, far: map[string]int{}}
	m.write(".curi/config.yaml", "keep: 1ms\nkeep_work: 1ms\n")
	const workers, rounds = 3, 5
	for round := range rounds {
		until := int64(*kills * (round + 1) / rounds)
		var wg sync.WaitGroup
		for w := range workers {
			random := rand.New(rand.NewPCG(*seed, uint64(1+round*workers+w)))
			wg.Go(func() {
				for m.kills.Load() < until && !t.Failed() {
					m.kill(random)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		m.settle()
		m.sound()
		m.whole()
		m.goesOn()
	}
	m.settle()
	m.staging(0)
	t.Logf("%d kills", m.kills.Load())
}

// kill does something, and kills one of its processes.
func (m *mixture) kill(random *rand.Rand) {
	m.killIn(anyDeed(m.deeds, random), random)
}

// killIn does d, and kills one of its processes.
func (m *mixture) killIn(d *deed, random *rand.Rand) {
	argv := d.argv(m, random)
	if d.alone != nil {
		d.alone.Lock()
		defer d.alone.Unlock()
	}
	m.mu.Lock()
	long, far := m.long[d.name], m.far[d.name]
	m.mu.Unlock()
	trace := fmt.Sprintf("%s/trace.%d", m.side, m.next.Add(1))
	defer os.Remove(trace)
	env := []string{"CURI_FAULT_TRACE=" + trace}
	began := time.Now()
	var o outcome
	switch {
	case far == 0: // once undisturbed, to learn
		o = m.run(env, argv...)
		m.learn(d, time.Since(began), trace)
	case random.IntN(2) == 0:
		role := m.roles[random.IntN(len(m.roles))]
		o = m.run(append(env, faults(fmt.Sprintf("%s/*#%d=kill", role, 1+random.IntN(far)))...), argv...)
		if o.status == 137 || role != "curi" {
			m.kills.Add(1)
		}
	default:
		j := m.start(env, argv...)
		select {
		case <-j.done:
		case <-time.After(time.Duration(random.Int64N(int64(long) + 1))):
			if m.killOne(j, random) {
				m.kills.Add(1)
			}
		}
		o = m.finish(j)
	}
	if (o.status >= 126 && o.status != 137 || o.status != 0 && o.status < 120) && !o.commandFailed() {
		m.t.Errorf("no status that is documented: %s", o)
	}
}

func (m *mixture) learn(d *deed, took time.Duration, trace string) {
	b, _ := os.ReadFile(trace)
	n := map[string]int{}
	for line := range strings.Lines(string(b)) {
		n[strings.Fields(line)[1]]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range n {
		m.far[d.name] = max(m.far[d.name], k)
	}
	m.long[d.name] = took
}

// killOne kills one of the processes that belong to a command, or a server of
// the store's mounts.
func (m *mixture) killOne(j *job, random *rand.Rand) bool {
	children := map[int][]int{}
	var servers []int
	for _, pid := range m.pids() {
		parent, name := statOf(pid)
		children[parent] = append(children[parent], pid)
		if name == "curifs" {
			servers = append(servers, pid)
		}
	}
	victims := []int{j.Process.Pid}
	for i := 0; i < len(victims); i++ {
		victims = append(victims, children[victims[i]]...)
	}
	if len(servers) > 0 && random.IntN(8) == 0 {
		victims = servers
	}
	return syscall.Kill(victims[random.IntN(len(victims))], syscall.SIGKILL) == nil
}

func statOf(pid int) (parent int, name string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), "(")
	name, rest, _ = strings.Cut(rest, ") ")
	if f := strings.Fields(rest); len(f) > 1 {
		parent, _ = strconv.Atoi(f[1])
	}
	return parent, name
}

// whole checks that everything that has a name is whole: the files of one
// directory say all the same.
func (m *mixture) whole() {
	m.t.Helper()
	var list []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal([]byte(m.ok("curi", "ls", "--json")), &list); err != nil {
		m.t.Fatal(err)
	}
	for _, a := range list {
		dir := strings.TrimSpace(m.ok("curi", "path", a.Name))
		m.wholeDir(a.Name, dir)
	}
	done, _ := filepath.Glob(filepath.Join(m.dir, "out/[0-9]*"))
	for _, dir := range done {
		m.wholeDir("a checkout", dir)
	}
	for _, dir := range []string{"out", "in"} {
		if err := os.RemoveAll(filepath.Join(m.dir, dir)); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *mixture) wholeDir(what, dir string) {
	m.t.Helper()
	tokens := map[string][]int{} // by content, the files
	for i := range mixedFiles {
		b, err := os.ReadFile(fmt.Sprintf("%s/%d", dir, i))
		if err != nil {
			m.t.Errorf("%s is not whole: %v", what, err)
			return
		}
		tokens[string(b)] = append(tokens[string(b)], i)
	}
	large, err := os.ReadFile(dir + "/large")
	first := slices.Collect(maps.Keys(tokens))[0]
	if err != nil || len(tokens) != 1 || !strings.HasPrefix(string(large), first) || len(large) != 1200<<10 {
		m.t.Errorf("%s is not whole: %s has %v of %d bytes, %v", what, dir, quoted(tokens), len(large), err)
	}
}

func quoted(tokens map[string][]int) (list []string) {
	for text, files := range tokens {
		list = append(list, fmt.Sprintf("%q in %v", text, files))
	}
	return list
}

// goesOn runs every stage of the mixture.
func (m *mixture) goesOn() {
	m.t.Helper()
	for key := range mixedKeys {
		var res result
		text := m.ok(mixedStage(key)...)
		if err := json.Unmarshal([]byte(text), &res); err != nil {
			m.t.Fatalf("%v: %q", err, text)
		}
		if b, err := os.ReadFile(res.Outputs["model"].Path); err != nil || string(b) != fmt.Sprintf("model %d\n", key) {
			m.t.Errorf("the result of key %d is %q, %v", key, b, err)
		}
		for i := range 4 {
			if b, err := os.ReadFile(fmt.Sprintf("%s/%d", res.Outputs["logs"].Path, i)); err != nil || string(b) != fmt.Sprintln(key) {
				m.t.Errorf("the logs of key %d: %q, %v", key, b, err)
			}
		}
	}
}
