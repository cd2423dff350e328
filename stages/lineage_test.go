package stages

import (
	"slices"
	"testing"

	"github.com/curi-store/curi/cas"
)

// Three levels: digits → split → train → model@1, and what was accepted.
func TestLineage(t *testing.T) {
	s := newStore(t)
	ctx := t.Context()
	p := Project{Name: "p", Dir: t.TempDir()}
	addText(t, s, "digits", "digits.csv", "1,2")
	split := finish(t, s, bind(t, s, p, Stage{Name: "split", Dir: p.Dir, Command: []string{"split"}, Environ: []string{},
		Inputs: []Input{{Name: "raw", Ref: "digits"}}, Outputs: []Output{{Name: "part", Path: "part.csv"}}}), Succeeded, map[string]string{"part": "1"})
	st := trainStage(t, "lr=0.05")
	st.Inputs = []Input{{Name: "data", Ref: "split.part"}}
	train := finish(t, s, bind(t, s, p, st), Succeeded, map[string]string{"model": "weights"})
	model, err := Resolve(ctx, s, p, "train.model")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Publish(ctx, "model", model.Tree, cas.PublishOptions{MadeBy: train.ID + ".model"}); err != nil {
		t.Fatal(err)
	}

	edges := func(g *Lineage) []string {
		var list []string
		for _, e := range g.Edges {
			list = append(list, e.From+" -"+e.As+"-> "+e.To)
		}
		slices.Sort(list)
		return list
	}
	want := []string{
		"digits@1 -raw-> " + split.ID, split.ID + " -part-> " + split.ID + ".part",
		split.ID + ".part -data-> " + train.ID, train.ID + " -model-> " + train.ID + ".model",
	}
	slices.Sort(want)
	for ref, follow := range map[string]bool{"model": false, "train.model": false, "digits": true} {
		target, err := Resolve(ctx, s, p, ref)
		if err != nil {
			t.Fatal(err)
		}
		var g *Lineage
		if follow {
			g, err = Descendants(ctx, s, target)
		} else {
			g, err = Ancestors(ctx, s, target)
		}
		if err != nil || !slices.Equal(edges(g), want) {
			t.Errorf("%s (down: %v):\n%q\nwant\n%q\n%v", ref, follow, edges(g), want, err)
		}
		if !follow && !slices.Contains(g.Nodes[0].Names, "model@1") {
			t.Errorf("%s begins with %+v", ref, g.Nodes[0])
		}
	}
}
