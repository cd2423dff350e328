package stages

import (
	"context"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// checkResume refuses a resume rule, or a run to resume from, that makes no sense.
func (p *Plan) checkResume() error {
	if p.ResumeFrom != "" && len(p.Work) == 0 {
		return usagef("--resume-from %s: the stage has no work directory to copy to; declare it with --work NAME", p.ResumeFrom)
	}
	if p.Resume == nil {
		return nil
	}
	return p.Resume.check(p.Work)
}

// bindResumeFrom finds the run whose work directories the first try begins with.
func (p *Plan) bindResumeFrom(ctx context.Context, s *cas.Store) error {
	if p.ResumeFrom == "" {
		return nil
	}
	t, err := Resolve(ctx, s, p.Project, p.ResumeFrom)
	if err != nil {
		return err
	}
	if t.Run == nil || t.WorkDir != "" || t.Path != "" || t.Tree != t.Run.Tree {
		return usagef("--resume-from %s: it is no run; curi log lists them", p.ResumeFrom)
	}
	if !slices.ContainsFunc(p.Work, func(w string) bool { return slices.Contains(t.Run.Work, w) }) {
		if len(t.Run.Work) == 0 {
			return usagef("--resume-from %s: that run has no work directory", p.ResumeFrom)
		}
		return usagef("--resume-from %s: the work directories of that run are %s, those of this stage %s: one must have the same name",
			p.ResumeFrom, strings.Join(t.Run.Work, ", "), strings.Join(p.Work, ", "))
	}
	p.ResumeFrom, p.ResumeRun = t.Run.ID, *t.Run
	return nil
}

// LeftWork finds the newest run of a plan's stage in its project, other than
// of its own key, that left something in a work directory of a name that the
// plan has; left says whether a run did. ok is false where there is none.
func LeftWork(ctx context.Context, s *cas.Store, p *Plan, left func(Run) bool) (run Run, ok bool, err error) {
	for r, err := range runsWith(ctx, s, "run/"+p.Name+"-") {
		if cerr := ctx.Err(); cerr != nil {
			return Run{}, false, cerr
		}
		if err != nil {
			continue // what cannot be read is no offer
		}
		if r.Stage != p.Name || r.Project != p.Project.Name || r.Key == p.Key.String() || r.Status == Running {
			continue
		}
		if slices.ContainsFunc(p.Work, func(w string) bool { return slices.Contains(r.Work, w) }) && left(r) {
			return r, true, nil
		}
	}
	return Run{}, false, nil
}
