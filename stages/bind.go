package stages

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Bind looks up inputs, code, tools and environment and computes the key.
// Errors of the stage's declaration wrap [ErrUsage]; an unknown REF wraps
// cas.ErrNotFound. It starts no process but the --tool commands.
func Bind(ctx context.Context, s *cas.Store, p Project, st Stage) (*Plan, error) {
	return NewBinder(s, p).Bind(ctx, st)
}

// normalize brings what was declared into one form: paths clean, lists sorted.
// The caller's slices are left alone.
func (p *Plan) normalize() {
	p.Inputs = slices.Clone(p.Inputs)
	slices.SortFunc(p.Inputs, func(a, b Input) int { return strings.Compare(a.Name, b.Name) })
	p.Outputs = slices.Clone(p.Outputs)
	slices.SortFunc(p.Outputs, func(a, b Output) int { return strings.Compare(a.Name, b.Name) })
	for i := range p.Outputs {
		o := &p.Outputs[i]
		o.Path = path.Clean(o.Path)
		if o.From != "" {
			from := o.From
			if !filepath.IsAbs(from) {
				from = filepath.Join(p.Dir, from)
			}
			if rel, ok := below(p.Dir, from); ok {
				o.From = rel // the same wherever the project lies
			} else {
				o.From = filepath.Clean(o.From)
			}
		}
	}
	p.Params = slices.Clone(p.Params)
	slices.SortFunc(p.Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	p.Work = slices.Clone(p.Work)
	slices.Sort(p.Work)
}

// BindInput turns what a REF means into a tree. A file inside a tree becomes a
// tree of its own with that one entry, kept until Release. What lies on a remote
// is asked for only as far as the key needs it, and added to Lacks.
func (p *Plan) BindInput(ctx context.Context, s *cas.Store, in Input) (BoundInput, error) {
	return p.bindInput(ctx, s, in, NewBinder(s, p.Project))
}

func (p *Plan) bindInput(ctx context.Context, s *cas.Store, in Input, look *Binder) (BoundInput, error) {
	t, err := look.target(ctx, p, in.Ref, in.Is)
	if err != nil {
		return BoundInput{}, err
	}
	b := BoundInput{Input: in, From: t.Name, Of: t.Of}
	if t.WorkDir != "" {
		return b, usagef("%s is a work directory, which may still change: add what you need of it first (curi add %s --name NAME)", in.Ref, shellWord(t.WorkDir))
	}
	if b.Tree, err = p.root(ctx, s, t, in.Name); err != nil {
		return b, err
	}
	if n := len(p.Lacks); n > 0 && p.Lacks[n-1].Tree == b.Tree && p.Lacks[n-1].file != nil {
		e := p.Lacks[n-1].file // its tree is not stored yet
		b.Meta, b.Single = e.Attrs.Meta(), e.Name
		return b, nil
	}
	head, err := look.head(ctx, b.Tree)
	if err != nil {
		return b, fmt.Errorf("%s: %w", in.Ref, err)
	}
	b.Meta, b.Single = head.Attrs.Meta(), head.File
	return b, nil
}

func (p *Plan) bindStdin(ctx context.Context, s *cas.Store, look *Binder) error {
	switch p.Stdin {
	case "":
		return nil
	case "-":
		r := p.StdinReader
		if r == nil {
			r = os.Stdin
		}
		added, err := s.AddReader(ctx, r, "stdin", cas.AddOptions{})
		if err != nil {
			return err
		}
		p.release = append(p.release, added.Release)
		p.StdinTree, p.StdinBlob, p.StdinFrom = added.Tree, added.Digest, "-"
		return nil
	}
	t, err := look.target(ctx, p, p.Stdin, p.StdinIs)
	if err != nil {
		return err
	}
	if t.Blob.IsZero() {
		return usagef("%s is no single file: name one inside it (%s/FILE)", p.Stdin, p.Stdin)
	}
	p.StdinBlob, p.StdinFrom = t.Blob, t.Name
	p.StdinTree, err = p.root(ctx, s, t, "")
	return err
}
