package launcher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// graphOf looks at the graph of a file in a new project and store.
func graphOf(t *testing.T, s *cas.Store, dir, yaml string) *stages.Graph {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "curi.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	p := stages.Project{Name: "p", Dir: dir}
	f, err := stages.LoadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	g, err := f.Graph(p, stages.Selection{Sets: []string{stages.AllSets}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Look(t.Context(), stages.NewBinder(s, p), os.Environ(), nil); err != nil {
		t.Fatal(err)
	}
	return g
}

// execGraph runs a graph in this process and returns what happened, in order.
func execGraph(t *testing.T, s *cas.Store, g *stages.Graph, o GraphOptions) (*GraphResult, []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	o.Options = func(*stages.Task) Options { return Options{NoMount: true, Self: self, Environ: os.Environ()} }
	o.Exec = func(*stages.Task) bool { return false }
	o.Event = func(e Event) {
		cached := ""
		if e.Result != nil && e.Result.Cached {
			cached = " cached"
		}
		events = append(events, fmt.Sprintf("%s %s%s", e.Kind, e.Task.Label, cached))
	}
	return ExecGraph(t.Context(), s, g, o), events
}

func graphStore(t *testing.T) (*cas.Store, string) {
	t.Helper()
	s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, t.TempDir()
}

const diamond = `
stages:
  a: {shell: "echo a > {out.o}", out: {o: o}}
  b: {shell: "cat {in.x} > {out.o}; echo {param.n} >> {out.o}", in: {x: a.o}, out: {o: o}, params: {n: 1}}
  c: {shell: "test {param.n} != 2; cat {in.x} > {out.o}; exit {param.code}", in: {x: a.o}, out: {o: o}, params: {n: 1, code: 0}}
  d: {shell: "cat {in.x} {in.y} > {out.o}", in: {x: b.o, y: c.o}, out: {o: o}}
  e: {shell: "cat {in.x}/b* > {out.o}", aggregate: b, in: {x: b.o}, out: {o: o}}
parameter_sets: {bad: {n: 2, code: 7}, good: {n: 3}}
`

func TestExecGraph(t *testing.T) {
	s, dir := graphStore(t)
	g := graphOf(t, s, dir, diamond)
	res, events := execGraph(t, s, g, GraphOptions{Jobs: 3, KeepGoing: true})
	if res.Ran != 6 || res.Failed != 1 || res.Skipped != 1 || res.Exit != 7 || res.Err != nil {
		t.Errorf("%+v after %q", res, events)
	}
	before := func(first, then string) {
		if i, j := slices.Index(events, first), slices.Index(events, then); i < 0 || j < 0 || i > j {
			t.Errorf("%s does not come before %s: %q", first, then, events)
		}
	}
	before("finished a", "started b[bad]")
	before("finished b[good]", "started d[good]")
	before("finished c[good]", "started d[good]")
	before("finished b[bad]", "started e")
	before("failed c[bad]", "skipped d[bad]")

	// The next call runs what is left only.
	g = graphOf(t, s, dir, strings.Replace(diamond, "code: 7", "code: 0", 1))
	res, events = execGraph(t, s, g, GraphOptions{})
	if res.Ran != 2 || res.Cached != 6 || res.Exit != 0 {
		t.Errorf("%+v after %q", res, events)
	}
	// Without keep-going nothing begins after a failure.
	g = graphOf(t, s, dir, strings.NewReplacer("echo a >", "exit 3; echo a >", "parameter_sets", "  z: {shell: 'true'}\nparameter_sets").Replace(diamond))
	res, events = execGraph(t, s, g, GraphOptions{})
	if res.Failed != 1 || res.Skipped != 8 || res.Exit != 3 || !slices.Equal(events[:2], []string{"started a", "failed a"}) {
		t.Errorf("%+v after %q", res, events)
	}
	// A result that goes away after the look is made again.
	g = graphOf(t, s, dir, diamond)
	if err := stages.Withdraw(t.Context(), s, g.Tasks[0].Result.Run); err != nil {
		t.Fatal(err)
	}
	if res, events = execGraph(t, s, g, GraphOptions{KeepGoing: true}); res.Ran != 1 || res.Failed != 1 || events[0] != "started a" {
		t.Errorf("%+v after %q", res, events)
	}
}

// Slots are never held twice, and who wants many gets them in turn.
func TestSlots(t *testing.T) {
	s, _ := graphStore(t)
	env := environment{"CUDA_VISIBLE_DEVICES=0,GPU-a b,2,-1,7"}
	if got := visibleGPUs(env); !slices.Equal(got, []string{"0", "GPU-a b", "2"}) {
		t.Fatalf("GPUs %q", got)
	}
	if got := visibleGPUs(environment{"CUDA_VISIBLE_DEVICES="}); len(got) != 0 {
		t.Errorf("of none %q", got)
	}
	var mu sync.Mutex
	held := map[string]bool{}
	most := 0
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			n := i%3 + 1
			got, err := takeSlots(t.Context(), s, map[string]int{stages.GPUs: n}, fmt.Sprint("call ", i), env, func(string) {})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if len(got.gpus) != n {
				t.Errorf("call %d: %q", i, got.gpus)
			}
			for _, g := range got.gpus {
				if held[g] {
					t.Errorf("%s is held twice", g)
				}
				held[g] = true
			}
			most = max(most, len(held))
			mu.Unlock()
			time.Sleep(5 * time.Millisecond) // work
			mu.Lock()
			for _, g := range got.gpus {
				delete(held, g)
			}
			mu.Unlock()
			got.release()
		})
	}
	wg.Wait()
	if most == 0 {
		t.Error("nobody held any")
	}
	// Who waits can be told to stop, and keeps nothing.
	all, err := takeSlots(t.Context(), s, map[string]int{stages.GPUs: 2}, "holder", env, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	said := ""
	if _, err := takeSlots(ctx, s, map[string]int{stages.GPUs: 3}, "waiter", env, func(text string) { said = text; cancel() }); err == nil {
		t.Error("three of two")
	}
	if said != "waiting for 2 of 3 gpus, held by holder" {
		t.Errorf("said %q", said)
	}
	all.release()
	if all, err = takeSlots(t.Context(), s, map[string]int{stages.GPUs: 3, stages.CPUs: 100_000}, "last", env, nil); err != nil || len(all.gpus) != 3 {
		t.Fatalf("afterwards: %+v, %v", all, err)
	}
	all.release()
}
