package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// shellJSON is what `curi shell --json` prints.
type shellJSON struct {
	Run   string     `json:"run"`
	Exit  int        `json:"exit_status"`
	Path  string     `json:"path"`  // the scratch directory, if it stays; else ""
	Saved *addedJSON `json:"saved"` // with --save
}

func newShell(a *app) *cobra.Command {
	var save string
	var noMount bool
	c := &cobra.Command{
		Use:   "shell RUN|STAGE [-- COMMAND…]",
		Short: "Go into a run's places again",
		Long: `Open a shell, or run COMMAND, where a run's places are there again: its inputs
read-only, its outputs and work directories empty in a scratch directory. The
environment is that of the run ("curi help environment"), and COMMAND may have
placeholders. Nothing is recorded; --save keeps what was written to the outputs
as an artifact. Of a STAGE it is the newest run.`,
		Example: `  curi shell train@last
  curi shell train -- python train.py --dataset_path '{in.dataset}' --model_path '{out.model}' --epochs 1
  curi shell train-7f3k2m --save attempt -- ./fix-checkpoint '{out.model}'`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			switch {
			case dash < 0 && len(args) > 1:
				return usagef("%s: put -- before the command: %s %s -- %s", c.CommandPath(), c.CommandPath(), args[0], strings.Join(args[1:], " "))
			case len(args) == 0 || dash == 0 || dash > 1:
				return usagef("%s wants one RUN or STAGE; see %s --help", c.CommandPath(), c.CommandPath())
			case dash == len(args):
				return usagef("%s: there is no command after --; leave -- out for a shell", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeRunsAndStages,
		RunE: func(c *cobra.Command, args []string) error {
			if save != "" {
				if err := cas.CheckName(save); err != nil {
					return usagef("--save: %v", err)
				}
			}
			var command []string
			if len(args) > 1 {
				command = args[1:]
			}
			return a.shell(c, args[0], command, save, noMount)
		},
	}
	c.DisableFlagsInUseLine = true
	c.Flags().StringVar(&save, "save", "", "keep the outputs as the next version of artifact `NAME`")
	c.Flags().BoolVar(&noMount, "no-mount", false, "copy the inputs instead of using a mount")
	_ = c.RegisterFlagCompletionFunc("save", a.completeArtifacts)
	return c
}

func (a *app) shell(c *cobra.Command, ref string, command []string, save string, noMount bool) error {
	ctx := c.Context()
	s, r, err := a.runOf(ctx, ref)
	if err != nil {
		return err
	}
	rec, err := stages.ReadRecord(ctx, s, r.Tree)
	if errors.Is(err, cas.ErrNotFound) {
		return notFoundf("%s is %s and left no record of its places (%v)", r.ID, r.Status, err)
	}
	if err != nil {
		return err
	}
	opts, err := a.execOptions(c, &stageOptions{noMount: noMount})
	if err != nil {
		return err
	}
	a.stopSignals() // they are for the command
	sc, err := launcher.Shell(ctx, s, rec, command, opts)
	if err != nil {
		return err
	}
	out := shellJSON{Run: r.ID, Exit: sc.Exit, Path: sc.Dir}
	written := sc.Written()
	if save != "" && len(written) > 0 {
		if out.Saved, err = saveScratch(ctx, s, sc, written, save); err != nil {
			return fmt.Errorf("saving what was written, which stays in %s: %w", sc.Dir, err)
		}
	}
	switch {
	case out.Saved != nil:
		a.say("saved as %s@%d  %s", out.Saved.Name, out.Saved.Version, out.Saved.Digest)
	case len(written) > 0:
		a.say("what was written to the outputs stays in %s; --save NAME would have made it an artifact, rm -r removes it", filepath.Join(sc.Dir, "out"))
	case save != "":
		a.say("nothing was written to the outputs: nothing to save")
	}
	if out.Saved != nil || len(written) == 0 {
		if err := sc.Remove(); err != nil {
			return err
		}
		out.Path = ""
	}
	if a.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	}
	if sc.Exit != 0 {
		return &statusError{status: sc.Exit}
	}
	return nil
}

// runOf finds a run by REF, or the newest run of a stage.
func (a *app) runOf(ctx context.Context, ref string) (*cas.Store, stages.Run, error) {
	s, t, err := a.resolve(ctx, ref)
	if (err != nil || t.Run == nil) && !strings.ContainsAny(ref, "@./[") {
		// A stage may be called as what it publishes.
		if _, newest, err2 := a.resolve(ctx, ref+"@last"); err2 == nil {
			t, err = newest, nil
		}
	}
	if err != nil {
		return s, stages.Run{}, err
	}
	if t.Run == nil {
		return s, stages.Run{}, usagef("%s is no run; curi log lists them", t.Name)
	}
	return s, *t.Run, nil
}

// saveScratch makes what was written an artifact: of a stage with one output
// that output, else a directory of all.
func saveScratch(ctx context.Context, s *cas.Store, sc *launcher.Scratch, written []stages.Output, name string) (*addedJSON, error) {
	path := filepath.Join(sc.Dir, "out")
	o := cas.AddOptions{}
	if len(sc.Outputs) == 1 {
		path = sc.Path(written[0])
		o.Attrs = cas.MetaAttrs(written[0].Meta)
	}
	added, err := s.AddPath(ctx, path, o)
	if err != nil {
		return nil, err
	}
	defer added.Release()
	v, isNew, err := s.Publish(ctx, name, added.Tree, cas.PublishOptions{})
	if err != nil {
		return nil, err
	}
	return &addedJSON{name, v.N, added.Digest, added.Tree, added.Bytes, added.Files, isNew}, nil
}
