package stages

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/curi-store/curi/cas"
)

// Binder binds stages of one project and looks up only once what several of
// them have in common: REFs, code, what --tool commands print. What it has
// looked up it takes for unchanged, so it is for stages that are bound within
// moments, in one environment. It is safe for concurrent use.
type Binder struct {
	s    *cas.Store
	p    Project
	seen *sources

	mu      sync.Mutex
	targets map[string]func() (Target, error)
	heads   map[cas.Digest]cas.TreeHead
	tools   map[string]func() (ToolResult, error)
	codes   map[string]func() foundCode

	kept []func() // lets go of what was stored for [Task.Bind]
}

type foundCode struct {
	files    []CodeFile
	warnings []string
	err      error
}

// NewBinder returns a Binder that has looked up nothing yet.
func NewBinder(s *cas.Store, p Project) *Binder {
	return &Binder{s: s, p: p, seen: newSources(), targets: map[string]func() (Target, error){}, heads: map[cas.Digest]cas.TreeHead{},
		tools: map[string]func() (ToolResult, error){}, codes: map[string]func() foundCode{}}
}

// Bind is [Bind] with what the Binder knows already.
func (b *Binder) Bind(ctx context.Context, st Stage) (*Plan, error) {
	plan, err := b.begin(st)
	if err == nil {
		err = b.inputs(ctx, plan, func(Input) bool { return true })
	}
	if err == nil {
		err = b.rest(ctx, plan)
	}
	if err != nil {
		if plan != nil {
			plan.Release()
		}
		return nil, fmt.Errorf("stage %s: %w", st.Name, err)
	}
	plan.Preimage = plan.preimage()
	plan.Key = plan.Preimage.Key()
	return plan, nil
}

// Check looks for what would keep a stage from being bound: its declaration,
// its code, and those of its inputs of which known says that they are there. It
// runs no --tool command.
func (b *Binder) Check(ctx context.Context, st Stage, known func(Input) bool) error {
	plan, err := b.begin(st)
	if err == nil {
		defer plan.Release()
		err = b.inputs(ctx, plan, known)
	}
	if err == nil {
		err = b.code(plan).err
	}
	if err != nil {
		return fmt.Errorf("stage %s: %w", st.Name, err)
	}
	return nil
}

func (b *Binder) begin(st Stage) (*Plan, error) {
	if st.Environ == nil {
		st.Environ = os.Environ()
	}
	plan := &Plan{Stage: st, Project: b.p}
	if err := plan.check(); err != nil {
		return nil, err
	}
	plan.normalize()
	return plan, nil
}

func (b *Binder) inputs(ctx context.Context, p *Plan, which func(Input) bool) error {
	for _, in := range p.Inputs {
		if !which(in) {
			continue
		}
		bound, err := p.bindInput(ctx, b.s, in, b)
		if err != nil {
			return fmt.Errorf("input %s: %w", in.Name, err)
		}
		p.In = append(p.In, bound)
	}
	return nil
}

// rest looks up what the key depends on beside the inputs.
func (b *Binder) rest(ctx context.Context, p *Plan) error {
	if err := p.checkMeta(); err != nil {
		return err
	}
	if err := p.bindStdin(ctx, b.s, b); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if err := p.bindResumeFrom(ctx, b.s); err != nil {
		return fmt.Errorf("resume from: %w", err)
	}
	code := b.code(p)
	if code.err != nil {
		return code.err
	}
	p.CodeFile, p.Warnings = code.files, code.warnings
	p.bindEnv()
	return p.runTools(ctx, b)
}

// once returns the function that looks a thing up, the same for all who ask.
func once[T any](b *Binder, known map[string]T, key string, look T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f, ok := known[key]; ok {
		return f
	}
	known[key] = look
	return look
}

// target returns what a REF of a plan means; is, if it is not nil, is that
// already.
func (b *Binder) target(ctx context.Context, p *Plan, ref string, is *Target) (Target, error) {
	if is != nil {
		return *is, nil
	}
	if p.Elsewhere != nil {
		t, release, err := p.Elsewhere(ctx, ref)
		if err != nil {
			return t, err
		}
		if release != nil {
			p.release = append(p.release, release)
			return t, nil
		}
	}
	return once(b, b.targets, ref, sync.OnceValues(func() (Target, error) { return Resolve(ctx, b.s, b.p, ref) }))()
}

func (b *Binder) head(ctx context.Context, tree cas.Digest) (cas.TreeHead, error) {
	b.mu.Lock()
	head, ok := b.heads[tree]
	b.mu.Unlock()
	if ok {
		return head, nil
	}
	head, err := b.s.Head(ctx, tree)
	if err == nil {
		b.setHead(tree, head)
	}
	return head, err
}

// setHead tells the head of a tree that may not be stored.
func (b *Binder) setHead(tree cas.Digest, head cas.TreeHead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heads[tree] = head
}

func (b *Binder) tool(ctx context.Context, p *Plan, command string) (ToolResult, error) {
	return once(b, b.tools, p.Dir+"\x00"+command, sync.OnceValues(func() (ToolResult, error) { return p.toolResult(ctx, command) }))()
}

// code finds the code of a stage, once for all that have the same command.
func (b *Binder) code(p *Plan) foundCode {
	var key strings.Builder
	add := func(texts ...string) {
		for _, t := range texts {
			key.WriteString(t)
			key.WriteByte(0)
		}
		key.WriteByte(0)
	}
	add(p.Dir)
	add(p.Command...)
	add(p.Code...)
	if p.Shell {
		add("shell")
	}
	for _, o := range p.Outputs {
		if o.From != "" {
			add(o.From)
		}
	}
	add(p.pythonPath()...)
	add(p.variable("PATH"))
	return once(b, b.codes, key.String(), sync.OnceValue(func() foundCode {
		c := newCode(p, b.s.Dir(), b.seen)
		if err := c.find(); err != nil {
			return foundCode{err: err}
		}
		return foundCode{files: c.sorted(), warnings: c.warnings}
	}))()
}
