package stages

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/curi-store/curi/cas"
)

// CheckProject finds what is wrong in a file with the project and the store as
// they are now: code that is not there, inputs that nothing names. elsewhere is
// that of a [Stage]. The error is only of the look itself.
func (f *File) CheckProject(ctx context.Context, s *cas.Store, p Project, elsewhere Elsewhere) (problems []Problem, warnings []string, err error) {
	r := newFileReader(0)
	b := NewBinder(s, p)
	look := &Plan{Stage: Stage{Elsewhere: elsewhere}}
	defer look.Release()
	for _, st := range f.Stages {
		for _, in := range st.Inputs {
			f.checkStored(ctx, r, b, look, st, in.Ref, "in."+in.Name, "input "+in.Name)
		}
		if st.Stdin != "-" {
			f.checkStored(ctx, r, b, look, st, st.Stdin, "stdin", "stdin")
		}
		one := st.Stage
		one.Dir = p.Dir
		plan, err := b.begin(one)
		if err != nil {
			r.problem(st.at[""], "stage %s: %v", st.Name, err)
			continue
		}
		found := b.code(plan)
		if errors.Is(found.err, ErrUsage) {
			n := st.at["code"]
			if n == nil || !strings.HasPrefix(found.err.Error(), "--code") {
				n = st.at["run.0"]
			}
			r.problem(n, "stage %s: %s", st.Name, strings.Replace(found.err.Error(), "--code", "code:", 1))
		} else if found.err != nil {
			return nil, nil, fmt.Errorf("stage %s: %w", st.Name, found.err)
		}
		for _, w := range found.warnings {
			if w = "stage " + st.Name + ": " + w; !slices.Contains(warnings, w) {
				warnings = append(warnings, w)
			}
		}
	}
	f.checkGraph(r, p)
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if r.error(f.Path) == nil {
		return []Problem{}, warnings, nil
	}
	return r.problems, warnings, nil
}

// maxChecked bounds the stages, counted with each set, whose graph is built only
// to check it.
const maxChecked = 1_000_000

// checkGraph finds what only the values of parameter sets make wrong: a stage
// that needs its own output then, an aggregate whose other inputs differ.
func (f *File) checkGraph(r *fileReader, p Project) {
	if len(r.problems) > 0 || len(f.Stages)*len(f.Sets) > maxChecked {
		return
	}
	var sel Selection
	if f.HasSets {
		sel.Sets = []string{AllSets}
	}
	_, err := f.Graph(p, sel)
	var in *inputError
	switch {
	case errors.As(err, &in):
		r.problem(in.st.at[in.at], "%v", err)
	case err != nil:
		r.problem(&yaml.Node{}, "%v", err)
	}
}

// checkStored looks up a REF that no stage of the file makes, with every set.
func (f *File) checkStored(ctx context.Context, r *fileReader, b *Binder, look *Plan, st *FileStage, text, at, what string) {
	if text == "" {
		return
	}
	seen := map[string]bool{}
	for _, set := range f.Sets {
		ref, err := expandRef(text, st.with(set.Params))
		if err != nil || seen[ref] {
			continue
		}
		seen[ref] = true
		if _, ok, err := f.upstream(ref); ok {
			continue
		} else if err != nil {
			r.problem(st.at[at], "stage %s: %s: %v", st.Name, what, err)
			continue
		}
		if _, err := b.target(ctx, look, ref, nil); err != nil {
			hint := ""
			if parts, perr := parseRef(ref); perr == nil {
				if near := f.Stage(parts.name); near != nil && len(near.Outputs) > 0 {
					hint = "; " + near.Name + " is a stage: name an output (" + near.Name + "." + near.Outputs[0].Name + ")"
				} else {
					hint = suggest(parts.name, f.StageNames(), "stage %s")
				}
			}
			r.problem(st.at[at], "stage %s: %s: %v%s", st.Name, what, err, hint)
		}
	}
}
