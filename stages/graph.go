package stages

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/curi-store/curi/cas"
)

// Graph is what is to be brought up to date: stages of a file with the
// parameters of sets, each with what it needs.
type Graph struct {
	File    *File
	Project Project
	Tasks   []*Task // each behind those that it needs
	Targets []*Task // those that were asked for, in order of stages and sets

	// Elsewhere is that of every [Stage]; calls come one at a time.
	Elsewhere Elsewhere
	asking    sync.Mutex
}

// Task is a stage with one choice of parameters. Sets that make the same choice
// for a stage and all that it needs share a task.
type Task struct {
	Stage     *FileStage
	Sets      []string // that lead to it, in order; empty where the file has none
	Label     string   // for people: "train[small-lr]", or "train" where that says it all
	Params    []Param
	Resources map[string]int
	Needs     []*Task

	inputs []taskInput
	stdin  *taskInput
	resume string // Selection.ResumeFrom
	index  int
	users  []*Task

	// Found is what a look at the store told, see [Graph.Look].
	Found
}

// Found is what is known of a task: all of it, or that others run first.
type Found struct {
	Plan    *Plan                 // nil while what the task needs is not there
	Cached  bool                  // Result is there to be taken
	Result  Result                // of the task, when it is done
	Outputs map[string]cas.Digest // likewise: trees by output
	Err     error                 // why the stage cannot be run
}

// taskInput is an input that is an output of other tasks.
type taskInput struct {
	name   string
	ref    string // expanded
	output string
	path   string
	from   []*Task // one; of an aggregate's input one for each set
	sets   []Set   // of an aggregate's: the set of each task
	many   bool    // it is an aggregate's
}

// Selection says what of a file is wanted.
type Selection struct {
	Stages []string // empty: all
	Sets   []string // as --set takes them; empty: the first, for aggregates all
	Params []string // NAME=VALUE, in place of what sets and stages say

	// ResumeFrom is a run with whose work directories the one task that is
	// wanted begins; see [Stage].
	ResumeFrom string
}

// Graph builds the graph of what is selected. Errors wrap [ErrUsage].
func (f *File) Graph(p Project, sel Selection) (*Graph, error) {
	sets, err := f.SelectSets(sel.Sets)
	if err != nil {
		return nil, err
	}
	b := &graphBuilder{f: f, g: &Graph{File: f, Project: p}, sets: sets, over: sets,
		byChoice: map[string]*Task{}, memo: map[memoKey]*Task{}, walking: map[memoKey]bool{}, used: map[string]bool{}}
	if len(sel.Sets) == 0 {
		b.over = f.Sets
	}
	if b.given, err = splitParams(sel.Params); err != nil {
		return nil, err
	}
	names := sel.Stages
	if len(names) == 0 {
		names = f.StageNames()
	}
	for _, name := range names {
		st := f.Stage(name)
		if st == nil {
			hint := suggest(name, f.StageNames(), "%s")
			if hint == "" {
				hint = ": it has " + strings.Join(f.StageNames(), ", ")
			}
			if len(f.Stages) == 0 {
				hint = ": it has none"
			}
			return nil, usagef("%s has no stage %q%s", FileName, name, hint)
		}
		if err := b.target(st); err != nil {
			return nil, err
		}
	}
	for _, q := range b.given {
		if !b.used[q.name] {
			return nil, usagef("--param %s: none of the stages that are to run has a parameter %s%s", q.text, q.name, suggest(q.name, b.paramNames(), "%s"))
		}
	}
	if sel.ResumeFrom != "" {
		if len(b.g.Targets) != 1 {
			return nil, usagef("--resume-from %s is for one stage with one parameter set, these are %d", sel.ResumeFrom, len(b.g.Targets))
		}
		b.g.Targets[0].resume = sel.ResumeFrom
	}
	b.finish()
	return b.g, nil
}

type memoKey struct {
	st  *FileStage
	set string // its name; "" for an aggregate
}

type graphBuilder struct {
	f        *File
	g        *Graph
	sets     []Set // that were selected
	over     []Set // that aggregates are over
	given    []givenParam
	byChoice map[string]*Task
	memo     map[memoKey]*Task
	walking  map[memoKey]bool
	used     map[string]bool // given parameters that a stage has
}

type givenParam struct{ name, typ, value, text string }

// splitParams takes NAME=VALUE apart; the type is the stage's own, unless said.
func splitParams(texts []string) ([]givenParam, error) {
	var given []givenParam
	for _, text := range texts {
		q, err := ParseParam(text, false)
		if err != nil {
			return nil, usagef("--param: %v", err)
		}
		if slices.ContainsFunc(given, func(o givenParam) bool { return o.name == q.Name }) {
			return nil, usagef("--param %s is given twice", q.Name)
		}
		typ := ""
		if name, _, _ := strings.Cut(text, "="); strings.Contains(name, ":") {
			typ = q.Type
		}
		given = append(given, givenParam{q.Name, typ, q.Raw, text})
	}
	return given, nil
}

func (b *graphBuilder) paramNames() []string {
	var names []string
	for _, n := range b.g.Tasks {
		for _, q := range n.Params {
			names = append(names, q.Name)
		}
	}
	return names
}

// target adds a stage that was asked for, with every set.
func (b *graphBuilder) target(st *FileStage) error {
	for _, set := range b.sets {
		n, err := b.task(st, set)
		if err != nil {
			return err
		}
		if !slices.Contains(b.g.Targets, n) {
			b.g.Targets = append(b.g.Targets, n)
		}
	}
	return nil
}

// params are those of a stage with a set and what was given by hand.
func (b *graphBuilder) params(st *FileStage, set Set) ([]Param, error) {
	params := st.Params
	if st.Aggregate == "" {
		params = st.with(set.Params)
	}
	params = slices.Clone(params)
	for _, g := range b.given {
		for i, q := range params {
			if q.Name != g.name {
				continue
			}
			b.used[g.name] = true
			text := g.text
			if g.typ == "" && q.Type != "null" {
				text = g.name + ":" + q.Type + "=" + g.value
			}
			v, err := ParseParam(text, q.Operational)
			if err != nil {
				return nil, usagef("--param %s: %s of stage %s is %s: %v", g.text, g.name, st.Name, describeParam(q), err)
			}
			params[i] = v
		}
	}
	return params, nil
}

// task returns the task of a stage with a set, and adds it and what it needs
// where they are new.
func (b *graphBuilder) task(st *FileStage, set Set) (*Task, error) {
	key := memoKey{st, set.Name}
	if st.Aggregate != "" {
		key.set = ""
	}
	if n, ok := b.memo[key]; ok {
		if set.Name != "" && st.Aggregate == "" && !slices.Contains(n.Sets, set.Name) {
			n.Sets = append(n.Sets, set.Name)
		}
		return n, nil
	}
	if b.walking[key] {
		return nil, usagef("stage %s needs its own output, by what parameters say", st.Name)
	}
	b.walking[key] = true
	defer delete(b.walking, key)
	n := &Task{Stage: st}
	var err error
	if n.Params, err = b.params(st, set); err != nil {
		return nil, err
	}
	if n.Resources, err = st.resources(n.Params); err != nil {
		return nil, err
	}
	for _, in := range st.Inputs {
		got, err := b.input(st, set, n, in.Name, in.Ref)
		if err != nil {
			return nil, &inputError{st, "in." + in.Name, "input " + in.Name, err}
		}
		if got != nil {
			n.inputs = append(n.inputs, *got)
		}
	}
	if st.Stdin != "" && st.Stdin != "-" {
		if n.stdin, err = b.input(st, set, n, "", st.Stdin); err != nil {
			return nil, &inputError{st, "stdin", "stdin", err}
		}
	}
	choice := n.choice()
	if same, ok := b.byChoice[choice]; ok {
		n = same
	} else {
		b.byChoice[choice] = n
		n.index = len(b.g.Tasks)
		b.g.Tasks = append(b.g.Tasks, n)
		for _, need := range n.Needs {
			need.users = append(need.users, n)
		}
	}
	b.memo[key] = n
	if set.Name != "" && st.Aggregate == "" {
		n.Sets = append(n.Sets, set.Name)
	}
	return n, nil
}

// inputError says what keeps an input of a stage from being one.
type inputError struct {
	st       *FileStage
	at, what string
	err      error
}

func (e *inputError) Error() string {
	return fmt.Sprintf("stage %s: %s: %v", e.st.Name, e.what, e.err)
}
func (e *inputError) Unwrap() error { return e.err }

// input finds the tasks that an input comes from; nil for what the store knows.
func (b *graphBuilder) input(st *FileStage, set Set, n *Task, name, text string) (*taskInput, error) {
	ref, err := expandRef(text, n.Params)
	if err != nil {
		return nil, err
	}
	up, ok, err := b.f.upstream(ref)
	if err != nil || !ok {
		return nil, err
	}
	in := &taskInput{name: name, ref: ref, output: up.output, path: up.path, many: st.Aggregate == up.stage.Name}
	sets := []Set{set}
	if st.Aggregate != "" {
		sets = b.over
	}
	for _, s := range sets {
		from, err := b.task(up.stage, s)
		if err != nil {
			return nil, err
		}
		if !in.many && len(in.from) > 0 && from != in.from[0] {
			return nil, usagef("%s differs from set to set, and aggregate: %s makes one directory of the outputs of %s only", ref, st.Aggregate, st.Aggregate)
		}
		if !slices.Contains(n.Needs, from) {
			n.Needs = append(n.Needs, from)
		}
		if in.many || len(in.from) == 0 {
			in.from, in.sets = append(in.from, from), append(in.sets, s)
		}
	}
	return in, nil
}

// choice is what makes a task: stage, parameters, and what it needs.
func (n *Task) choice() string {
	var b strings.Builder
	b.WriteString(n.Stage.Name)
	for _, q := range n.Params {
		fmt.Fprintf(&b, "\x00%s\x00%s\x00%s", q.Name, q.Type, q.Raw)
	}
	for _, in := range n.inputs {
		for _, from := range in.from {
			fmt.Fprintf(&b, "\x00%d", from.index)
		}
	}
	if n.stdin != nil {
		fmt.Fprintf(&b, "\x00stdin %d", n.stdin.from[0].index)
	}
	return b.String()
}

// finish gives every task its label.
func (b *graphBuilder) finish() {
	for _, n := range b.g.Tasks {
		n.Label = n.Stage.Name
		switch {
		case len(n.Sets) == 0 || len(b.f.Sets) == 1, len(n.Sets) > 1 && len(n.Sets) == len(b.over):
		case len(n.Sets) > 1:
			n.Label += fmt.Sprintf("[%s and %d more]", n.Sets[0], len(n.Sets)-1)
		default:
			n.Label += "[" + n.Sets[0] + "]"
		}
	}
}

// each calls do for every task once all that it needs were done, several at
// once.
func (g *Graph) each(workers int, do func(*Task)) {
	if len(g.Tasks) == 0 {
		return
	}
	var mu sync.Mutex
	left := make([]int, len(g.Tasks))
	ready := make(chan *Task, len(g.Tasks))
	for i, n := range g.Tasks {
		if left[i] = len(n.Needs); left[i] == 0 {
			ready <- n
		}
	}
	remaining := len(g.Tasks)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range ready {
				do(n)
				mu.Lock()
				for _, u := range n.users {
					if left[u.index]--; left[u.index] == 0 {
						ready <- u
					}
				}
				if remaining--; remaining == 0 {
					close(ready)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}
