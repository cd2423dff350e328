package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// taskJSON is an element of what `curi stage status --json` prints, and of the
// tasks of `curi stage exec --dry-run`.
type taskJSON struct {
	Stage   string   `json:"stage"`
	Sets    []string `json:"sets"`
	Status  string   `json:"status"` // cached, stale, queued, running, failed, error
	Why     string   `json:"why"`    // "" if cached
	Run     string   `json:"run"`    // that has the result, runs or failed; or ""
	Key     string   `json:"key"`    // "" while what it needs is stale
	Command []string `json:"command,omitempty"`

	label string
}

func newStageStatus(a *app) *cobra.Command {
	o := &stageOptions{}
	c := &cobra.Command{
		Use:   "status [STAGE…]",
		Short: "Tell of each stage and parameter set whether it is up to date",
		Long: `Tell of each stage of curi.yaml, with every parameter set, whether its result is
cached; stale, and why; queued as a job; running; or whether its last run failed.
With a STAGE, only of it and of what it needs. No remote is asked: "curi stage exec
--all --dry-run" tells what can be taken from one.`,
		Example: `  curi stage status
  curi stage status train --set small-lr
  curi stage status --json | jq -r '.[] | select(.status == "stale") | .stage'`,
		ValidArgsFunction: a.completeNamed,
		RunE:              func(c *cobra.Command, args []string) error { return a.stageStatus(c, o, args) },
	}
	o.declareNamed(a, c)
	c.Flags().StringArrayVarP(&o.param, "param", "p", nil, "a parameter in place of what stages and sets say, `k=v`")
	_ = c.RegisterFlagCompletionFunc("param", cobra.NoFileCompletions)
	return c
}

func (a *app) stageStatus(c *cobra.Command, o *stageOptions, args []string) error {
	ctx := c.Context()
	o.all, a.leaveOwed = true, true
	s, g, err := a.graph(ctx, o, o.selection(args), false)
	if err != nil {
		return err
	}
	list, err := a.tasks(ctx, s, g)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	var rows [][]string
	for _, t := range list {
		rows = append(rows, []string{t.Stage, orDash(setsWords(t.Sets)), t.Status, orDash(t.Run), t.Why})
	}
	return a.table([]string{"STAGE", "SETS", "STATUS", "RUN", "WHY"}, rows)
}

// setsWords names at most three sets.
func setsWords(sets []string) string {
	if len(sets) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(sets[:2], " "), len(sets)-2)
	}
	return strings.Join(sets, " ")
}

// tasks tells of each task of a graph how it is.
func (a *app) tasks(ctx context.Context, s *cas.Store, g *stages.Graph) ([]taskJSON, error) {
	list := make([]taskJSON, 0, len(g.Tasks))
	var history *stages.History
	for _, t := range g.Tasks {
		j := taskJSON{Stage: t.Stage.Name, Sets: append([]string{}, t.Sets...), Status: "stale", label: t.Label}
		if t.Plan != nil {
			j.Key = t.Plan.Key.String()
		}
		switch {
		case t.Err != nil:
			j.Status, j.Why = "error", oneLine(t.Err.Error())
		case t.Cached:
			j.Status, j.Run = "cached", t.Result.Run
		case !t.Ready():
			j.Why = "needs " + staleNeeds(t)
		default:
			if history == nil {
				var err error
				if history, err = stages.ReadHistory(ctx, s, g.Project); err != nil {
					return nil, err
				}
			}
			if err := judge(ctx, s, history, t, &j); err != nil {
				return nil, err
			}
		}
		list = append(list, j)
	}
	return list, nil
}

// judge says why a task whose key is known is not cached.
func judge(ctx context.Context, s *cas.Store, h *stages.History, t *stages.Task, j *taskJSON) error {
	last, ok := h.Last(t.Plan.Key)
	if ok && last.Status == stages.Running {
		// One whose curi died says so for ever, until somebody looks.
		if now, err := launcher.MarkLost(ctx, s, last); err == nil {
			last = now
		}
	}
	switch {
	case ok && last.Status == stages.Running:
		j.Status, j.Run, j.Why = "running", last.ID, "for "+span(sinceStart(last))
		if last.Job != "" {
			j.Why += ", job " + last.Job + " of Slurm"
		}
		return nil
	case ok && last.Status == stages.Queued:
		j.Status, j.Run, j.Why = "queued", last.ID, "job "+last.Job+" of Slurm"
		return nil
	case ok && last.Status.Unsuccessful():
		j.Status, j.Run, j.Why = "failed", last.ID, fmt.Sprintf("%s, exit status %d", last.Status, last.Exit)
		return nil
	case ok && last.Status == stages.Withdrawn:
		j.Run, j.Why = last.ID, "withdrawn"
		return nil
	}
	var err error
	j.Why, err = h.Why(ctx, t.Plan)
	return err
}

// staleNeeds names what a task waits for.
func staleNeeds(t *stages.Task) string {
	var names []string
	for _, n := range t.Needs {
		if n.Outputs == nil {
			if names = append(names, n.Label); len(names) == 3 {
				break
			}
		}
	}
	return strings.Join(names, ", ")
}
