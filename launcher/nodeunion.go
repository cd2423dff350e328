package launcher

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// ofNode is one output as one node wrote it.
type ofNode struct {
	node string // for people
	tree cas.Digest
}

// unite makes the outputs of all nodes one: of every output, what this node
// sealed and what the others did. Two nodes may write the same bytes to one
// path; other bytes are an error that names both.
func (r *run) unite(ctx context.Context, done []sealed) ([]sealed, error) {
	parts := r.parts
	here := fmt.Sprintf("node 0 (%s)", thisNode().Host)
	outputs := map[string][]ofNode{}
	for _, s := range done {
		outputs[s.name] = []ofNode{{here, s.added.Tree}}
	}
	for _, p := range parts {
		if p.tree.IsZero() {
			continue
		}
		e, err := r.s.Lookup(ctx, p.tree, "out")
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			return done, fmt.Errorf("read what %s wrote: %w", p, err)
		}
		t, err := r.s.Tree(ctx, e.Digest)
		if err != nil {
			return done, fmt.Errorf("read what %s wrote: %w", p, err)
		}
		for _, out := range t.Entries {
			outputs[out.Name] = append(outputs[out.Name], ofNode{p.String(), out.Digest})
		}
	}
	var all []sealed
	var missing []string
	for _, out := range r.p.Outputs {
		ws := outputs[out.Name]
		switch {
		case len(ws) == 0 && out.Optional:
			r.say("the optional output %s was not written", out.Name)
		case len(ws) == 0:
			missing = append(missing, fmt.Sprintf("output %s (%s) was not written by any of the nodes", out.Name, out.Path))
		default:
			added, err := r.uniteOutput(ctx, out, ws)
			if err != nil {
				return done, err
			}
			all = append(all, sealed{out.Name, added})
		}
	}
	if len(missing) > 0 {
		return done, fmt.Errorf("%w: the command ended with exit status 0 on all nodes, but %s: nothing is published", ErrRefused, strings.Join(missing, "; "))
	}
	var err error
	r.info, err = keepSealed(ctx, r.s, r.info, all)
	return all, err
}

func (r *run) uniteOutput(ctx context.Context, out stages.Output, ws []ofNode) (*cas.Added, error) {
	first := ws[0]
	for _, w := range ws[1:] {
		tree, err := r.mergeTrees(ctx, out.Name, first, w)
		if err != nil {
			return nil, err
		}
		first = ofNode{first.node, tree}
	}
	o, err := r.describe(ctx, first.tree, "")
	if err != nil {
		return nil, fmt.Errorf("output %s: %w", out.Name, err)
	}
	return &cas.Added{Tree: o.Tree, Digest: o.Digest, Single: o.Digest != o.Tree, Bytes: o.Bytes, Files: o.Files}, nil
}

// mergeTrees stores the union of two trees, pinned until the run's end; at is
// where they lie, for people.
func (r *run) mergeTrees(ctx context.Context, at string, a, b ofNode) (cas.Digest, error) {
	if a.tree == b.tree {
		return a.tree, nil
	}
	ta, err := r.s.Tree(ctx, a.tree)
	if err != nil {
		return cas.Digest{}, err
	}
	tb, err := r.s.Tree(ctx, b.tree)
	if err != nil {
		return cas.Digest{}, err
	}
	// The metadata of the first node counts where both give some.
	t := &cas.Tree{Single: ta.Single && tb.Single, Attrs: ta.Attrs, Entries: slices.Clone(ta.Entries)}
	for _, e := range tb.Entries {
		i := slices.IndexFunc(t.Entries, func(o cas.Entry) bool { return o.Name == e.Name })
		if i < 0 {
			t.Entries = append(t.Entries, e)
			continue
		}
		o := &t.Entries[i]
		where := path.Join(at, e.Name)
		switch {
		case o.Kind == cas.KindDir && e.Kind == cas.KindDir:
			tree, err := r.mergeTrees(ctx, where, ofNode{a.node, o.Digest}, ofNode{b.node, e.Digest})
			if err != nil {
				return cas.Digest{}, err
			}
			sub, err := r.s.Tree(ctx, tree)
			if err != nil {
				return cas.Digest{}, err
			}
			o.Digest, o.Size = tree, sub.Bytes()
		case o.Kind != e.Kind || o.Digest != e.Digest || o.Target != e.Target:
			return cas.Digest{}, fmt.Errorf("%w: %s and %s wrote different bytes to %s: nothing is published; let one of them write it, or each to a name of its own", ErrRefused, a.node, b.node, where)
		}
	}
	t.Sort()
	t.Single = t.Single && len(t.Entries) == 1
	added, err := r.s.AddTree(ctx, t)
	if err != nil {
		return cas.Digest{}, fmt.Errorf("unite what the nodes wrote to %s: %w", at, err)
	}
	r.united = append(r.united, added)
	return added.Tree, nil
}
