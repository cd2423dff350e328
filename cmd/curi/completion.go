package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// completionTime bounds how long a press of the tab key may take.
const completionTime = 2 * time.Second

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func completeFiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveDefault
}

func completeDirs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// quietly opens the store for a completion: whatever fails there completes to
// nothing and says nothing.
func (a *app) quietly(do func(context.Context, *cas.Store)) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	a.quiet = true
	if s, err := a.existingStore(ctx); err == nil {
		do(ctx, s)
	}
}

// completeArtifacts completes the name of an artifact.
func (a *app) completeArtifacts(_ *cobra.Command, _ []string, word string) (list []string, _ cobra.ShellCompDirective) {
	a.quietly(func(ctx context.Context, s *cas.Store) {
		for v, err := range s.Artifacts(ctx, word) {
			if err == nil {
				list = append(list, v.Name)
			}
		}
	})
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeRefs completes up to n REFs; what follows them is a file.
func (a *app) completeRefs(n int) completer {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.refs(word), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// completeInputs completes the REF of N=REF.
func (a *app) completeInputs(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	name, ref, ok := strings.Cut(word, "=")
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	var list []string
	for _, r := range a.refs(ref) {
		list = append(list, name+"="+r)
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// refs lists the REFs that begin with word: artifacts, their versions and
// tags once there is an @, runs, stages, and their outputs once there is a dot.
func (a *app) refs(word string) (list []string) {
	seen := map[string]bool{}
	put := func(s string) {
		if strings.HasPrefix(s, word) && !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	a.quietly(func(ctx context.Context, s *cas.Store) {
		name, _, at := strings.Cut(word, "@")
		if at {
			if vs, err := s.Versions(ctx, name); err == nil {
				for _, v := range vs {
					put(versionName(v))
					for _, t := range v.Tags {
						put(v.Name + "@" + t)
					}
				}
			}
		} else {
			for v, err := range s.Artifacts(ctx, word) {
				if err == nil {
					put(v.Name)
				}
			}
		}
		a.putRuns(ctx, s, word, put)
	})
	return list
}

func (a *app) putRuns(ctx context.Context, s *cas.Store, word string, put func(string)) {
	p, err := a.project()
	if err != nil {
		return
	}
	dot := strings.Contains(word, ".")
	for r, err := range stages.Runs(ctx, s) {
		if err != nil {
			continue
		}
		here := r.Project == p.Name
		if strings.Contains(word, "@") && here {
			put(r.Stage + "@last")
		}
		if !dot {
			put(r.ID)
			if here && len(r.Outputs) == 1 {
				put(r.Stage + "." + r.Outputs[0])
			} else if here && len(r.Outputs) > 1 {
				put(r.Stage + ".")
			}
			continue
		}
		for _, o := range r.Outputs {
			put(r.ID + "." + o)
			if here {
				put(r.Stage + "." + o)
				put(r.Stage + "@last." + o)
			}
		}
		for _, w := range r.Work {
			put(r.ID + ".work/" + w)
		}
	}
}

// completeRuns completes a run.
func (a *app) completeRuns(_ *cobra.Command, args []string, word string) (list []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.quietly(func(ctx context.Context, s *cas.Store) {
		for r, err := range stages.Runs(ctx, s) {
			if err == nil && strings.HasPrefix(r.ID, word) {
				list = append(list, r.ID+"\t"+string(r.Status)+", "+age(r.Started))
			}
		}
	})
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeRunsAndStages completes a run, or a stage that has run.
func (a *app) completeRunsAndStages(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	runs, how := a.completeRuns(c, args, word)
	if len(args) > 0 {
		return runs, how
	}
	names, _ := a.completeStages(c, args, word)
	return append(names, runs...), how
}

// completeTag completes a REF, then a tag that its artifact has.
func (a *app) completeTag(c *cobra.Command, args []string, word string) (list []string, how cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeRefs(1)(c, args, word)
	}
	if len(args) == 1 {
		name, _, _ := strings.Cut(args[0], "@")
		a.quietly(func(ctx context.Context, s *cas.Store) {
			vs, err := s.Versions(ctx, name)
			if err != nil {
				return
			}
			for _, v := range vs {
				for _, t := range v.Tags {
					if strings.HasPrefix(t, word) {
						list = append(list, t)
					}
				}
			}
		})
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeRemotes completes the name of a remote.
func (a *app) completeRemotes(_ *cobra.Command, args []string, word string) (list []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.quietly(func(ctx context.Context, s *cas.Store) {
		all, err := remote.Configs(ctx, s)
		if err != nil {
			return
		}
		for _, c := range all {
			if strings.HasPrefix(c.Name, word) {
				list = append(list, c.Name+"\t"+c.URL)
			}
		}
	})
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeStages completes the name of a stage that has run.
func (a *app) completeStages(_ *cobra.Command, _ []string, word string) (list []string, _ cobra.ShellCompDirective) {
	seen := map[string]bool{}
	a.quietly(func(ctx context.Context, s *cas.Store) {
		for r, err := range stages.Runs(ctx, s) {
			if err == nil && strings.HasPrefix(r.Stage, word) && !seen[r.Stage] {
				seen[r.Stage] = true
				list = append(list, r.Stage)
			}
		}
	})
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeMounts completes the directory of a mount.
func (a *app) completeMounts(_ *cobra.Command, args []string, word string) (list []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.quietly(func(ctx context.Context, s *cas.Store) {
		live, stale, err := s.Mounts(ctx)
		if err != nil {
			return
		}
		for _, m := range append(live, stale...) {
			if strings.HasPrefix(m.Dir, word) {
				list = append(list, m.Dir)
			}
		}
	})
	if len(list) == 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
