package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas/remote"
)

// remoteCollectedJSON is what `curi remote gc --json` prints.
type remoteCollectedJSON struct {
	Remote string `json:"remote"`
	remote.Collected
	DryRun bool `json:"dry_run"`
}

func newRemoteGc(a *app) *cobra.Command {
	var dry bool
	grace := "1d"
	c := &cobra.Command{
		Use:   "gc [NAME]",
		Short: "Remove from a remote what no name needs any more",
		Long: `Remove from a remote what no version on it needs any more, in two steps, so that
machines may push and pull meanwhile: a call lists what may go, and a call that
comes at least --grace later removes what is still not needed then. Run it daily.
A push that needs something listed keeps it; the next call begins anew.

With --grace 0 all is removed at once. That is only right where nobody pushes.`,
		Example: `  curi remote gc team
  curi remote gc team --dry-run
  curi remote gc team --grace 3d`,
		Args:              nargs(0, 1, "at most one NAME"),
		ValidArgsFunction: a.completeRemotes,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := parseDuration(grace)
			if err != nil {
				return usagef("curi remote gc --grace: %v", err)
			}
			return a.remoteGc(c.Context(), optional(args), d, dry)
		},
	}
	c.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what could be removed")
	c.Flags().StringVar(&grace, "grace", grace, "leave alone what is younger, and wait so long between the steps, `D`")
	return c
}

// optional is the argument of a command that takes one or none.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func (a *app) remoteGc(ctx context.Context, name string, grace time.Duration, dry bool) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	c, err := a.pickRemote(ctx, s, name)
	if err != nil {
		return err
	}
	if err := mayWrite(c); err != nil {
		return err
	}
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return err
	}
	defer r.Close()
	done, err := r.Collect(ctx, remote.CollectOptions{Grace: grace, DryRun: dry})
	if err != nil {
		return fmt.Errorf("remote %s: %w", c.Name, err)
	}
	if a.json {
		return a.printJSON(remoteCollectedJSON{c.Name, done, dry})
	}
	if dry {
		return a.printf("%s could be removed (%s)\n", count(int64(done.Listed), "object"), size(done.ListedBytes))
	}
	if err := a.printf("removed %s (%s)\n", count(int64(done.Removed), "object"), size(done.RemovedBytes)); err != nil {
		return err
	}
	if done.Listed > 0 {
		a.say("%s listed; curi remote gc %s removes them after %s, unless something needs them then", areListed(done.Listed), c.Name, done.Due.Local().Format("2006-01-02 15:04"))
	}
	return nil
}

func areListed(n int) string {
	if n == 1 {
		return "1 object is"
	}
	return fmt.Sprintf("%d objects are", n)
}
