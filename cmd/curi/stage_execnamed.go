package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// shownTargets is how many results are shown with paths at the end.
const shownTargets = 8

// namedRun is one call of exec for stages of curi.yaml.
type namedRun struct {
	a       *app
	c       *cobra.Command
	o       *stageOptions
	s       *cas.Store
	g       *stages.Graph
	base    launcher.Options // of every stage, before what the file says of it
	targets map[*stages.Task]bool
	slurm   map[*stages.Task]*launcher.Slurm
	away    *taskRemotes
	view    *graphView
	results map[*stages.Task]*launcher.Result
}

// execNamed runs stages of curi.yaml.
func (a *app) execNamed(c *cobra.Command, o *stageOptions, args []string) error {
	if err := o.checkPush(); err != nil {
		return err
	}
	o.runs = true
	n := &namedRun{a: a, c: c, o: o, targets: map[*stages.Task]bool{}, results: map[*stages.Task]*launcher.Result{}}
	var err error
	if n.base, err = a.execOptions(c, o); err != nil {
		return err
	}
	sel := o.selection(args)
	if n.s, n.g, err = a.graph(c.Context(), o, sel, o.force || o.accept != ""); err != nil {
		return err
	}
	for _, t := range n.g.Targets {
		n.targets[t] = true
	}
	if err := n.check(); err != nil {
		return err
	}
	a.sayDefaultSet(n.g, sel)
	if o.dryRun {
		a.leaveOwed = true
		return a.dryRunGraph(c.Context(), n.s, n.g, n.base, o.offline)
	}
	n.view = a.newGraphView(n.g)
	if n.slurm, err = a.fileSlurm(c, o, n.g, n.base.Self); err != nil {
		return err
	}
	n.away = &taskRemotes{a: a, s: n.s, o: o}
	a.leaveOwed = o.offline || o.push == pushLater
	a.stopSignals() // the launcher takes them from here: they are for the commands
	began := time.Now()
	res := launcher.ExecGraph(c.Context(), n.s, n.g, n.graphOptions())
	n.view.end(res, time.Since(began))
	return n.report(res)
}

// check finds what keeps the graph from being run, before anything of it is.
func (n *namedRun) check() error {
	one := len(n.g.Targets) == 1
	if n.o.accept != "" && !one {
		return usagef("curi stage exec --accept publishes one result, these are %d: name one stage and one --set", len(n.g.Targets))
	}
	if err := launcher.ErrGraph(n.g); err != nil {
		return err
	}
	for _, t := range n.g.Tasks {
		if err := checkLauncher(n.g.File, t.Stage); err != nil {
			return err
		}
	}
	if n.o.rdzvID != "" && !n.o.perNode {
		return usagef("curi stage exec --rdzv-id is for --per-node")
	}
	if n.o.perNode && (n.o.retries > 0 || !one) {
		return usagef("curi stage exec --per-node is for one stage with one parameter set, without --retries")
	}
	return nil
}

func (n *namedRun) graphOptions() launcher.GraphOptions {
	slurmJobs := 0 // as many as Slurm likes
	if n.c.Flags().Changed("jobs") {
		slurmJobs = n.o.jobs
	}
	return launcher.GraphOptions{
		Jobs: n.o.jobs, KeepGoing: n.o.keepGoing, Options: n.options,
		Slurm: func(t *stages.Task) *launcher.Slurm { return n.slurm[t] }, SlurmJobs: slurmJobs,
		Exec: func(t *stages.Task) bool {
			return n.targets[t] && (len(n.g.Targets) == 1 || !n.o.all && len(n.g.Targets) <= shownTargets)
		},
		Event: func(e launcher.Event) {
			if e.Result != nil {
				n.results[e.Task] = e.Result
			}
			n.view.event(e)
		},
		After:   n.away.after,
		Prepare: n.prepare,
	}
}

// options are those of one task. What is for the stages that were named is not
// for what they need.
func (n *namedRun) options(t *stages.Task) launcher.Options {
	opts := n.base
	n.a.fileOptions(n.c, &opts, t.Stage)
	if !n.targets[t] {
		opts.Force, opts.Fresh, opts.Accept, opts.Message = false, false, "", ""
	}
	n.away.connect(t, &opts)
	n.view.connect(t, &opts)
	return opts
}

// prepare completes the options of a task that was named, just before it runs.
func (n *namedRun) prepare(t *stages.Task, plan *stages.Plan, opts *launcher.Options) (err error) {
	if !n.targets[t] {
		return nil
	}
	if opts.Prefetch, err = n.o.checkPrefetch(plan); err != nil || !n.o.perNode || opts.Slurm != nil {
		return err
	}
	if opts.Nodes, err = launcher.FindNodes(opts.Environ, plan, n.o.rdzvID); err != nil {
		return usagef("%v", err)
	}
	n.away.follows(t, opts.Nodes.Rank > 0)
	return nil
}

// report prints the results of what was asked for, and returns how it ended.
func (n *namedRun) report(res *launcher.GraphResult) error {
	ctx, stop := withSignals(n.c.Context())
	defer stop()
	if err := n.a.reportTargets(n.g, n.results, res, n.view, n.o.all); err != nil {
		return err
	}
	switch {
	case res.Err != nil && n.view.saysErrors():
		return &statusError{status: exitStatus(ctx, res.Err)}
	case res.Err != nil:
		return res.Err
	case res.Exit != 0:
		return &statusError{status: res.Exit}
	}
	return nil
}

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
