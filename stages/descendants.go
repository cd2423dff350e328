package stages

import (
	"context"

	"github.com/curi-store/curi/cas"
)

// Descendants returns what was made from a target.
func Descendants(ctx context.Context, s *cas.Store, t Target) (*Lineage, error) {
	g, err := newGraph(ctx, s)
	if err != nil {
		return nil, err
	}
	root, err := g.root(t)
	if err != nil {
		return nil, err
	}
	if err := g.readUses(); err != nil {
		return nil, err
	}
	return g.lineage, g.down(root)
}

// readUses reads what every run used.
func (g *graph) readUses() error {
	g.uses, g.later = map[cas.Digest][]used{}, map[string][]used{}
	for _, r := range g.runs {
		rec, err := g.record(r.ID)
		if err != nil {
			return err
		}
		if rec == nil {
			continue
		}
		for _, in := range rec.Inputs {
			g.uses[in.Tree] = append(g.uses[in.Tree], used{r, in.Name})
			for _, name := range in.Of {
				tree, err := g.outputTree(name)
				if err != nil {
					return err
				}
				g.uses[tree] = append(g.uses[tree], used{r, in.Name})
			}
		}
		for other, as := range continued(rec) {
			g.later[other] = append(g.later[other], used{r, as})
		}
	}
	return nil
}

// down follows a node to what was made from it.
func (g *graph) down(id string) error {
	n, first := g.visit(id)
	if !first {
		return nil
	}
	if n.Kind != "run" {
		return g.downTo(id, g.uses[n.Tree])
	}
	if err := g.downTo(id, g.later[id]); err != nil {
		return err
	}
	rec, err := g.record(id)
	if err != nil || rec == nil {
		return err
	}
	for _, out := range rec.Outputs {
		if out.Tree.IsZero() {
			continue
		}
		thing := g.addThing(out.Tree, made{id, out.Name}, "")
		g.addEdge(id, thing, out.Name)
		if err := g.down(thing); err != nil {
			return err
		}
	}
	return nil
}

// downTo goes on with the runs that used a node.
func (g *graph) downTo(id string, uses []used) error {
	for _, u := range uses {
		run := g.addRun(u.run)
		g.addEdge(id, run, u.input)
		if err := g.down(run); err != nil {
			return err
		}
	}
	return nil
}
