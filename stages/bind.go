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
	if st.Environ == nil {
		st.Environ = os.Environ()
	}
	plan := &Plan{Stage: st, Project: p}
	if err := plan.check(); err != nil {
		return nil, fmt.Errorf("stage %s: %w", st.Name, err)
	}
	plan.normalize()
	if err := plan.bind(ctx, s); err != nil {
		plan.Release()
		return nil, fmt.Errorf("stage %s: %w", st.Name, err)
	}
	plan.Preimage = plan.preimage()
	plan.Key = plan.Preimage.Key()
	return plan, nil
}

// bind looks up what the key depends on.
func (p *Plan) bind(ctx context.Context, s *cas.Store) error {
	for _, in := range p.Inputs {
		b, err := p.BindInput(ctx, s, in)
		if err != nil {
			return fmt.Errorf("input %s: %w", in.Name, err)
		}
		p.In = append(p.In, b)
	}
	if err := p.checkMeta(); err != nil {
		return err
	}
	if err := p.bindStdin(ctx, s); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := p.bindResumeFrom(ctx, s); err != nil {
		return fmt.Errorf("resume from: %w", err)
	}
	c := newCode(p, s.Dir())
	if err := c.find(); err != nil {
		return err
	}
	p.CodeFile, p.Warnings = c.sorted(), c.warnings
	p.bindEnv()
	return p.runTools(ctx)
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
	t, err := p.elsewhere(ctx, s, in.Ref)
	if err != nil {
		return BoundInput{}, err
	}
	b := BoundInput{Input: in, From: t.Name}
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
	head, err := s.Head(ctx, b.Tree)
	if err != nil {
		return b, fmt.Errorf("%s: %w", in.Ref, err)
	}
	b.Meta, b.Single = head.Attrs.Meta(), head.File
	return b, nil
}

func (p *Plan) bindStdin(ctx context.Context, s *cas.Store) error {
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
	t, err := p.elsewhere(ctx, s, p.Stdin)
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
