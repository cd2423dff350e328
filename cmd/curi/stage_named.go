package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
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

// execNamed runs stages of curi.yaml.
func (a *app) execNamed(c *cobra.Command, o *stageOptions, args []string) error {
	ctx := c.Context()
	if err := o.checkPush(); err != nil {
		return err
	}
	o.runs = true
	base, err := a.execOptions(c, o)
	if err != nil {
		return err
	}
	sel := o.selection(args)
	s, g, err := a.graph(ctx, o, sel, o.force || o.accept != "")
	if err != nil {
		return err
	}
	targets := map[*stages.Task]bool{}
	for _, t := range g.Targets {
		targets[t] = true
	}
	if o.accept != "" && len(g.Targets) != 1 {
		return usagef("curi stage exec --accept publishes one result, these are %d: name one stage and one --set", len(g.Targets))
	}
	if err := launcher.ErrGraph(g); err != nil {
		return err
	}
	for _, t := range g.Tasks {
		if err := checkLauncher(g.File, t.Stage); err != nil {
			return err
		}
	}
	if o.rdzvID != "" && !o.perNode {
		return usagef("curi stage exec --rdzv-id is for --per-node")
	}
	if o.perNode && (o.retries > 0 || len(g.Targets) != 1) {
		return usagef("curi stage exec --per-node is for one stage with one parameter set, without --retries")
	}
	a.sayDefaultSet(g, sel)
	if o.dryRun {
		a.leaveOwed = true
		return a.dryRunGraph(ctx, s, g, base, o.offline)
	}
	view := a.newGraphView(g)
	slurm, err := a.fileSlurm(c, o, g, base.Self)
	if err != nil {
		return err
	}
	slurmJobs := 0 // as many as Slurm likes
	if c.Flags().Changed("jobs") {
		slurmJobs = o.jobs
	}
	away := &taskRemotes{a: a, s: s, o: o}
	options := func(t *stages.Task) launcher.Options {
		opts := base
		a.fileOptions(c, &opts, t.Stage)
		if !targets[t] {
			opts.Force, opts.Fresh, opts.Accept, opts.Message = false, false, "", ""
		}
		away.connect(t, &opts)
		view.connect(t, &opts)
		return opts
	}
	results := map[*stages.Task]*launcher.Result{}
	began := time.Now()
	a.leaveOwed = o.offline || o.push == pushLater
	a.stopSignals() // the launcher takes them from here: they are for the commands
	res := launcher.ExecGraph(ctx, s, g, launcher.GraphOptions{
		Jobs: o.jobs, KeepGoing: o.keepGoing, Options: options,
		Slurm: func(t *stages.Task) *launcher.Slurm { return slurm[t] }, SlurmJobs: slurmJobs,
		Exec: func(t *stages.Task) bool {
			return targets[t] && (len(g.Targets) == 1 || !o.all && len(g.Targets) <= shownTargets)
		},
		Event: func(e launcher.Event) {
			if e.Result != nil {
				results[e.Task] = e.Result
			}
			view.event(e)
		},
		After: away.after,
		Prepare: func(t *stages.Task, plan *stages.Plan, opts *launcher.Options) (err error) {
			if targets[t] {
				opts.Prefetch, err = o.checkPrefetch(plan)
			}
			if err == nil && o.perNode && targets[t] && opts.Slurm == nil {
				if opts.Nodes, err = launcher.FindNodes(opts.Environ, plan, o.rdzvID); err != nil {
					return usagef("%v", err)
				}
				away.follows(t, opts.Nodes.Rank > 0)
			}
			return err
		},
	})
	ctx, stop := withSignals(ctx)
	defer stop()
	view.end(res, time.Since(began))
	if err := a.reportTargets(g, results, res, view, o.all); err != nil {
		return err
	}
	switch {
	case res.Err != nil && view.saysErrors():
		return &statusError{status: exitStatus(ctx, res.Err)}
	case res.Err != nil:
		return res.Err
	case res.Exit != 0:
		return &statusError{status: res.Exit}
	}
	return nil
}

// shownTargets is how many results are shown with paths at the end.
const shownTargets = 8

// fileOptions sets what a stage of the file says of its run, unless an option
// says otherwise.
func (a *app) fileOptions(c *cobra.Command, opts *launcher.Options, st *stages.FileStage) {
	if st.Timeout > 0 && !c.Flags().Changed("timeout") {
		opts.Timeout = st.Timeout
	}
	if st.Grace > 0 && !c.Flags().Changed("grace") {
		opts.Grace = st.Grace
	}
	if st.Snapshot > 0 && !c.Flags().Changed("snapshot") {
		opts.Snapshot = st.Snapshot
	}
	if !c.Flags().Changed("retries") {
		opts.Retries = st.Retries
	}
}

// reportTargets prints the results of what was asked for: of one as without a
// file.
func (a *app) reportTargets(g *stages.Graph, results map[*stages.Task]*launcher.Result, res *launcher.GraphResult, view *graphView, all bool) error {
	if view.mode == viewEvents {
		return nil
	}
	if a.json {
		got := results[g.Targets[0]]
		if got == nil { // what it needs failed
			got = &launcher.Result{Stage: g.Targets[0].Stage.Name, Exit: res.Exit, Outputs: map[string]launcher.Output{}}
			if res.Err != nil {
				got.Exit = exitStatus(context.Background(), res.Err)
			}
		}
		return a.printJSON(got)
	}
	if len(g.Targets) > shownTargets || all {
		return nil // nobody asked for one of them
	}
	for _, t := range g.Targets {
		got := results[t]
		if got == nil || got.Exit != 0 || t.Plan == nil && got.Outputs == nil {
			continue
		}
		if len(g.Targets) > 1 && !a.quiet && len(got.Outputs) > 0 {
			a.say("%s (%s):", t.Label, got.Run)
		}
		if err := a.printOutputs(&stages.Plan{Stage: t.Stage.Stage}, got); err != nil {
			return err
		}
	}
	return nil
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
