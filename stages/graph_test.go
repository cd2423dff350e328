package stages

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// shape lists the tasks of a graph, each with what it needs.
func shape(g *Graph) string {
	var b strings.Builder
	for _, t := range g.Tasks {
		fmt.Fprintf(&b, "%s %v", t.Label, t.Sets)
		for _, q := range t.Params {
			fmt.Fprintf(&b, " %s=%s", q.Name, q.Raw)
		}
		for _, n := range t.Needs {
			b.WriteString(" <" + n.Label)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Sets that make the same choice for a stage and all that it needs share it.
func TestGraphOfSets(t *testing.T) {
	f := parsed(t, strings.NewReplacer(`resources: {gpus: "{param.num_gpus}"}`, "", "[0.1, 0.03, 0.01]", "[0.1, 0.01]").Replace(example))
	p := Project{Name: "p", Dir: "/p"}
	for _, c := range []struct {
		sel  Selection
		want string
	}{
		{Selection{Stages: []string{"train"}}, `
dataset[base] [base] seed=7
train[base] [base] lr=0.01 num_gpus=2 <dataset[base]`},
		{Selection{Stages: []string{"train"}, Sets: []string{"base,small-lr"}}, `
dataset [base small-lr] seed=7
train[base] [base] lr=0.01 num_gpus=2 <dataset
train[small-lr] [small-lr] lr=0.001 num_gpus=2 <dataset`},
		{Selection{Stages: []string{"train"}, Sets: []string{"sweep"}, Params: []string{"lr=1"}}, `
dataset[sweep/lr=0.1,seed=1 and 1 more] [sweep/lr=0.1,seed=1 sweep/lr=0.01,seed=1] seed=1
train[sweep/lr=0.1,seed=1 and 1 more] [sweep/lr=0.1,seed=1 sweep/lr=0.01,seed=1] lr=1 num_gpus=2 <dataset[sweep/lr=0.1,seed=1 and 1 more]
dataset[sweep/lr=0.1,seed=2 and 1 more] [sweep/lr=0.1,seed=2 sweep/lr=0.01,seed=2] seed=2
train[sweep/lr=0.1,seed=2 and 1 more] [sweep/lr=0.1,seed=2 sweep/lr=0.01,seed=2] lr=1 num_gpus=2 <dataset[sweep/lr=0.1,seed=2 and 1 more]`},
		// Without --set an aggregate is over all sets.
		{Selection{Stages: []string{"compare"}, Sets: []string{"base,small-lr"}}, `
dataset [base small-lr] seed=7
train[base] [base] lr=0.01 num_gpus=2 <dataset
train[small-lr] [small-lr] lr=0.001 num_gpus=2 <dataset
compare [] <train[base] <train[small-lr]`},
	} {
		g, err := f.Graph(p, c.sel)
		if err != nil {
			t.Errorf("%+v: %v", c.sel, err)
			continue
		}
		if got := shape(g); got != strings.TrimPrefix(c.want, "\n")+"\n" {
			t.Errorf("%+v:\n%s", c.sel, got)
		}
	}
	g, err := f.Graph(p, Selection{Stages: []string{"compare"}})
	if err != nil || len(g.Tasks) != 3+6+1 || len(g.Targets) != 1 || len(g.Targets[0].Needs) != 6 {
		t.Errorf("all sets: %v\n%s", err, shape(g))
	}
	if q := g.Tasks[1].Params[0]; q.Type != "float" {
		t.Errorf("lr is %+v", q)
	}
	// A parameter stays operational whatever gives its value.
	sets := parsed(t, strings.Replace(example, "base: {}", "base: {num_gpus: 4}", 1))
	g, err = sets.Graph(p, Selection{Stages: []string{"train"}, Params: []string{"num_gpus=8"}})
	if q := g.Targets[0].Params[1]; err != nil || q.Raw != "8" || !q.Operational {
		t.Errorf("%+v (%v)", q, err)
	}
	if g, err = sets.Graph(p, Selection{Stages: []string{"train"}}); err != nil || g.Targets[0].Params[1].Raw != "4" || !g.Targets[0].Params[1].Operational {
		t.Errorf("%+v (%v)", g.Targets[0].Params, err)
	}
	for _, c := range []struct {
		sel  Selection
		want string
	}{
		{Selection{Stages: []string{"trian"}}, "did you mean train?"},
		{Selection{Stages: []string{"train"}, Params: []string{"lrr=1"}}, "did you mean lr?"},
		{Selection{Stages: []string{"train"}, Params: []string{"lr=fast"}}, "is a float"},
		{Selection{Stages: []string{"dataset"}, Params: []string{"lr=1"}}, "none of the stages that are to run has a parameter lr"},
		{Selection{Stages: []string{"train"}, Params: []string{"lr=1", "lr=2"}}, "given twice"},
		{Selection{Sets: []string{"x"}}, "there is no parameter set"},
	} {
		if _, err := f.Graph(p, c.sel); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.sel, err, c.want)
		}
	}
}

// A REF may come from a parameter, and then the stages that are needed too.
func TestGraphOfChosenInputs(t *testing.T) {
	f := parsed(t, `
stages:
  small: {run: [x, "{out.o}"], out: {o: o/}}
  large: {run: [y, "{out.o}"], out: {o: o/}}
  train: {run: [z, "{in.data}", "{out.o}"], in: {data: "{param.data}"}, params: {data: small.o}, out: {o: o/}}
  all: {aggregate: train, run: [a, "{in.m}", "{in.d}"], in: {m: train.o, d: "small.o"}}
parameter_sets:
  base: {}
  big: {data: large.o/sub}
  stored: {data: digits@2}
`)
	g, err := f.Graph(Project{}, Selection{Stages: []string{"all"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `small [base big stored]
train[base] [base] data=small.o <small
large[big] [big]
train[big] [big] data=large.o/sub <large[big]
train[stored] [stored] data=digits@2
all [] <train[base] <train[big] <train[stored] <small
`
	if got := shape(g); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if _, err := f.Graph(Project{}, Selection{Stages: []string{"train"}, Params: []string{"data=train.o"}}); err == nil || !strings.Contains(err.Error(), "needs its own output") {
		t.Errorf("a stage that reads itself: %v", err)
	}
}

func TestEachGoesInOrder(t *testing.T) {
	f := parsed(t, example)
	g, err := f.Graph(Project{}, Selection{Sets: []string{AllSets}})
	if err != nil {
		t.Fatal(err)
	}
	done := make([]bool, len(g.Tasks))
	seen := make(chan *Task, len(g.Tasks))
	g.each(4, func(n *Task) {
		if slices.ContainsFunc(n.Needs, func(m *Task) bool { return !done[m.index] }) {
			t.Errorf("%s comes before what it needs", n.Label)
		}
		done[n.index] = true
		seen <- n
	})
	if len(seen) != len(g.Tasks) {
		t.Errorf("%d of %d tasks", len(seen), len(g.Tasks))
	}
}
