package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// dryRunJSON is what `curi stage exec --dry-run --json` prints.
type dryRunJSON struct {
	Key     string   `json:"key"`
	Cached  bool     `json:"cached"`
	Remote  string   `json:"remote"` // that has the result; "" for the store itself
	Command []string `json:"command"`
}

// explainedJSON is what `curi stage explain --json` prints.
type explainedJSON struct {
	Key      string       `json:"key"`
	Cached   bool         `json:"cached"`
	Run      string       `json:"run"`    // whose result would be taken, or ""
	Remote   string       `json:"remote"` // that has it; "" for the store itself
	Command  []string     `json:"command"`
	Preimage []string     `json:"preimage"`
	Nearest  *nearestJSON `json:"nearest"` // null on a hit, and without an earlier run
}

type nearestJSON struct {
	Run     string          `json:"run"`
	Changes []stages.Change `json:"changes"`
}

func newExplain(a *app) *cobra.Command {
	o := &stageOptions{}
	c := &cobra.Command{
		Use:   "explain [OPTIONS] STAGE… | [OPTIONS] -- COMMAND…",
		Short: "Tell whether a stage would run, and why",
		Long: `Tell whether "curi stage exec" with the same options would take a cached result, and
show everything that its key is made of, one component a line. Where it would
run, show the lines that differ from the nearest earlier run of the stage.`,
		Example: `  curi stage explain train --set small-lr
  curi stage explain --name train --in data=digits --out model=model.ckpt --param lr=0.1 \
      -- python train.py '{in.data}' '{out.model}' --lr '{param.lr}'`,
		Args: func(c *cobra.Command, args []string) error { return namedOrCommand(c, o, args) },
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() < 0 {
				return a.explainNamed(c, o, args)
			}
			return a.explain(c, o, args)
		},
		ValidArgsFunction: a.completeNamed,
	}
	o.declare(a, c)
	o.declareRun(c)
	o.declareNamed(a, c)
	// A line of exec is tried with explain: what says only how it would run is
	// taken and means nothing.
	for _, name := range []string{"timeout", "grace", "retries", "snapshot", "force", "fresh", "push", "prefetch", "dry-run"} {
		_ = c.Flags().MarkHidden(name)
	}
	return c
}

func (a *app) explain(c *cobra.Command, o *stageOptions, command []string) error {
	ctx := c.Context()
	opts, err := a.execOptions(c, o)
	if err != nil {
		return err
	}
	s, plan, err := a.bind(ctx, o, command)
	if err != nil {
		return err
	}
	defer plan.Release()
	e := a.elsewhere(s)
	e.offline = o.offline
	defer e.close()
	a.leaveOwed = true
	out, err := explained(ctx, e, plan, opts)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	return a.write(wordExplanation(out, plan.Name))
}

// explained is what can be said of a plan.
func explained(ctx context.Context, e *elsewhere, plan *stages.Plan, opts launcher.Options) (out explainedJSON, err error) {
	out = explainedJSON{Key: plan.Key.String(), Preimage: plan.Preimage.Lines()}
	if out.Run, out.Remote, out.Cached, err = e.cachedBy(ctx, plan); err != nil {
		return out, err
	}
	if out.Command, err = launcher.Preview(ctx, e.s, plan, opts); err != nil {
		return out, err
	}
	if out.Cached {
		return out, nil
	}
	near, ok, err := stages.Explain(ctx, e.s, plan)
	if err == nil && ok {
		out.Nearest = &nearestJSON{near.Run.ID, near.Changes}
		if near.Changes == nil {
			out.Nearest.Changes = []stages.Change{}
		}
	}
	return out, err
}

// cachedBy tells whose result exec would take, and which remote has it.
func (e *elsewhere) cachedBy(ctx context.Context, p *stages.Plan) (run, on string, cached bool, err error) {
	r, err := stages.FindResult(ctx, e.s, p.Key)
	if err == nil {
		return r.Run, "", true, nil
	}
	if !errors.Is(err, cas.ErrNotFound) && !errors.Is(err, cas.ErrCorrupt) {
		return "", "", false, err
	}
	f, err := e.find(ctx, p.Key)
	if f == nil {
		return "", "", false, err
	}
	return f.info.Run, f.on.Name, true, nil
}

// resultOf words whose result a hit takes.
func resultOf(run, on string) string {
	if on != "" {
		return "the result of " + run + ", which remote " + on + " has"
	}
	return "the result of " + run
}

func wordExplanation(e explainedJSON, stage string) string {
	var b strings.Builder
	if e.Cached {
		b.WriteString("hit: " + resultOf(e.Run, e.Remote) + "\n")
	} else {
		b.WriteString("miss: " + stage + " would run\n")
	}
	b.WriteString("key: " + e.Key + "\n")
	b.WriteString("command: " + stages.ShellQuote(e.Command) + "\n\n")
	for _, l := range e.Preimage {
		b.WriteString("  " + l + "\n")
	}
	switch {
	case e.Cached:
	case e.Nearest == nil:
		b.WriteString("\n" + stage + " has not run before in this project\n")
	case len(e.Nearest.Changes) == 0:
		b.WriteString("\nnothing differs from " + e.Nearest.Run + ", which left no result to take (curi log " + e.Nearest.Run + ")\n")
	default:
		b.WriteString("\ndiffers from " + e.Nearest.Run + ":\n")
		for _, c := range e.Nearest.Changes {
			if c.Old != "" {
				b.WriteString("- " + c.Old + "\n")
			}
			if c.New != "" {
				b.WriteString("+ " + c.New + "\n")
			}
		}
	}
	return b.String()
}

// dryRun tells what exec would do.
func (a *app) dryRun(ctx context.Context, e *elsewhere, p *stages.Plan, o launcher.Options) error {
	out := dryRunJSON{Key: p.Key.String()}
	a.leaveOwed = true
	run, on, cached, err := e.cachedBy(ctx, p)
	if err != nil {
		return err
	}
	if out.Cached = cached && !o.Force; out.Cached {
		out.Remote = on
	}
	if out.Command, err = launcher.Preview(ctx, e.s, p, o); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	verdict := "miss: " + p.Name + " would run"
	switch {
	case out.Cached:
		verdict = "hit: " + resultOf(run, on)
	case cached:
		verdict = "hit, but --force: " + p.Name + " would run and replace " + resultOf(run, on)
	}
	return a.printf("%s\nkey: %s\ncommand: %s\n", verdict, out.Key, stages.ShellQuote(out.Command))
}
