package main

import (
	"github.com/spf13/cobra"

	"github.com/curi-store/curi/launcher"
)

func newCancel(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel RUN",
		Short: "End a run that is a job of Slurm",
		Long: `End the job of a run. One that waits in the queue is cancelled. In one that runs, the
command gets SIGINT and its grace to end, as by Ctrl-C in a local run: its work
directories and its log are kept. scancel with the job's number ends it at once.`,
		Example: `  curi cancel train-7f3k2m
  curi cancel train@last`,
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
			return launcher.Cancel(c.Context(), s, r, opts)
		},
	}
}
