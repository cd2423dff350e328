package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// newJob is the command that a job of a batch system runs.
func newJob(a *app) *cobra.Command {
	o := &stageOptions{}
	c := &cobra.Command{
		Use:    "__job KEY NAME",
		Short:  "Run the stage that a job was submitted for",
		Hidden: true,
		Args:   nargs(2, 2, "a KEY and a NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.job(c.Context(), o, args[0], args[1])
		},
	}
	c.Flags().StringVar(&o.push, "push", pushNow, "as of stage exec")
	c.Flags().BoolVar(&o.offline, "offline", false, "as of stage exec")
	return c
}

func (a *app) job(ctx context.Context, o *stageOptions, key, name string) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	opts, err := a.jobOptions()
	if err != nil {
		return err
	}
	opts.Secret, opts.Progress = os.LookupEnv, a.progress
	opts.Owe = func(ctx context.Context, k stages.Key, res stages.Result) error { return owe(ctx, s, k, res) }
	a.leaveOwed = o.offline || o.push == pushLater
	e := a.elsewhere(s)
	defer e.close()
	if !o.offline {
		// Its lease is the job's now: who submitted it need not live any more.
		opts.Elsewhere, opts.Snapshotted, opts.BringSnapshot = e.result, e.snapshotted, e.bringSnapshot
	}
	a.stopSignals() // the launcher takes them from here
	res, over, err := launcher.RunJob(ctx, s, key, name, opts)
	ctx = context.WithoutCancel(ctx)
	if over && err == nil && res.Exit == 0 && !res.Cached {
		err = a.publishResult(ctx, s, res.Run, o.pushWhen())
	}
	status := exitStatus(ctx, err)
	if err != nil {
		a.warn("%s", wayOut(err))
	} else {
		status = res.Exit
	}
	e.end(ctx, status)
	if over {
		// The last thing: who follows the job has seen all of it.
		if err := launcher.EndJob(ctx, s, key, name, status); err != nil {
			a.warn("%s", oneLine(err.Error()))
		}
	}
	if status != 0 {
		return &statusError{status: status}
	}
	return nil
}

// pushWhen is when the result goes to remotes.
func (o *stageOptions) pushWhen() string {
	if o.offline {
		return pushLater
	}
	return o.push
}

// declareLauncher adds the options that say where the command runs.
func (o *stageOptions) declareLauncher(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.launcher, "launcher", "local", "where the command runs: `WHERE` is local, or slurm for a job of Slurm")
	f.StringArrayVar(&o.slurm, "slurm", nil, "with --launcher slurm: an option of sbatch, `KEY=VALUE`, such as partition=gpu, time=4:00:00 or exclusive")
	f.StringVar(&o.places, "places", "", "make the places of the run below `DIR`, which all nodes see, instead of in a mount")
	f.BoolVar(&o.perNode, "per-node", false, "this call is one node of several; the first publishes what all of them wrote")
	f.StringVar(&o.rdzvID, "rdzv-id", "", "with --per-node, outside of Slurm: what the calls of one run have in common and no other has, `ID`")
	f.BoolVar(&o.detach, "detach", false, "with --launcher slurm: return once the job is submitted")
	_ = c.RegisterFlagCompletionFunc("launcher", cobra.FixedCompletions([]string{"local", "slurm"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("places", completeDirs)
	_ = c.RegisterFlagCompletionFunc("slurm", cobra.NoFileCompletions)
}

// slurm is how the options want the stage to be run; nil: here.
func (a *app) slurm(c *cobra.Command, o *stageOptions, self string) (*launcher.Slurm, error) {
	switch {
	case o.launcher == "local" && (len(o.slurm) > 0 || o.detach):
		return nil, usagef("curi stage exec: --slurm and --detach are for --launcher slurm")
	case o.launcher == "local":
		return nil, nil
	case o.launcher == "slurm" && o.detach && o.push == pushRequired:
		return nil, usagef("curi stage exec: --detach and --push required exclude each other: what the job publishes is not waited for")
	case o.launcher != "slurm":
		return nil, usagef("curi stage exec --launcher %s: want local or slurm", o.launcher)
	}
	options := map[string]string{}
	for _, t := range o.slurm {
		k, v, _ := strings.Cut(t, "=")
		if _, twice := options[k]; twice {
			return nil, usagef("--slurm %s is given twice", k)
		}
		options[k] = v
	}
	options, err := launcher.CheckSlurm(options)
	if err != nil {
		return nil, usagef("--%v", err)
	}
	return a.slurmJobs(c.Context(), o, self, options)
}

// slurmJobs is how stages are run as jobs with options for sbatch.
func (a *app) slurmJobs(ctx context.Context, o *stageOptions, self string, options map[string]string) (*launcher.Slurm, error) {
	s, err := a.store(ctx)
	if err != nil {
		return nil, err
	}
	command := []string{self, "--store", s.Dir(), "__job"}
	if a.quiet {
		command = append(command, "--quiet")
	}
	if a.verbose {
		command = append(command, "--verbose")
	}
	if when := o.pushWhen(); when == pushLater {
		command = append(command, "--push", pushLater)
	}
	if o.offline {
		command = append(command, "--offline")
	}
	return &launcher.Slurm{Options: options, PerNode: o.perNode, Detach: o.detach, Command: command}, nil
}
