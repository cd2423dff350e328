package stages

import "slices"

// Outline is the stages of a file and what they need, whatever the parameters.
type Outline struct {
	Nodes []OutlineNode `json:"nodes"` // in order of the file, each behind what it needs
	Edges []OutlineEdge `json:"edges"`
}

// OutlineNode is a stage, or a thing of the store that stages read.
type OutlineNode struct {
	ID        string `json:"id"`
	Kind      string `json:"kind"` // "stage", "artifact"
	Name      string `json:"name"`
	Aggregate string `json:"aggregate,omitempty"`
	Layer     int    `json:"layer"` // 0 needs nothing; others are one behind the last that they need
}

// OutlineEdge leads from what is read to the stage that reads it.
type OutlineEdge struct {
	From   string `json:"from"`
	To     string `json:"to"`
	As     string `json:"as"`     // the input's name
	Output string `json:"output"` // of the stage it comes from; ""
}

// Name returns the name of a node.
func (g *Outline) Name(id string) string {
	for _, n := range g.Nodes {
		if n.ID == id {
			return n.Name
		}
	}
	return id
}

// Outline returns the outline of the stages called so and of what they need;
// without names, of all. Errors wrap [ErrUsage].
func (f *File) Outline(names []string) (*Outline, error) {
	g := &Outline{Nodes: []OutlineNode{}, Edges: []OutlineEdge{}}
	if len(names) == 0 {
		names = f.StageNames()
	}
	layers := map[string]int{}
	var add func(st *FileStage)
	add = func(st *FileStage) {
		id := "stage " + st.Name
		if _, done := layers[id]; done {
			return
		}
		layers[id] = 0
		layer := 0
		read := func(as, text string) {
			ref, err := expandRef(text, st.Params)
			if err != nil || ref == "" {
				return
			}
			from := "artifact " + ref
			up, ok, err := f.upstream(ref)
			switch {
			case err != nil:
				return
			case ok:
				add(up.stage)
				from = "stage " + up.stage.Name
			case !slices.ContainsFunc(g.Nodes, func(n OutlineNode) bool { return n.ID == from }):
				g.Nodes = append(g.Nodes, OutlineNode{ID: from, Kind: "artifact", Name: ref})
			}
			layer = max(layer, layers[from]+1)
			g.Edges = append(g.Edges, OutlineEdge{From: from, To: id, As: as, Output: up.output})
		}
		for _, in := range st.Inputs {
			read(in.Name, in.Ref)
		}
		if st.Stdin != "" && st.Stdin != "-" {
			read("stdin", st.Stdin)
		}
		layers[id] = layer
		g.Nodes = append(g.Nodes, OutlineNode{ID: id, Kind: "stage", Name: st.Name, Aggregate: st.Aggregate, Layer: layer})
	}
	for _, name := range names {
		st := f.Stage(name)
		if st == nil {
			return nil, usagef("%s has no stage %q%s", FileName, name, suggest(name, f.StageNames(), "%s"))
		}
		add(st)
	}
	return g, nil
}
