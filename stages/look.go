package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Look fills in what the store knows of every task: its plan and result where
// all that it needs is cached. A task of which stale says so is not taken for
// cached, nor are those that need it. It starts no command but those of tools:
// and writes nothing. What keeps a stage from being run stands in Found.Err.
func (g *Graph) Look(ctx context.Context, b *Binder, environ []string, stale func(*Task) bool) error {
	g.each(max(2, runtime.GOMAXPROCS(0)), func(n *Task) {
		if ctx.Err() == nil {
			n.look(ctx, g, b, environ, stale != nil && stale(n))
		}
	})
	return ctx.Err()
}

func (n *Task) look(ctx context.Context, g *Graph, b *Binder, environ []string, stale bool) {
	n.Found = Found{}
	if !n.Ready() {
		st, err := n.declare(g, environ)
		if err == nil {
			n.Err = b.Check(ctx, st, func(in Input) bool {
				return !slices.ContainsFunc(n.inputs, func(o taskInput) bool { return o.name == in.Name })
			})
		}
		return
	}
	st, err := n.stage(ctx, g, b, environ, false)
	if err == nil {
		n.Plan, err = b.Bind(ctx, st)
	}
	if err != nil {
		n.Err = err
		return
	}
	if stale {
		return
	}
	res, outputs, err := findOutputs(ctx, b.s, n.Plan.Key)
	switch {
	case err == nil:
		n.Cached, n.Result, n.Outputs = true, res, outputs
	case !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrCorrupt):
		n.Err = fmt.Errorf("look for a result of stage %s: %w", n.Stage.Name, err)
	}
}

// Ready reports whether all that the task needs is there.
func (n *Task) Ready() bool {
	return !slices.ContainsFunc(n.Needs, func(m *Task) bool { return m.Outputs == nil })
}

// Done notes the result of a task that was run or taken.
func (n *Task) Done(ctx context.Context, s *cas.Store, res Result) error {
	out, err := outputTrees(ctx, s, res.Tree)
	if err != nil {
		return fmt.Errorf("the result of %s: %w", res.Run, err)
	}
	n.Result, n.Outputs = res, out
	return nil
}

// Bind plans a task of which all needs are there, as things are now. What it
// stores for that stays until the plan is released.
func (n *Task) Bind(ctx context.Context, g *Graph, s *cas.Store, environ []string) (*Plan, error) {
	b := NewBinder(s, g.Project)
	st, err := n.stage(ctx, g, b, environ, true)
	if err != nil {
		return nil, err
	}
	plan, err := b.Bind(ctx, st)
	if err != nil {
		for _, release := range b.kept {
			release()
		}
		return nil, err
	}
	plan.release = append(plan.release, b.kept...)
	return plan, nil
}

// declare is the stage without what its inputs are.
func (n *Task) declare(g *Graph, environ []string) (Stage, error) {
	st := n.Stage.Stage
	st.Dir, st.Environ, st.Params, st.ResumeFrom = g.Project.Dir, environ, n.Params, n.resume
	if g.Elsewhere != nil {
		st.Elsewhere = func(ctx context.Context, ref string) (Target, func(), error) {
			g.asking.Lock()
			defer g.asking.Unlock()
			return g.Elsewhere(ctx, ref)
		}
	}
	st.Inputs = slices.Clone(st.Inputs)
	for i, in := range st.Inputs {
		ref, err := expandRef(in.Ref, n.Params)
		if err != nil {
			return st, fmt.Errorf("stage %s: input %s: %w", st.Name, in.Name, err)
		}
		st.Inputs[i].Ref = ref
	}
	var err error
	if st.Stdin != "" && st.Stdin != "-" {
		st.Stdin, err = expandRef(st.Stdin, n.Params)
	}
	return st, err
}

// stage is the task as [Bind] takes it. With keep, what stands for an
// aggregate's inputs is stored.
func (n *Task) stage(ctx context.Context, g *Graph, b *Binder, environ []string, keep bool) (Stage, error) {
	st, err := n.declare(g, environ)
	if err != nil {
		return st, err
	}
	for _, in := range n.inputs {
		t, err := in.target(ctx, b, keep)
		if err != nil {
			return st, fmt.Errorf("stage %s: input %s: %w", st.Name, in.name, err)
		}
		for i := range st.Inputs {
			if st.Inputs[i].Name == in.name {
				st.Inputs[i].Is = &t
			}
		}
	}
	if n.stdin != nil {
		t, err := n.stdin.target(ctx, b, keep)
		if err != nil {
			return st, fmt.Errorf("stage %s: standard input: %w", st.Name, err)
		}
		st.StdinIs = &t
	}
	return st, nil
}

func (in *taskInput) target(ctx context.Context, b *Binder, keep bool) (Target, error) {
	if in.many {
		return in.collected(ctx, b, keep)
	}
	tree, err := in.tree(in.from[0])
	if err != nil {
		return Target{}, err
	}
	res := in.from[0].Result
	t := Target{Ref: in.ref, Name: res.Run + "." + in.output, Tree: tree}
	if in.name == "" || in.path != "" {
		t, err = Inside(ctx, b.s, in.ref, t.Name, tree, in.path)
	}
	t.Run = &Run{ID: res.Run, Tree: res.Tree} // whose tree has the output, if only a remote has both
	return t, err
}

// tree is what a task wrote to the output.
func (in *taskInput) tree(n *Task) (cas.Digest, error) {
	tree, ok := n.Outputs[in.output]
	if !ok {
		return cas.Digest{}, usagef("%s of %s did not write its optional output %s, which is wanted here", n.Result.Run, n.Label, in.output)
	}
	return tree, nil
}

// setsFile is what lies in an aggregate's input beside the results.
const setsFile = "sets.json"

// collectedJSON is an element of setsFile.
type collectedJSON struct {
	Path string             `json:"path"` // of the entry beside it
	Sets []collectedSetJSON `json:"sets"`
}

type collectedSetJSON struct {
	Set    string                     `json:"set"`
	Params map[string]json.RawMessage `json:"params"`
}

// collected makes one tree of what all tasks wrote: an entry for each distinct
// one, called like the first set that led to it, and setsFile.
func (in *taskInput) collected(ctx context.Context, b *Binder, keep bool) (Target, error) {
	root := &cas.Tree{}
	list := []collectedJSON{}
	at := map[cas.Digest]int{}
	var of []string
	for i, n := range in.from {
		tree, err := in.tree(n)
		if err != nil {
			return Target{}, err
		}
		set := collectedSetJSON{in.sets[i].Name, map[string]json.RawMessage{}}
		for _, q := range n.Params {
			set.Params[q.Name] = q.JSON()
		}
		j, known := at[tree]
		if !known {
			e, err := in.entry(ctx, b, tree, in.sets[i].Name)
			if err != nil {
				return Target{}, err
			}
			j = len(list)
			at[tree] = j
			root.Entries = append(root.Entries, e)
			of = append(of, n.Result.Run+"."+in.output)
			list = append(list, collectedJSON{Path: e.Name})
		}
		list[j].Sets = append(list[j].Sets, set)
	}
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return Target{}, err
	}
	text = append(text, '\n')
	root.Entries = append(root.Entries, cas.Entry{Name: setsFile, Kind: cas.KindFile, Size: int64(len(text)), Digest: cas.Sum(text)})
	root.Sort()
	if keep {
		added, err := b.s.AddReader(ctx, strings.NewReader(string(text)), setsFile, cas.AddOptions{})
		if err != nil {
			return Target{}, err
		}
		defer added.Release()
		tree, err := b.s.AdoptMade(ctx, root) // what only a remote has of it comes when it is read
		if err != nil {
			return Target{}, err
		}
		b.kept = append(b.kept, tree.Release)
		return Target{Ref: in.ref, Name: tree.Tree.String(), Tree: tree.Tree, Of: of}, nil
	}
	tree, err := root.Digest()
	if err != nil {
		return Target{}, err
	}
	b.setHead(tree, cas.TreeHead{})
	return Target{Ref: in.ref, Name: tree.String(), Tree: tree, Of: of}, nil
}

// entry is one result in an aggregate's input: a directory, or of an output
// that is a file the file itself.
func (in *taskInput) entry(ctx context.Context, b *Binder, tree cas.Digest, set string) (cas.Entry, error) {
	name := strings.NewReplacer("/", "-", "\"", "").Replace(set)
	if name == "" {
		name = in.from[0].Stage.Name
	}
	if len(name) > cas.MaxName/2 {
		name = fmt.Sprintf("%.100s-%s", name, tree.Short())
	}
	head, err := b.head(ctx, tree)
	if err != nil {
		return cas.Entry{}, err
	}
	if head.File != "" {
		e := head.Entry
		e.Name = name + path.Ext(head.File)
		return e, nil
	}
	t, err := b.s.Tree(ctx, tree)
	if err != nil {
		return cas.Entry{}, err
	}
	return cas.Entry{Name: name, Kind: cas.KindDir, Size: t.Bytes(), Digest: tree}, nil
}
