package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/launcher"
)

func newAttach(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "attach RUN",
		Short: "Follow a run that is a job of Slurm",
		Long: `Show what the job of a run writes, from its beginning, and wait for its end; the exit
status and --json are those of "curi stage exec". Ctrl-C ends that and not the job:
"curi cancel" does. A job that was requeued is followed through all of its runs.`,
		Example: `  curi attach train-7f3k2m
  curi attach train@last`,
		Args:              nargs(1, 1, "one RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			s, r, err := a.runOf(c.Context(), args[0])
			if err != nil {
				return err
			}
			opts, err := a.jobOptions()
			if err != nil {
				return err
			}
			a.stopSignals() // Attach has them
			res, err := launcher.Attach(c.Context(), s, r, opts)
			if err != nil {
				return err
			}
			if a.json {
				if err := a.printJSON(res); err != nil {
					return err
				}
			}
			if res.Exit != 0 {
				return &statusError{status: res.Exit}
			}
			return nil
		},
	}
}

// jobOptions are the launcher's options of a command that runs nothing itself.
func (a *app) jobOptions() (launcher.Options, error) {
	cfg, err := a.config()
	if err != nil {
		return launcher.Options{}, err
	}
	o := launcher.Options{Stdout: a.out, Stderr: a.err, Log: a.logger(), Quiet: a.quiet, Environ: os.Environ(), Curi: version(), Grace: cfg.duration("grace")}
	if a.json {
		o.Stdout = a.err // stdout is for the result alone
	}
	if o.Self, err = os.Executable(); err != nil {
		return o, fmt.Errorf("finding curi's own binary: %w", err)
	}
	return o, nil
}
