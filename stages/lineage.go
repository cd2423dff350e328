package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Lineage is a graph of what was made from what.
type Lineage struct {
	Nodes []LineageNode `json:"nodes"` // the first is what was asked for
	Edges []LineageEdge `json:"edges"`
}

// LineageNode is a thing or a run.
type LineageNode struct {
	ID      string            `json:"id"`   // unique in the graph: a run's id, or a thing's name
	Kind    string            `json:"kind"` // "run", "output", "artifact", "tree"
	Name    string            `json:"name"`
	Tree    cas.Digest        `json:"tree"`
	Stage   string            `json:"stage"` // of a run
	Project string            `json:"project"`
	Params  map[string]string `json:"params"`
	Names   []string          `json:"names"` // versions of artifacts with this tree, "model@3"
	Time    time.Time         `json:"time"`
}

// MarshalJSON gives a thing of no known time null for it.
func (n LineageNode) MarshalJSON() ([]byte, error) {
	type plain LineageNode
	v := struct {
		plain
		Time *time.Time `json:"time"`
	}{plain: plain(n)}
	if !n.Time.IsZero() {
		v.Time = &n.Time
	}
	return json.Marshal(v)
}

// LineageEdge leads from what was used to what came of it.
type LineageEdge struct {
	From string `json:"from"`
	To   string `json:"to"`
	As   string `json:"as"` // the input's or output's name
}

// Ancestors returns what a target was made from, down to what nobody made. A
// run whose record is gone ends its branch.
func Ancestors(ctx context.Context, s *cas.Store, t Target) (*Lineage, error) {
	g, err := newGraph(ctx, s)
	if err != nil {
		return nil, err
	}
	root, err := g.root(t)
	if err != nil {
		return nil, err
	}
	return g.lineage, g.up(root)
}

// graph builds a lineage. Things are the same where their trees are: what a
// stage reads is known by digest, not by name.
type graph struct {
	ctx     context.Context
	s       *cas.Store
	lineage *Lineage
	names   map[cas.Digest][]cas.Version // of artifacts, by tree
	runs    []Run                        // with a record, newest first
	records map[string]*Record           // by run; nil if there is none to read
	makers  map[cas.Digest]made          // by output's tree
	uses    map[cas.Digest][]used
	later   map[string][]used // by run: those that continued it
	done    map[string]bool   // nodes that were followed
}

type made struct{ run, output string }

type used struct {
	run   Run
	input string
}

func newGraph(ctx context.Context, s *cas.Store) (*graph, error) {
	g := &graph{ctx: ctx, s: s, lineage: &Lineage{Nodes: []LineageNode{}, Edges: []LineageEdge{}},
		names: map[cas.Digest][]cas.Version{}, records: map[string]*Record{}, done: map[string]bool{}}
	for v, err := range s.Artifacts(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("read the artifacts: %w", err)
		}
		all, err := s.Versions(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		for _, w := range all {
			g.names[w.Tree] = append(g.names[w.Tree], w)
		}
	}
	for r, err := range Runs(ctx, s) {
		// An unreadable run hides no other.
		if err == nil && r.SameAs == "" && !r.Tree.IsZero() {
			g.runs = append(g.runs, r)
		}
	}
	return g, nil
}

// root adds the node of what was asked for.
func (g *graph) root(t Target) (string, error) {
	if t.WorkDir != "" {
		return g.addRun(*t.Run), nil
	}
	if t.Run != nil {
		if t.Run.SameAs != "" {
			if r, err := FindRun(g.ctx, g.s, t.Run.SameAs); err == nil {
				t.Name = r.ID + strings.TrimPrefix(t.Name, t.Run.ID)
				t.Run = &r
			}
		}
		run, rest, isOutput := strings.Cut(strings.TrimSuffix(t.Name, "/"+t.Path), ".")
		if !isOutput || run != t.Run.ID {
			return g.addRun(*t.Run), nil
		}
		return g.addThing(t.Tree, made{run, rest}, ""), nil
	}
	if t.Tree.IsZero() {
		return "", usagef("%s is a bare file, whose lineage nobody recorded: name the artifact or the output", t.Name)
	}
	name := ""
	if t.Version != nil {
		name = fmt.Sprintf("%s@%d", t.Version.Name, t.Version.N)
	}
	return g.addThing(t.Tree, made{}, name), nil
}

// record reads a run's record; nil where there is none.
func (g *graph) record(id string) (*Record, error) {
	if r, ok := g.records[id]; ok {
		return r, nil
	}
	run, err := FindRun(g.ctx, g.s, id)
	var rec *Record
	if err == nil {
		rec, err = ReadRecord(g.ctx, g.s, run.Tree)
	}
	if err != nil && !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrFormat) {
		return nil, err
	}
	g.records[id] = rec
	return rec, nil
}

func (g *graph) addNode(n LineageNode) string {
	if !slices.ContainsFunc(g.lineage.Nodes, func(o LineageNode) bool { return o.ID == n.ID }) {
		if n.Params == nil {
			n.Params = map[string]string{}
		}
		if n.Names == nil {
			n.Names = []string{}
		}
		g.lineage.Nodes = append(g.lineage.Nodes, n)
	}
	return n.ID
}

func (g *graph) addEdge(from, to, as string) {
	if e := (LineageEdge{from, to, as}); !slices.Contains(g.lineage.Edges, e) {
		g.lineage.Edges = append(g.lineage.Edges, e)
	}
}

func (g *graph) addRun(r Run) string {
	return g.addNode(LineageNode{ID: r.ID, Kind: "run", Name: r.ID, Tree: r.Tree, Stage: r.Stage, Project: r.Project, Params: r.Params, Time: r.Started})
}

// addThing adds a tree by the best of its names: the output that made it, the
// version asked for or its newest, else its digest.
func (g *graph) addThing(tree cas.Digest, by made, name string) string {
	n := LineageNode{Kind: "tree", Name: tree.String(), Tree: tree}
	var asked time.Time // when the version that is asked for was made
	for _, v := range g.names[tree] {
		is := fmt.Sprintf("%s@%d", v.Name, v.N)
		n.Names = append(n.Names, is)
		n.Kind, n.Time = "artifact", v.Time
		if is == name {
			asked = v.Time
		}
		if by.run == "" && (name == "" || is == name) {
			by.run, by.output, _ = strings.Cut(v.MadeBy, ".")
		}
	}
	if by.run == "" {
		by = g.maker(tree, asked)
	}
	switch {
	case by.run != "":
		n.Kind, n.Name = "output", by.run+"."+by.output
	case name != "":
		n.Name = name
	case len(n.Names) > 0:
		n.Name = n.Names[len(n.Names)-1]
	}
	n.ID = n.Name
	return g.addNode(n)
}

// maker finds the run that made a tree which no version says it for: a stage's
// input given by digest, or an artifact added from an output's path. What was
// added before the run began (a stage that copies its input) it did not make;
// a zero time is any.
func (g *graph) maker(tree cas.Digest, before time.Time) made {
	if g.makers == nil {
		g.makers = map[cas.Digest]made{}
		for _, r := range g.runs { // newest first: the oldest stays
			if !r.Status.HasResult() && r.Status != Withdrawn {
				continue
			}
			out, err := g.s.Lookup(g.ctx, r.Tree, "out")
			if err != nil {
				continue
			}
			t, err := g.s.Tree(g.ctx, out.Digest)
			if err != nil {
				continue
			}
			for _, e := range t.Entries {
				g.makers[e.Digest] = made{r.ID, e.Name}
			}
		}
	}
	by := g.makers[tree]
	i := slices.IndexFunc(g.runs, func(r Run) bool { return r.ID == by.run })
	if i < 0 || !before.IsZero() && g.runs[i].Started.After(before) {
		return made{}
	}
	return by
}

// visit returns a node that is in the graph, once.
func (g *graph) visit(id string) (n LineageNode, first bool) {
	if g.done[id] {
		return n, false
	}
	g.done[id] = true
	i := slices.IndexFunc(g.lineage.Nodes, func(n LineageNode) bool { return n.ID == id })
	return g.lineage.Nodes[i], true
}

// up follows a node to what it was made from.
func (g *graph) up(id string) error {
	n, first := g.visit(id)
	if !first {
		return nil
	}
	if n.Kind == "output" {
		run, output, _ := strings.Cut(n.Name, ".")
		r, err := FindRun(g.ctx, g.s, run)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		maker := g.addRun(r)
		g.addEdge(maker, id, output)
		return g.up(maker)
	}
	if n.Kind != "run" {
		return nil
	}
	rec, err := g.record(id)
	if err != nil || rec == nil {
		return err
	}
	if err := g.upRuns(id, rec); err != nil {
		return err
	}
	for _, in := range rec.Inputs {
		things, err := g.madeOf(in)
		if err != nil {
			return err
		}
		if things == nil {
			things = []string{g.input(in)}
		}
		for _, thing := range things {
			g.addEdge(thing, id, in.Name)
			if err := g.up(thing); err != nil {
				return err
			}
		}
	}
	return nil
}

// madeOf adds the nodes of the outputs that an aggregate's input was made of;
// none for any other input.
func (g *graph) madeOf(in RecordInput) (things []string, err error) {
	for _, name := range in.Of {
		tree, err := g.outputTree(name)
		if err != nil {
			return nil, err
		}
		run, output, _ := strings.Cut(name, ".")
		things = append(things, g.addThing(tree, made{run, output}, ""))
	}
	return things, nil
}

// outputTree is the tree of RUN.OUTPUT, zero if that is not known any more.
func (g *graph) outputTree(name string) (cas.Digest, error) {
	run, output, _ := strings.Cut(name, ".")
	rec, err := g.record(run)
	if err != nil || rec == nil {
		return cas.Digest{}, err
	}
	if o := rec.Output(output); o != nil {
		return o.Tree, nil
	}
	return cas.Digest{}, nil
}

// The names of edges between runs.
const (
	edgeAccepted = "accepted"     // the outputs are the other run's, by a person's word
	edgeResumed  = "resumed from" // began with what the other left in its work directories
)

// upRuns follows a run to those it continued.
func (g *graph) upRuns(id string, rec *Record) error {
	for other, as := range continued(rec) {
		r, err := FindRun(g.ctx, g.s, other)
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		from := g.addRun(r)
		g.addEdge(from, id, as)
		if err := g.up(from); err != nil {
			return err
		}
	}
	return nil
}

// continued yields the runs that a run was accepted or resumed from.
func continued(rec *Record) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		if rec.Accepted != nil && !yield(rec.Accepted.Run, edgeAccepted) {
			return
		}
		if rec.ResumedFrom != nil {
			yield(rec.ResumedFrom.Run, edgeResumed)
		}
	}
}

// input adds the node of what a run read.
func (g *graph) input(in RecordInput) string {
	run, output, isOutput := strings.Cut(in.From, ".")
	if isOutput && !strings.Contains(output, "/") {
		if _, err := g.s.Ref(g.ctx, "run/"+run); err == nil {
			return g.addThing(in.Tree, made{run, output}, "")
		}
	}
	name := in.From
	if _, err := cas.ParseDigest(name); err == nil {
		name = ""
	}
	return g.addThing(in.Tree, made{}, name)
}
