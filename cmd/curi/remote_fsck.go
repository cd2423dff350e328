package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas/remote"
)

// remoteCheckedJSON is what `curi remote fsck --json` prints.
type remoteCheckedJSON struct {
	Remote string `json:"remote"`
	remote.Checked
}

func newRemoteFsck(a *app) *cobra.Command {
	var o remote.CheckOptions
	c := &cobra.Command{
		Use:   "fsck [NAME]",
		Short: "Check what a remote holds",
		Long: `Look whether all that the versions on a remote need is there: every recipe is read
and verified, every pack looked for. With --read all bytes are fetched and
verified, too. What is bad is named, with the versions that need it; the exit
status is 122 then.

--repair removes what is bad: the next curi push of these versions, from a store
that has them, brings it anew. Nobody may push or collect meanwhile.`,
		Example: `  curi remote fsck team
  curi remote fsck team --read --json`,
		Args:              nargs(0, 1, "at most one NAME"),
		ValidArgsFunction: a.completeRemotes,
		RunE: func(c *cobra.Command, args []string) error {
			return a.remoteFsck(c.Context(), optional(args), o)
		},
	}
	c.Flags().BoolVar(&o.Read, "read", false, "fetch and verify all bytes")
	c.Flags().BoolVar(&o.Repair, "repair", false, "remove what is bad, so that a push brings it anew")
	return c
}

func (a *app) remoteFsck(ctx context.Context, name string, o remote.CheckOptions) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	c, err := a.pickRemote(ctx, s, name)
	if err != nil {
		return err
	}
	if o.Repair {
		if err := mayWrite(c); err != nil {
			return err
		}
	}
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return err
	}
	defer r.Close()
	progress, clear := a.progress("checking " + c.Name)
	defer clear()
	o.Progress = progress
	rep, err := r.Check(ctx, o)
	if err != nil {
		return fmt.Errorf("remote %s: %w", c.Name, err)
	}
	clear()
	if a.json {
		err = a.printJSON(remoteCheckedJSON{c.Name, rep})
	} else {
		var b strings.Builder
		for _, bad := range rep.Bad {
			fmt.Fprintf(&b, "bad  %s  %s; used by %s\n", bad.Object, bad.Reason, strings.Join(bad.UsedBy, ", "))
		}
		if len(rep.Bad) == 0 {
			fmt.Fprintf(&b, "%s and %s checked, none bad\n", count(int64(rep.Trees), "tree"), count(int64(rep.Packs), "pack"))
		}
		err = a.write(b.String())
	}
	if err != nil || len(rep.Bad) == 0 {
		return err
	}
	next := "curi remote fsck " + c.Name + " --repair removes what is bad, and curi push of what used it, from a store that has it, brings it anew"
	if o.Repair {
		next = "it was removed; push what used it again, from a store that has it"
	}
	return &statusError{exitCorrupt, fmt.Errorf("%s of remote %s; %s", badObjects(len(rep.Bad)), c.Name, next)}
}

func badObjects(n int) string {
	if n == 1 {
		return "1 bad object"
	}
	return fmt.Sprintf("%d bad objects", n)
}
