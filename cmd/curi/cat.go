package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

func newCat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cat REF",
		Short: "Write a file's bytes to stdout",
		Long: `Write the bytes of a file to stdout: of an artifact that is one file, or of a file inside any REF. What only
a remote has comes from there, verified, and stays.`,
		Example: `  curi cat metrics
  curi cat evaluate.accuracy/accuracy.json
  curi cat train@last/log.txt
  curi cat 7f3a90c1 > model.ckpt`,
		Args:              nargs(1, 1, "one REF that is a file"),
		ValidArgsFunction: a.completeRefs(1),
		RunE:              func(c *cobra.Command, args []string) error { return a.cat(c.Context(), args[0]) },
	}
}

func (a *app) cat(ctx context.Context, ref string) error {
	if a.json {
		return usagef("curi cat writes bytes and has no --json; curi show %s --json describes the file", ref)
	}
	s, t, _, err := a.resolveLazy(ctx, ref)
	if err != nil {
		return err
	}
	switch {
	case t.WorkDir != "":
		err = a.catDisk(t.WorkDir)
	case t.Blob.IsZero():
		return notAFile(ctx, s, t)
	default:
		err = s.CopyBlob(ctx, a.out, t.Blob)
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("copying %s to stdout: %w", ref, err)
	}
	return nil
}

// catDisk writes a file of a work directory.
func (a *app) catDisk(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(a.out, f)
	return err
}

func notAFile(ctx context.Context, s *cas.Store, t stages.Target) error {
	if e, err := s.Lookup(ctx, t.Tree, t.Path); err == nil && e.Kind == cas.KindSymlink {
		return notFoundf("%s is a symbolic link to %q, which leads nowhere", t.Name, t.Link)
	}
	return usagef("%s is a directory; name a file in it, such as %s/FILE (curi show %s lists them)", t.Name, t.Ref, t.Ref)
}
