package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// declareNamed adds the options of stages by name.
func (o *stageOptions) declareNamed(a *app, c *cobra.Command) {
	c.Flags().StringArrayVar(&o.sets, "set", nil, "parameter sets of curi.yaml: `SETS` such as base,sweep or all or sweep/lr=0.1,seed=2 (default: the first)")
	_ = c.RegisterFlagCompletionFunc("set", a.completeSets)
}

// namedOrCommand is the Args of a command that takes stages of curi.yaml, or a
// command after --.
func namedOrCommand(c *cobra.Command, o *stageOptions, args []string) error {
	named := []string{"set", "all", "jobs", "keep-going"}
	if c.ArgsLenAtDash() >= 0 || o.name != "" || len(args) == 0 && !o.all {
		if err := afterDash(c, args); err != nil {
			return err
		}
		for _, name := range named {
			if f := c.Flags().Lookup(name); f != nil && f.Changed {
				return usagef("%s --%s is for stages of %s: name one instead of a command", c.CommandPath(), name, stages.FileName)
			}
		}
		return nil
	}
	if name := optionBeforeDash(c); name != "" {
		return usagef("%s: option --%s wants a value; see %s --help", c.CommandPath(), name, c.CommandPath())
	}
	for _, name := range []string{"in", "in-rw", "out", "optional-out", "out-from", "work", "meta", "publish", "op-param", "code", "tool", "env", "clean-env", "stdin", "shell"} {
		if c.Flags().Changed(name) {
			return usagef("%s: --%s declares a stage whose command comes after --; stages of %s declare theirs there (-p gives a parameter)", c.CommandPath(), name, stages.FileName)
		}
	}
	if o.all && len(args) > 0 {
		return usagef("%s: --all is every stage: leave %s out, or --all", c.CommandPath(), strings.Join(args, " "))
	}
	if o.jobs < 1 && c.Flags().Lookup("jobs") != nil {
		return usagef("%s --jobs %d: want 1 or more", c.CommandPath(), o.jobs)
	}
	return nil
}

// file is the project's curi.yaml.
func (a *app) file() (*stages.File, stages.Project, error) {
	p, err := a.project()
	if err != nil {
		return nil, p, err
	}
	f, err := stages.LoadFile(p)
	if err != nil {
		return nil, p, err
	}
	f.Path = shorter(f.Path)
	return f, p, nil
}

// shorter is a path as seen from the current directory, if that is shorter.
func shorter(path string) string {
	dir, err := currentDir()
	if err != nil {
		return path
	}
	if rest, ok := strings.CutPrefix(path, dir+string(os.PathSeparator)); ok {
		return rest
	}
	return path
}

// graph builds the graph of stages by name, and looks at what the store has.
// With force, what was asked for is taken to be stale.
func (a *app) graph(ctx context.Context, o *stageOptions, sel stages.Selection, force bool) (*cas.Store, *stages.Graph, error) {
	f, p, err := a.file()
	if err != nil {
		var fault *stages.FileError
		if errors.Is(err, fs.ErrNotExist) && len(sel.Stages) > 0 {
			return nil, nil, usagef("%v; a command of your own comes after --", err)
		}
		if errors.As(err, &fault) {
			fault.Path = shorter(fault.Path)
		}
		return nil, nil, err
	}
	g, err := f.Graph(p, sel)
	if err != nil {
		return nil, nil, err
	}
	s, err := a.store(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(g.Targets) == 0 {
		return nil, nil, usagef("%s has no stages: write some below stages:", f.Path)
	}
	if o.offline {
		a.reader.Offline()
	}
	g.Elsewhere = func(ctx context.Context, ref string) (stages.Target, func(), error) {
		return a.adopt(ctx, s, ref, o.runs && !o.dryRun)
	}
	// A look makes much garbage in an instant; collecting it costs a tenth of it.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	return s, g, g.Look(ctx, stages.NewBinder(s, p), os.Environ(), func(t *stages.Task) bool { return force && slices.Contains(g.Targets, t) })
}

// selection is what the options and arguments choose.
func (o *stageOptions) selection(args []string) stages.Selection {
	sel := stages.Selection{Stages: args, Sets: o.sets, Params: o.param, ResumeFrom: o.resumeFrom}
	if o.all && len(o.sets) == 0 {
		sel.Sets = []string{stages.AllSets}
	}
	return sel
}

// sayDefaultSet says which set counts where none was named.
func (a *app) sayDefaultSet(g *stages.Graph, sel stages.Selection) {
	if len(sel.Sets) > 0 || len(g.File.Sets) < 2 || !slices.ContainsFunc(g.Targets, func(t *stages.Task) bool { return t.Stage.Aggregate == "" }) {
		return
	}
	var names []string
	for _, set := range g.File.Sets {
		if !slices.Contains(names, set.Group) {
			names = append(names, set.Group)
		}
	}
	a.say("parameter set %s, the first of %s; --set chooses (%s, or %s)", g.File.Sets[0].Name, stages.FileName, strings.Join(names, ", "), stages.AllSets)
}

// completeNamed completes the names of stages of curi.yaml.
func (a *app) completeNamed(c *cobra.Command, args []string, word string) (list []string, _ cobra.ShellCompDirective) {
	// For a completion cobra puts a -- of its own behind what was typed.
	if dash := c.ArgsLenAtDash(); dash >= 0 && dash < len(args) || c.Flags().Lookup("name") != nil && c.Flags().Changed("name") {
		return nil, cobra.ShellCompDirectiveDefault
	}
	if f, _, err := a.file(); err == nil {
		for _, name := range f.StageNames() {
			if strings.HasPrefix(name, word) && !slices.Contains(args, name) {
				list = append(list, name)
			}
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeSets completes the names of parameter sets, the last of several.
func (a *app) completeSets(_ *cobra.Command, _ []string, word string) (list []string, _ cobra.ShellCompDirective) {
	f, _, err := a.file()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := append(f.SetNames(), stages.AllSets)
	before := ""
	if i := strings.LastIndex(word, ","); i >= 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, word) }) {
		before, word = word[:i+1], word[i+1:]
	}
	for _, name := range names {
		if strings.HasPrefix(name, word) {
			list = append(list, before+name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
