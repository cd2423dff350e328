package launcher

import (
	"fmt"
	"slices"
	"strings"

	"github.com/curi-store/curi/stages"
)

// foresee tells before hours of other stages which stage could not run here.
func (x *graphExec) foresee() {
	stale := slices.DeleteFunc(slices.Clone(x.g.Tasks), func(t *stages.Task) bool { return t.Cached })
	if len(stale) < 2 {
		return // it will be said at once
	}
	for _, t := range stale {
		if x.slurm(t) != nil {
			continue // what its node has is not known here
		}
		opts := x.o.Options(t)
		if opts.Accept != "" {
			continue
		}
		env, st := environment(opts.Environ), t.Stage
		if err := lacksGPUs(t.Resources, "stage "+st.Name, env); err != nil {
			x.event(Event{Kind: EventWarning, Task: t, Text: fmt.Sprintf("%s; without a result it will be refused", oneLine(err))})
		}
		if opts.Secret != nil {
			if err := (&stages.Plan{Stage: st.Stage}).CheckSecrets(opts.Secret); err != nil {
				x.event(Event{Kind: EventWarning, Task: t, Text: fmt.Sprintf("stage %s: %s; without a result it will be refused", st.Name, oneLine(err))})
			}
		}
		if st.Shell || strings.Contains(st.Command[0], "{") || slices.ContainsFunc(st.Env, func(v stages.EnvVar) bool { return v.Name == "PATH" }) {
			continue
		}
		if _, err := findProgram(st.Command[0], x.g.Project.Dir, env); err != nil {
			x.event(Event{Kind: EventWarning, Task: t, Text: fmt.Sprintf("stage %s: %s; without a result it will fail", st.Name, oneLine(err))})
		}
	}
}
