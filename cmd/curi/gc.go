package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
)

// collectedJSON is what `curi gc --json` prints.
type collectedJSON struct {
	cas.CollectReport
	RemovedResults int64 `json:"removed_results"`
	DryRun         bool  `json:"dry_run"`
}

func newGc(a *app) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nobody needs any more",
		Long: `Remove unnamed stage results that nobody used for 30 days, work directories after
14 days, abandoned staging, and every blob that nothing needs then. Versions of
artifacts, tags, pins and whatever a running stage or add may need always stay,
and so does the log of runs. What was pulled from a remote, whole or in parts, and
not used for 30 days goes too: a pull brings it again. It is safe beside everything else.

A configuration file changes the policy: "keep: 60d" and "keep_work: 7d" for the
two ages (0 keeps nothing that rests); "max_size: 500G" and "min_free: 50G" remove
the longest unused unnamed results beyond that until the store is small enough and
enough space is free.`,
		Example: `  curi gc --dry-run
  curi gc
  curi gc --json`,
		Args:              nargs(0, 0, "no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return a.gc(c.Context(), dry) },
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would be removed")
	return c
}

func (a *app) gc(ctx context.Context, dry bool) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	if !dry {
		if err := a.keepJobs(ctx, s); err != nil {
			return err
		}
	}
	progress, clear := a.progress("collecting")
	defer clear()
	out, err := collect(ctx, s, policy{
		keep: cfg.duration("keep"), keepWork: cfg.duration("keep_work"),
		maxSize: cfg.bytes("max_size"), minFree: cfg.bytes("min_free"),
	}, dry, progress)
	if err != nil {
		return err
	}
	clear()
	if a.json {
		return a.printJSON(out)
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	return a.printf("%s %s and %s (%s); kept %s\n", verb, count(out.RemovedResults, "stage result"), count(out.RemovedBlobs, "blob"), size(out.RemovedBytes), count(out.KeptBlobs, "blob"))
}

// keepJobs ends what is left of jobs of Slurm that are over, and keeps what the
// others need.
func (a *app) keepJobs(ctx context.Context, s *cas.Store) error {
	opts, err := a.jobOptions()
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, jobPatience)
	defer cancel()
	if _, err := launcher.LookAfterJobs(asking, s, opts); err != nil {
		a.warn("%s", oneLine(err.Error()))
	}
	return launcher.KeepJobs(ctx, s)
}
