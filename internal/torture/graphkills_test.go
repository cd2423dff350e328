package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// killedGraph has what a graph can have that outlives a process: work
// directories with a resume, retries, GPUs and CPUs, parameter sets, processes
// that the command leaves behind, one path that several runs write, an aggregate. Every result is a function of
// the seed alone, whatever was killed on the way.
const killedGraph = `project: torture
capture: none
stages:
  data:
    run: [sh, make.sh, "{param.seed}", "{out.data}"]
    code: [make.sh]
    params: {seed: 0}
    out: {data: data/}
  train:
    run: [sh, train.sh, "{in.data}", "{work.ck}", "{param.lr}", "{out.model}", "{out.logs}"]
    code: [train.sh]
    in: {data: data.data}
    params: {lr: 1}
    work: [ck]
    resources: {gpus: 1, cpus: 1}
    retries: 2
    out: {model: {path: model.txt, meta: {type: Killed}, publish: model}, logs: {path: logs/, optional: true}}
  flaky:
    shell: 'test -e {work.been}/here || { touch {work.been}/here; exit 7; }; cat {in.data}/0 > {out.o}'
    in: {data: data.data}
    work: [been]
    retries: 3
    out: {o: o}
  insists:
    shell: 'echo "begun with {param.lr}" > here; sleep 0.1; cat {in.data}/0 >> here'
    in: {data: data.data}
    params: {lr: 1}
    out: {o: {from: here}}
  insisted: {aggregate: insists, shell: 'cat {in.o}/base {in.o}/sweep-* > {out.o}', in: {o: insists.o}, out: {o: o}}
  compare:
    aggregate: train
    run: [sh, compare.sh, "{in.models}", "{in.flaky}", "{out.table}"]
    code: [compare.sh]
    in: {models: train.model, flaky: flaky.o}
    out: {table: table.txt}
parameter_sets:
  base: {}
  sweep: {grid: {lr: [2, 3]}}
`

// The scripts of killedGraph. Who finds another with its GPU, or at its work
// directory, says so.
var killedScripts = map[string]string{
	"make.sh": `for i in 0 1 2 3 4 5 6 7; do echo "data $1" > "$2/$i"; done`,
	"train.sh": `in=$1 ck=$2 lr=$3
alone() { exec 9>"$1"; flock --nonblock 9 || echo "$1 is used twice" >> "$SIDE/collisions"; }
(alone "$SIDE/gpu-$CUDA_VISIBLE_DEVICES"; (alone "$ck/alone"; exec sleep 0.15) & exec sleep 0.15) &
for i in 1 2 3 4 5 6; do
	test "$(wc -l < "$ck/steps" 2> /dev/null || echo 0)" -ge $i || echo "step $i of $lr" >> "$ck/steps"
	sleep 0.01
done
(setsid sleep 0.05 &)
cat "$in/7" "$ck/steps" > "$4"
echo "$lr" > "$5/lr"
wait`,
	"compare.sh": `for f in "$1"/*.txt; do echo "${f##*/}"; cat "$f"; done > "$3"; cat "$2" >> "$3"`,
}

// wantTable is what the last stage of killedGraph makes.
func wantTable(seed int) string {
	var b strings.Builder
	for lr, set := range []string{"base", "sweep-lr=2", "sweep-lr=3"} {
		fmt.Fprintf(&b, "%s.txt\ndata %d\n", set, seed)
		for step := range 6 {
			fmt.Fprintf(&b, "step %d of %d\n", step+1, lr+1)
		}
	}
	fmt.Fprintf(&b, "data %d\n", seed)
	return b.String()
}

// TestGraphKills brings graphs up to date and kills -graphkills processes on
// the way: curi, guards, commands, the server of the mount, at a step or call of
// their own or at any time. After each nothing runs, nothing is locked or
// mounted and the store is sound; the call after them goes on, and ends with
// the results of one that nobody disturbed.
func TestGraphKills(t *testing.T) {
	t.Parallel()
	random := randomness(t)
	m := &mixture{rig: newRig(t), roles: []string{"curi", "curi", "guard", "curifs"}, long: map[string]time.Duration{}, far: map[string]int{}}
	m.env = append(m.env, "CUDA_VISIBLE_DEVICES=3,GPU-5f", "CURI_FAULT_TIMES=retry.pause=10ms")
	m.write("curi.yaml", killedGraph)
	for name, text := range killedScripts {
		m.write(name, text)
	}
	graph := func(seed int) *deed {
		return &deed{name: "graph", argv: func(*mixture, *rand.Rand) []string {
			return []string{"curi", "stage", "exec", "--all", "--jobs", "2", "--grace", "5s", "-p", fmt.Sprint("seed=", seed)}
		}}
	}
	m.killIn(graph(0), random) // undisturbed
	m.wantGraph(0)
	for seed := 1; int(m.kills.Load()) < *graphKills && !t.Failed(); seed++ {
		for range 1 + random.IntN(4) {
			m.killIn(graph(seed), random)
			m.nothingLeft()
		}
		m.ok(graph(seed).argv(m, random)...)
		m.wantGraph(seed)
	}
	t.Logf("%d kills", m.kills.Load())
}

// wantGraph checks the results of killedGraph.
func (m *mixture) wantGraph(seed int) {
	m.t.Helper()
	if got := m.ok("curi", "cat", "compare.table"); got != wantTable(seed) {
		m.t.Errorf("with seed %d the graph made\n%s", seed, got)
	}
	var insisted strings.Builder
	for lr := range 3 {
		fmt.Fprintf(&insisted, "begun with %d\ndata %d\n", lr+1, seed)
	}
	if got := m.ok("curi", "cat", "insisted.o"); got != insisted.String() {
		m.t.Errorf("with seed %d the program that insists on a path made\n%s", seed, got)
	}
	if collisions, err := os.ReadFile(m.side + "/collisions"); err == nil {
		m.t.Errorf("two had what is for one:\n%s", collisions)
	}
	m.nothingLeft()
}

// nothingLeft checks that nothing of any call is left: no process, no mount, no
// lock, no run that is said to go on, nothing that is broken.
func (m *mixture) nothingLeft() {
	m.t.Helper()
	m.settle()
	for _, pattern := range []string{"/locks/slot/*/*", "/locks/key/*"} {
		locks, _ := filepath.Glob(m.store + pattern)
		if len(locks) == 0 {
			m.t.Errorf("there are no locks %s", pattern)
		}
		for _, lock := range locks {
			// A process that is on its way out holds it a moment longer.
			m.eventually(lock+" to be free", func() bool { return m.run(nil, "flock", "--nonblock", lock, "true").status == 0 })
		}
	}
	var status struct{ Running []json.RawMessage }
	if err := json.Unmarshal([]byte(m.ok("curi", "status", "--json")), &status); err != nil || len(status.Running) > 0 {
		m.t.Errorf("it is said to go on: %s, %v", status.Running, err)
	}
	m.sound()
}
