package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// checkLauncher checks what a stage says of its launcher.
func checkLauncher(f *stages.File, st *stages.FileStage) error {
	if st.Launcher == nil || st.Launcher.Name != "slurm" {
		return nil
	}
	all, err := f.LauncherOptions(st)
	for _, options := range all {
		if err == nil {
			_, err = launcher.CheckSlurm(options)
		}
	}
	if err != nil {
		return usagef("%s:%d:%d: stage %s: launcher: %v", f.Path, st.Launcher.Line, st.Launcher.Column, st.Name, err)
	}
	return nil
}

// fileSlurm tells which tasks run as jobs of Slurm, and how: as --launcher
// says, else as the file does, where --slurm adds to it.
func (a *app) fileSlurm(c *cobra.Command, o *stageOptions, g *stages.Graph, self string) (map[*stages.Task]*launcher.Slurm, error) {
	jobs := map[*stages.Task]*launcher.Slurm{}
	given := c.Flags().Changed("launcher")
	if o.launcher != "local" && o.launcher != "slurm" {
		return nil, usagef("curi stage exec --launcher %s: want local or slurm", o.launcher)
	}
	stale := map[*stages.FileStage]bool{}
	for _, t := range g.Tasks {
		stale[t.Stage] = stale[t.Stage] || !t.Cached
	}
	var plain *launcher.Slurm
	for _, t := range g.Tasks {
		st := t.Stage
		options := map[string]string{}
		switch {
		case !stale[st], given && o.launcher == "local", !given && (st.Launcher == nil || st.Launcher.Name == "local"):
			continue
		case st.Launcher != nil && st.Launcher.Name == "slurm":
			var err error
			if options, err = st.LauncherOptions(t.Params); err != nil {
				return nil, err
			}
		}
		for _, t := range o.slurm {
			k, v, _ := strings.Cut(t, "=")
			options[k] = v
		}
		options, err := launcher.CheckSlurm(options)
		if err != nil {
			return nil, usagef("stage %s: %v", st.Name, err)
		}
		if plain == nil {
			if plain, err = a.slurmJobs(c.Context(), o, self, nil); err != nil {
				return nil, err
			}
		}
		job := *plain
		job.Options = options
		jobs[t] = &job
	}
	if (len(o.slurm) > 0 || o.detach) && len(jobs) == 0 && slices.ContainsFunc(g.Tasks, func(t *stages.Task) bool { return !t.Cached }) {
		return nil, usagef("curi stage exec: --slurm and --detach are for stages that run by Slurm: --launcher slurm, or launcher: slurm in the file")
	}
	return jobs, nil
}
