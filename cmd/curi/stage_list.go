package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

// listedStageJSON is an element of what `curi stage list --json` prints.
type listedStageJSON struct {
	Stage     string            `json:"stage"`
	Inputs    map[string]string `json:"inputs"` // REFs
	Outputs   []string          `json:"outputs"`
	Work      []string          `json:"work"`
	Params    map[string]string `json:"params"` // as the stage itself says
	Aggregate string            `json:"aggregate"`
	Line      int               `json:"line"`
}

func newStageList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the stages of curi.yaml",
		Long:    "List the stages of the project's curi.yaml with their inputs, outputs and parameters.",
		Example: "  curi stage list\n  curi stage list --quiet | fzf",
		Args:    nargs(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			f, _, err := a.file()
			if err != nil {
				return err
			}
			list := []listedStageJSON{}
			var rows [][]string
			for _, st := range f.Stages {
				j := listedStage(st)
				list = append(list, j)
				params := pairs(j.Params)
				if st.Aggregate != "" {
					params = strings.TrimSpace("over all sets of " + st.Aggregate + "  " + params)
				}
				rows = append(rows, []string{st.Name, orDash(pairs(j.Inputs)), orDash(strings.Join(j.Outputs, " ")), orDash(params)})
			}
			if a.json {
				return a.printJSON(list)
			}
			if err := a.table([]string{"STAGE", "INPUTS", "OUTPUTS", "PARAMETERS"}, rows); err != nil || a.quiet || !f.HasSets {
				return err
			}
			names := f.SetNames()
			if len(names) > 12 {
				names = append(names[:12:12], fmt.Sprintf("and %d more", len(names)-12))
			}
			return a.printf("\nparameter sets: %s\n", strings.Join(names, "  "))
		},
	}
}

func listedStage(st *stages.FileStage) listedStageJSON {
	j := listedStageJSON{Stage: st.Name, Inputs: map[string]string{}, Outputs: []string{}, Work: append([]string{}, st.Work...),
		Params: map[string]string{}, Aggregate: st.Aggregate, Line: st.Line}
	for _, in := range st.Inputs {
		j.Inputs[in.Name] = in.Ref
	}
	for _, o := range st.Outputs {
		j.Outputs = append(j.Outputs, o.Name)
	}
	for _, q := range st.Params {
		j.Params[q.Name] = q.Raw
	}
	return j
}

// checkedJSON is what `curi stage check --json` prints.
type checkedJSON struct {
	File     string           `json:"file"`
	Stages   int              `json:"stages"`
	Sets     int              `json:"sets"`
	Problems []stages.Problem `json:"problems"`
}

func newStageCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find every error in curi.yaml",
		Long: `Find every error in the project's curi.yaml at once, with line and column, before
anything runs: unknown keys, cycles, undefined inputs, placeholders that nothing
declares, parameters that change their type from set to set, outputs that two stages
share, what a command does not name, code that is not there. Artifacts that inputs name
are looked up in the store.`,
		Example: "  curi stage check\n  curi stage check && curi stage exec --all",
		Args:    nargs(0, 0, "no argument"),
		RunE:    func(c *cobra.Command, _ []string) error { return a.stageCheck(c.Context()) },
	}
}

func (a *app) stageCheck(ctx context.Context) error {
	f, p, err := a.file()
	var faults *stages.FileError
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	out := checkedJSON{File: stages.FileName, Problems: []stages.Problem{}}
	var warnings []string
	if faults != nil {
		faults.Path = shorter(faults.Path)
		out.File, out.Problems = faults.Path, faults.Problems
	} else {
		out.File, out.Stages, out.Sets = f.Path, len(f.Stages), len(f.SetNames())
		s, err := a.store(ctx)
		if err != nil {
			return err
		}
		if out.Problems, warnings, err = f.CheckProject(ctx, s, p, func(ctx context.Context, ref string) (stages.Target, func(), error) {
			return a.adopt(ctx, s, ref, false)
		}); err != nil {
			return err
		}
		for _, st := range f.Stages {
			if err := checkLauncher(f, st); err != nil {
				text := strings.TrimPrefix(err.Error(), fmt.Sprintf("%s:%d:%d: ", f.Path, st.Launcher.Line, st.Launcher.Column))
				out.Problems = append(out.Problems, stages.Problem{Line: st.Launcher.Line, Column: st.Launcher.Column, Text: strings.TrimSuffix(text, ": "+stages.ErrUsage.Error())})
			}
		}
		faults = &stages.FileError{Path: f.Path, Problems: out.Problems}
	}
	for _, w := range warnings {
		a.say("warning: %s", w)
	}
	if a.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, q := range out.Problems {
			a.warn("%s", faults.Line(q))
		}
	}
	if len(out.Problems) > 0 {
		return &statusError{status: exitUsage}
	}
	if !a.json {
		sets := ""
		if f.HasSets {
			sets = ", " + count(int64(len(f.Sets)), "parameter set")
		}
		return a.printf("%s: %s%s, no problem found\n", f.Path, count(int64(len(f.Stages)), "stage"), sets)
	}
	return nil
}

func newStageSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of curi.yaml, for editors",
		Long: `Print the JSON Schema of curi.yaml. Editors that speak to yaml-language-server
complete and check the file with it where its first line is

    # yaml-language-server: $schema=curi.schema.json`,
		Example: "  curi stage schema > curi.schema.json",
		Args:    nargs(0, 0, "no argument"),
		RunE:    func(_ *cobra.Command, _ []string) error { return a.write(stages.Schema) },
	}
}
