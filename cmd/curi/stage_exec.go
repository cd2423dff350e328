package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

func newExec(a *app) *cobra.Command {
	o := &stageOptions{}
	c := &cobra.Command{
		Use:   "exec [OPTIONS] STAGE… | [OPTIONS] -- COMMAND…",
		Short: "Run a command as a stage, or take its cached result",
		Long: `Run a command with named inputs, outputs and parameters. If the same stage ran
before, with the same inputs, parameters, code and command, its result is taken
and nothing runs. The exit status is the command's own.

With a remote, a result that another machine made is taken, and a machine that
runs the same stage now is waited for; what fails there is run here. An input may be
REMOTE/NAME, as of the last pull: its bytes come when they are read, or before the
command starts with --no-mount and --prefetch.

Placeholders in the command are replaced by absolute paths and values: {in.N},
{out.N}, {work.N}, {param.N}, … ("curi help placeholders"). The command finds the
same in its environment ("curi help environment").

By name, STAGE is one of the project's curi.yaml ("curi help curi.yaml"): what its
inputs come from is brought up to date first. --set chooses parameter sets; without
it the first counts. If more than one stage is to run, a line for each shows its
newest output, or stands before each line of it where stderr is no terminal.`,
		Example: `  curi stage exec --name train --in dataset=digits --out model=model.ckpt \
      --meta model:type=DigitsNet --publish model=model --work checkpoints \
      --param lr=0.05 --param epochs=3 --op-param num_gpus=2 --code 'external/**/*.py' \
      -- torchrun --standalone --nproc_per_node '{param.num_gpus}' --module external.my_model_trainer \
         --dataset_path '{in.dataset}' --model_path '{out.model}' --checkpoint_dir '{work.checkpoints}' \
         --lr '{param.lr}' --epochs '{param.epochs}'

  curi stage exec --name count --in data=digits --out n=count.txt --shell -- 'ls {in.data} | wc -l > {out.n}'
  curi stage exec --launcher slurm --slurm partition=gpu --slurm time=4:00:00 --name train … -- torchrun … train.py
  srun --ntasks-per-node=1 curi stage exec --per-node --name train … -- torchrun --nnodes 2 … train.py
  curi stage exec --name train --dry-run … -- python train.py
  curi stage exec train --set base,sweep --jobs 2 --keep-going
  curi stage exec train -p lr=0.1
  curi stage exec --all
  curi stage exec --name train --accept train-7f3k2m -m 'only a comment changed' … -- python train.py`,
		Args: func(c *cobra.Command, args []string) error { return namedOrCommand(c, o, args) },
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() < 0 {
				return a.execNamed(c, o, args)
			}
			return a.exec(c, o, args)
		},
		ValidArgsFunction: a.completeNamed,
	}
	o.declare(a, c)
	o.declareRun(c)
	o.declareNamed(a, c)
	f := c.Flags()
	f.BoolVar(&o.all, "all", false, "every stage of curi.yaml, with every parameter set")
	f.IntVarP(&o.jobs, "jobs", "j", 1, "how many stages of curi.yaml run at once, `N`; of jobs of Slurm without it as many as Slurm likes")
	f.BoolVarP(&o.keepGoing, "keep-going", "k", false, "after a failure, go on with what does not need what failed")
	f.StringVar(&o.accept, "accept", "", "run nothing: publish the outputs of `RUN` under the key that this command has now")
	f.StringVarP(&o.message, "message", "m", "", "with --accept: `WHY`")
	_ = c.RegisterFlagCompletionFunc("accept", a.completeRuns)
	o.declareLauncher(c)
	return c
}

func (a *app) exec(c *cobra.Command, o *stageOptions, command []string) error {
	ctx := c.Context()
	if err := o.checkPush(); err != nil {
		return err
	}
	o.runs = true
	opts, err := a.execOptions(c, o)
	if err != nil {
		return err
	}
	if opts.Slurm, err = a.slurm(c, o, opts.Self); err != nil {
		return err
	}
	s, plan, err := a.bind(ctx, o, command)
	if err != nil {
		return err
	}
	defer plan.Release()
	switch {
	case o.rdzvID != "" && !o.perNode:
		return usagef("curi stage exec --rdzv-id is for --per-node")
	case o.perNode && o.retries > 0:
		return usagef("curi stage exec: --per-node and --retries exclude each other: the nodes would have to agree on each try; call all of them again")
	case o.perNode && opts.Slurm == nil && !o.dryRun:
		if opts.Nodes, err = launcher.FindNodes(opts.Environ, plan, o.rdzvID); err != nil {
			return usagef("%v", err)
		}
	}
	if opts.Prefetch, err = o.checkPrefetch(plan); err != nil {
		return err
	}
	e := a.elsewhere(s)
	e.offline = o.offline
	defer e.close()
	if o.dryRun {
		return a.dryRun(ctx, e, plan, opts)
	}
	if !o.offline {
		opts.Elsewhere = e.result
		opts.Snapshotted, opts.BringSnapshot = e.snapshotted, e.bringSnapshot
	}
	opts.Owe = func(ctx context.Context, k stages.Key, res stages.Result) error { return owe(ctx, s, k, res) }
	// Its own result, at least, is for the next command.
	a.leaveOwed = o.offline || o.push == pushLater
	a.stopSignals() // the launcher takes them from here: they are for the command
	res, err := launcher.Exec(ctx, s, plan, opts)
	ctx, stop := withSignals(ctx)
	defer stop()
	exit := exitStatus(ctx, err)
	if err == nil {
		exit = res.Exit
	}
	defer func() {
		if o.detach && res != nil && res.Job != "" {
			e.leave()
			return
		}
		e.end(ctx, exit)
	}()
	if res == nil {
		return err
	}
	if !a.json && exit == 0 {
		if err := a.printOutputs(plan, res); err != nil {
			return err
		}
	}
	var perr error
	// A job publishes its result itself, and of several nodes the first does.
	if exit == 0 && !res.Cached && (res.Job == "" || o.push == pushRequired) && (opts.Nodes == nil || opts.Nodes.Rank == 0) {
		perr = a.publishResult(ctx, s, res.Run, o.pushWhen())
	}
	// Scripts may rely on it: only now it is durable where it is to be.
	if a.json {
		if jerr := a.printJSON(res); jerr != nil && err == nil {
			err = jerr
		}
	}
	switch {
	case err != nil:
		return err
	case res.Exit != 0:
		return &statusError{status: res.Exit}
	}
	return perr
}

func (o *stageOptions) checkPush() error {
	switch {
	case o.push != pushNow && o.push != pushLater && o.push != pushRequired:
		return usagef("curi stage exec --push %s: want now, later or required", o.push)
	case o.offline && o.push == pushRequired:
		return usagef("curi stage exec: --offline and --push required exclude each other")
	}
	return nil
}

func (a *app) execOptions(c *cobra.Command, o *stageOptions) (launcher.Options, error) {
	opts := launcher.Options{
		Force: o.force, Fresh: o.fresh, Retries: o.retries, Curi: version(), Accept: o.accept, Message: o.message,
		Stdout: a.out, Stderr: a.err, Log: a.logger(), Quiet: a.quiet,
		Secret: os.LookupEnv, Environ: os.Environ(), Progress: a.progress,
	}
	switch {
	case o.accept != "" && (o.force || o.fresh || o.dryRun):
		return opts, usagef("curi stage exec --accept runs nothing: leave --force, --fresh and --dry-run out")
	case o.retries < 0:
		return opts, usagef("curi stage exec --retries %d: say how often, 0 or more", o.retries)
	case o.message != "" && o.accept == "":
		return opts, usagef("curi stage exec -m says why with --accept RUN; there is no --accept")
	}
	if a.json {
		opts.Stdout = a.err // stdout is for the result alone
	}
	var err error
	if opts.Timeout, err = a.duration(c, "timeout", o.timeoutText, "timeout"); err != nil {
		return opts, err
	}
	if opts.Grace, err = a.duration(c, "grace", o.graceText, "grace"); err != nil {
		return opts, err
	}
	if opts.Snapshot, err = a.duration(c, "snapshot", o.snapshotText, "snapshot"); err != nil {
		return opts, err
	}
	cfg, err := a.config()
	if err != nil {
		return opts, err
	}
	if opts.NoMount = o.noMount; !c.Flags().Changed("no-mount") {
		opts.NoMount = cfg.bool("no_mount")
	}
	if o.places != "" {
		if opts.Places, err = filepath.Abs(o.places); err != nil {
			return opts, fmt.Errorf("--places %s: %w", o.places, err)
		}
	}
	if opts.Self, err = os.Executable(); err != nil {
		return opts, fmt.Errorf("finding curi's own binary: %w", err)
	}
	return opts, nil
}

// printOutputs tells a person where the outputs are. It goes to stderr:
// stdout is the command's own.
func (a *app) printOutputs(plan *stages.Plan, res *launcher.Result) error {
	if a.quiet {
		return nil
	}
	width := 0
	for _, out := range plan.Outputs {
		width = max(width, len(out.Name))
	}
	for _, out := range plan.Outputs {
		if got, ok := res.Outputs[out.Name]; ok {
			a.say("%s%s  %s  (%s)", out.Name, strings.Repeat(" ", width-len(out.Name)), got.Path, contents(got.Bytes, got.Files))
		}
	}
	return nil
}
