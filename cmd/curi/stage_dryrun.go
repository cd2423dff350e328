package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// sinceStart is how long a run has run so far.
func sinceStart(r stages.Run) time.Duration { return time.Since(r.Started) }

// dryGraphJSON is what `curi stage exec STAGE --dry-run --json` prints: of one
// stage what a dry run without a file does, and all tasks.
type dryGraphJSON struct {
	dryRunJSON
	Tasks []taskJSON `json:"tasks"`
}

// dryRunGraph tells what exec would do with a graph.
func (a *app) dryRunGraph(ctx context.Context, s *cas.Store, g *stages.Graph, opts launcher.Options, offline bool) error {
	away := a.elsewhere(s)
	away.offline = offline
	defer away.close()
	list, err := a.tasks(ctx, s, g)
	if err != nil {
		return err
	}
	out := dryGraphJSON{Tasks: list}
	out.Command = []string{}
	var b strings.Builder
	stale, cached := 0, 0
	for i, t := range g.Tasks {
		if t.Cached {
			cached++
			if len(g.Tasks) <= shownTasks {
				b.WriteString("hit: " + t.Label + ": the result of " + t.Result.Run + "\n")
			}
			continue
		}
		if t.Plan != nil {
			run, on, found, err := away.cachedBy(ctx, t.Plan)
			if err != nil {
				return err
			}
			if found {
				cached++
				list[i].Status, list[i].Run, list[i].Why = "cached", run, ""
				b.WriteString("hit: " + t.Label + ": " + resultOf(run, on) + "\n")
				continue
			}
		}
		stale++
		b.WriteString("miss: " + t.Label + " would run: " + list[i].Why + "\n")
		if t.Plan == nil {
			continue
		}
		if list[i].Command, err = launcher.Preview(ctx, s, t.Plan, opts); err != nil {
			return err
		}
		b.WriteString("  key: " + list[i].Key + "\n  command: " + stages.ShellQuote(list[i].Command) + "\n")
	}
	if len(g.Targets) == 1 {
		t := g.Targets[0]
		out.Cached = list[slices.Index(g.Tasks, t)].Status == "cached"
		if t.Plan != nil {
			out.Key = t.Plan.Key.String()
			if out.Command, err = launcher.Preview(ctx, s, t.Plan, opts); err != nil {
				return err
			}
		}
		if out.Cached {
			b.WriteString("  key: " + out.Key + "\n  command: " + stages.ShellQuote(out.Command) + "\n")
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	if len(g.Tasks) > 1 {
		b.WriteString(count(int64(stale), "stage run") + " to do, " + count(int64(cached), "result") + " cached\n")
	}
	return a.write(b.String())
}

// explainNamed explains stages of curi.yaml.
func (a *app) explainNamed(c *cobra.Command, o *stageOptions, args []string) error {
	ctx := c.Context()
	opts, err := a.execOptions(c, o)
	if err != nil {
		return err
	}
	sel := o.selection(args)
	s, g, err := a.graph(ctx, o, sel, false)
	if err != nil {
		return err
	}
	a.sayDefaultSet(g, sel)
	a.leaveOwed = true
	list := []explainedJSON{}
	var b strings.Builder
	for i, t := range g.Targets {
		if t.Err != nil {
			return t.Err
		}
		e := explainedJSON{Command: []string{}, Preimage: []string{}}
		if i > 0 {
			b.WriteString("\n")
		}
		if len(g.Targets) > 1 {
			b.WriteString(t.Label + "\n")
		}
		if t.Plan == nil {
			b.WriteString("miss: " + t.Label + " would run, after " + staleNeeds(t) + ": its key is known then\n")
		} else {
			for _, w := range t.Plan.Warnings {
				a.say("warning: %s", w)
			}
			away := a.elsewhere(s)
			away.offline = o.offline
			e, err = explained(ctx, away, t.Plan, opts)
			away.close()
			if err != nil {
				return err
			}
			b.WriteString(wordExplanation(e, t.Stage.Name))
		}
		list = append(list, e)
	}
	if a.json && len(list) == 1 {
		return a.printJSON(list[0])
	}
	if a.json {
		return a.printJSON(list)
	}
	return a.write(b.String())
}
