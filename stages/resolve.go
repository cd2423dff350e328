package stages

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Target is what a REF means.
type Target struct {
	Ref     string     // as asked
	Name    string     // canonical: "digits@2", "train-7f3k2m.model", a digest
	Tree    cas.Digest // the root tree: an artifact's, a run's result, an output's; zero for a bare blob
	Path    string     // slash path inside Tree, links followed; "" is the tree itself (or its single file)
	Link    string     // target of the symbolic link that was named, which Path is only where that leads nowhere
	Blob    cas.Digest // set when the REF means one file: its digest
	Version *cas.Version
	Run     *Run
	WorkDir string   // set for RUN.work/NAME: absolute directory on disk
	Of      []string // set where Tree was made of several outputs: RUN.OUTPUT of each
}

// Resolve finds what a REF (see docs/commands.md) names in a store, from
// within a project. Errors wrap cas.ErrNotFound or [ErrUsage], say what was
// looked for, and suggest near names.
//
// A name is an artifact's before it is a run's or a stage's; NAME@last is the
// tag where an artifact has it, else the stage's newest run.
func Resolve(ctx context.Context, s *cas.Store, p Project, ref string) (Target, error) {
	parts, err := parseRef(ref)
	if err != nil {
		return Target{}, err
	}
	r := resolver{ctx, s, p, ref, parts}
	t, err := r.root()
	if err != nil {
		return Target{}, err
	}
	t.Ref = ref
	if t.WorkDir != "" {
		return t, nil
	}
	return t, r.enter(&t)
}

type resolver struct {
	ctx   context.Context
	s     *cas.Store
	p     Project
	ref   string
	parts refParts
}

func (r *resolver) root() (Target, error) {
	parts := r.parts
	switch {
	case parts.digest != "":
		d, isTree, err := r.s.ResolvePrefix(r.ctx, parts.digest)
		if errors.Is(err, cas.ErrInvalid) {
			return Target{}, usagef("%v", err)
		}
		if err != nil {
			return Target{}, err
		}
		if isTree {
			return Target{Name: d.String(), Tree: d}, nil
		}
		return Target{Name: d.String(), Blob: d}, nil
	case parts.output == "" && parts.params == nil:
		return r.named()
	}
	run, err := r.run()
	if err != nil {
		return Target{}, err
	}
	switch parts.output {
	case "":
		return Target{Name: run.ID, Tree: run.Tree, Run: &run}, nil
	case "work":
		return r.workDir(run)
	}
	return r.output(run)
}

// named resolves NAME, NAME@SELECTOR, RUN and STAGE@last.
func (r *resolver) named() (Target, error) {
	parts := r.parts
	v, err := r.s.Version(r.ctx, parts.name, parts.selector)
	if err == nil {
		return Target{Name: fmt.Sprintf("%s@%d", v.Name, v.N), Tree: v.Tree, Version: &v}, nil
	}
	if !errors.Is(err, cas.ErrNotFound) {
		return Target{}, err
	}
	if parts.selector == "" || parts.selector == "last" {
		run, runErr := r.run()
		if runErr == nil {
			return Target{Name: run.ID, Tree: run.Tree, Run: &run}, nil
		}
		if !errors.Is(runErr, cas.ErrNotFound) {
			return Target{}, runErr
		}
	}
	return Target{}, r.notFound(err)
}

// notFound says what is near; err is what the look-up of the artifact said.
func (r *resolver) notFound(err error) error {
	versions, vErr := r.s.Versions(r.ctx, r.parts.name)
	if vErr == nil && len(versions) > 0 {
		if r.parts.output != "" || r.parts.params != nil {
			return fmt.Errorf("%s: %w: %s is an artifact and no stage: what lies in it is %s/PATH", r.ref, cas.ErrNotFound, r.parts.name, r.parts.name)
		}
		var have []string
		for _, v := range versions {
			have = append(have, fmt.Sprint(v.N))
			have = append(have, v.Tags...)
		}
		return fmt.Errorf("%s: %w: %s has %s", r.ref, cas.ErrNotFound, r.parts.name, strings.Join(have, ", "))
	}
	var names []string
	if f, err := LoadFile(r.p); err == nil {
		if f.Stage(r.parts.name) != nil {
			return fmt.Errorf("%s: %w: stage %s has not run yet; curi stage exec %s runs it", r.ref, cas.ErrNotFound, r.parts.name, r.parts.name)
		}
		names = f.StageNames()
	}
	for v, err := range r.s.Artifacts(r.ctx, "") {
		if err == nil {
			names = append(names, v.Name)
		}
	}
	for run, err := range Runs(r.ctx, r.s) {
		if err == nil {
			names = append(names, run.ID, run.Stage)
		}
	}
	hint := suggest(r.parts.name, names, "%s")
	if hint == "" {
		hint = ": no artifact, run or stage has that name (curi ls and curi log list them)"
	}
	return fmt.Errorf("%s: %w%s", r.ref, cas.ErrNotFound, hint)
}

// run finds the run that the REF means: by its id, or of a stage.
func (r *resolver) run() (Run, error) {
	parts := r.parts
	if parts.selector == "" && parts.params == nil {
		run, err := FindRun(r.ctx, r.s, parts.name)
		if err == nil || !errors.Is(err, cas.ErrNotFound) {
			return run, err
		}
	}
	if parts.selector != "" && parts.selector != "last" {
		return Run{}, fmt.Errorf("%s: %w: of a stage there is only %s@last; curi log lists its runs by name", r.ref, cas.ErrNotFound, parts.name)
	}
	var runs, elsewhere []Run
	for run, err := range runsWith(r.ctx, r.s, "run/"+parts.name+"-") {
		switch {
		case err != nil:
			return Run{}, err
		case run.Stage != parts.name:
		case run.Project != r.p.Name:
			elsewhere = append(elsewhere, run)
		default:
			runs = append(runs, run)
		}
	}
	switch {
	case len(runs) == 0 && len(elsewhere) > 0:
		return Run{}, fmt.Errorf("%s: %w in project %s; %s of project %s has that stage: name the run, or change there", r.ref, cas.ErrNotFound, r.p.Name, elsewhere[0].ID, elsewhere[0].Project)
	case len(runs) == 0:
		return Run{}, r.notFound(nil)
	case parts.selector == "last":
		runs = slices.DeleteFunc(runs, func(run Run) bool { return !selects(parts.params, run) })
		if len(runs) == 0 {
			return Run{}, fmt.Errorf("%s: %w: no run of %s has these parameters", r.ref, cas.ErrNotFound, parts.name)
		}
		return runs[0], nil
	case parts.output == "":
		return Run{}, usagef("%s is a stage: name an output (%s), its newest run (%s@last) or a run (%s)",
			r.ref, exampleOutput(runs[0]), parts.name, runs[0].ID)
	}
	return r.newestResult(runs)
}

func exampleOutput(run Run) string {
	if len(run.Outputs) == 0 {
		return run.Stage + ".OUTPUT"
	}
	return run.Stage + "." + run.Outputs[0]
}

// newestResult picks the result that was made or taken last. Results whose
// parameters differ are different things: which one is meant must be said.
func (r *resolver) newestResult(runs []Run) (Run, error) {
	last := runs[0]
	all := slices.DeleteFunc(slices.Clone(runs), func(run Run) bool { return !run.Status.HasResult() || run.Tree.IsZero() })
	if r.parts.output == "work" {
		all = runs
	}
	if len(all) == 0 {
		return Run{}, fmt.Errorf("%s: %w: no run of %s has a result; the last, %s, is %s (curi log %s)", r.ref, cas.ErrNotFound, r.parts.name, last.ID, last.Status, last.ID)
	}
	picked := slices.DeleteFunc(slices.Clone(all), func(run Run) bool { return !selects(r.parts.params, run) })
	if len(picked) == 0 {
		return Run{}, fmt.Errorf("%s: %w: the results of %s have %s", r.ref, cas.ErrNotFound, r.parts.name, alternatives(r.parts, all))
	}
	slices.SortStableFunc(picked, func(a, b Run) int { return b.Used.Compare(a.Used) })
	for _, run := range picked[1:] {
		if !equalParams(run.Params, picked[0].Params) {
			return Run{}, usagef("%s: the results of %s differ in parameters: pick one of %s", r.ref, r.parts.name, alternatives(r.parts, picked))
		}
	}
	return picked[0], nil
}

func (r *resolver) output(run Run) (Target, error) {
	name := run.ID + "." + r.parts.output
	t := Target{Name: name, Run: &run}
	if !slices.Contains(run.Outputs, r.parts.output) {
		hint := suggest(r.parts.output, run.Outputs, "%s")
		if hint == "" {
			hint = ": it has " + strings.Join(run.Outputs, ", ")
		}
		if len(run.Outputs) == 0 {
			hint = ": it has no outputs"
		}
		return t, fmt.Errorf("%s: %w: run %s has no output %s%s", r.ref, cas.ErrNotFound, run.ID, r.parts.output, hint)
	}
	if run.Tree.IsZero() || !run.Status.HasResult() && run.Status != Withdrawn {
		return t, fmt.Errorf("%s: %w: run %s is %s and published no outputs", r.ref, cas.ErrNotFound, run.ID, run.Status)
	}
	e, err := r.s.Lookup(r.ctx, run.Tree, "out/"+r.parts.output)
	if errors.Is(err, cas.ErrNotFound) {
		if _, treeErr := r.s.Tree(r.ctx, run.Tree); treeErr != nil {
			return t, fmt.Errorf("%s: the result of %s is there no more, run the stage again: %w", r.ref, run.ID, treeErr)
		}
		return t, fmt.Errorf("%s: %w: run %s did not write its optional output %s", r.ref, cas.ErrNotFound, run.ID, r.parts.output)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w", r.ref, err)
	}
	t.Tree = e.Digest
	return t, nil
}

func (r *resolver) workDir(run Run) (Target, error) {
	name, below, _ := strings.Cut(r.parts.path, "/")
	if !slices.Contains(run.Work, name) {
		if len(run.Work) == 0 {
			return Target{}, fmt.Errorf("%s: %w: run %s has no work directory", r.ref, cas.ErrNotFound, run.ID)
		}
		return Target{}, fmt.Errorf("%s: %w: the work directories of %s are %s", r.ref, cas.ErrNotFound, run.ID, strings.Join(run.Work, ", "))
	}
	dir := filepath.Join(r.s.Place(run.Key).Dir(), "work", name, filepath.FromSlash(below))
	if _, err := os.Lstat(dir); err != nil {
		return Target{}, fmt.Errorf("%s: %w: %s is there no more", r.ref, cas.ErrNotFound, dir)
	}
	return Target{Name: run.ID + ".work/" + r.parts.path, Run: &run, WorkDir: dir}, nil
}

// enter follows /PATH, and finds the digest where the target is one file.
func (r *resolver) enter(t *Target) error {
	path := r.parts.path
	switch {
	case t.Tree.IsZero() && t.Run != nil:
		if path != "" {
			return fmt.Errorf("%s: %w: run %s is %s and left nothing yet", r.ref, cas.ErrNotFound, t.Run.ID, t.Run.Status)
		}
		return nil
	case t.Tree.IsZero():
		if path != "" {
			return fmt.Errorf("%s: %w: %s is a file, nothing lies below it", r.ref, cas.ErrNotFound, t.Name)
		}
		return nil
	case path == "":
		_, e, single, err := r.s.SingleFile(r.ctx, t.Tree)
		if err != nil {
			return fmt.Errorf("%s: %w", r.ref, err)
		}
		if single {
			t.Blob = e.Digest
		}
		return nil
	}
	real, link, err := followLinks(r.ctx, r.s, t.Tree, path)
	if err != nil {
		return fmt.Errorf("%s: %w%s", r.ref, err, r.nearPath(t.Tree, path))
	}
	e, err := r.s.Lookup(r.ctx, t.Tree, real)
	if err != nil {
		return fmt.Errorf("%s: %w", r.ref, err)
	}
	t.Path, t.Link = real, link
	t.Name += "/" + path
	if e.Kind == cas.KindFile || e.Kind == cas.KindExecutable {
		t.Blob = e.Digest
	}
	return nil
}

// nearPath suggests a name for the first part of a path that is not there.
func (r *resolver) nearPath(tree cas.Digest, path string) string {
	done := ""
	for part := range strings.SplitSeq(path, "/") {
		e, err := r.s.Lookup(r.ctx, tree, strings.TrimSuffix(done, "/"))
		if err != nil || e.Kind != cas.KindDir {
			return ""
		}
		t, err := r.s.Tree(r.ctx, e.Digest)
		if err != nil {
			return ""
		}
		if _, ok := t.Lookup(part); ok {
			done += part + "/"
			continue
		}
		var names []string
		for _, e := range t.Entries {
			names = append(names, done+e.Name)
		}
		return suggest(done+part, names, "%s")
	}
	return ""
}

// Inside is the target that a path inside a stored tree makes, for a REF whose
// name leads to that tree by other ways than the store's own names.
func Inside(ctx context.Context, s *cas.Store, ref, name string, tree cas.Digest, path string) (Target, error) {
	r := resolver{ctx: ctx, s: s, ref: ref, parts: refParts{path: path}}
	t := Target{Ref: ref, Name: name, Tree: tree}
	return t, r.enter(&t)
}
