package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

func newCheckout(a *app) *cobra.Command {
	var o cas.CheckoutOptions
	c := &cobra.Command{
		Use:   "checkout REF DIR",
		Short: "Make a copy of your own",
		Long: `Copy what a REF means into DIR, which must not exist or be empty: as reflinks
where the filesystem has them. The copy is yours to change.

--link makes hard links to the store's own files instead, which costs no space;
they are read-only, and root, who could write through them, may not have them.`,
		Example: `  curi checkout digits ./digits
  curi checkout model@best ./model
  curi checkout digits/images ./images --link`,
		Args:              nargs(2, 2, "a REF and a directory"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.checkout(c.Context(), args[0], args[1], o)
		},
	}
	c.Flags().BoolVar(&o.Link, "link", false, "hard links to the store's files, read-only; never as root")
	return c
}

func (a *app) checkout(ctx context.Context, ref, dir string, o cas.CheckoutOptions) error {
	if o.Link && os.Geteuid() == 0 {
		return usagef("curi checkout --link: root could write through the links into the store; leave --link out, or be another user")
	}
	if dir == "" {
		return usagef("curi checkout: the directory is empty; name one, such as ./copy")
	}
	s, t, err := a.resolveLocal(ctx, ref)
	if err != nil {
		return err
	}
	progress, clear := a.progress("checking out " + ref)
	defer clear()
	tree, release, err := treeOf(ctx, s, t, progress)
	if err != nil {
		return err
	}
	defer release()
	o.Progress = progress
	o.ReadOnly = o.Link
	if err := s.Checkout(ctx, tree, dir, o); err != nil {
		return err
	}
	clear()
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"name": t.Name, "path": abs, "tree": tree})
	}
	a.say("%s is in %s", t.Name, dir)
	return nil
}

// treeOf is a tree that holds exactly what a target means, and stays until
// release is called: a file gets one of its own. Of what a remote has, that
// comes and nothing else.
func treeOf(ctx context.Context, s *cas.Store, t stages.Target, progress cas.Progress) (tree cas.Digest, release func(), err error) {
	switch {
	case t.WorkDir != "":
		return tree, nil, usagef("%s is a work directory, not an artifact: it is an ordinary directory at %s", t.Name, t.WorkDir)
	case t.Path == "" && !t.Tree.IsZero():
		return t.Tree, func() {}, nil
	case t.Tree.IsZero() && t.Blob.IsZero():
		return tree, nil, notFoundf("%s left nothing to check out; curi log %s tells why", t.Name, t.Name)
	}
	if s.HasTree(t.Tree) { // the store may be one that can only be read
		if e, err := s.Lookup(ctx, t.Tree, t.Path); err == nil && e.Kind == cas.KindDir {
			return e.Digest, func() {}, nil
		}
	}
	var added *cas.Added
	if !t.Tree.IsZero() {
		added, err = s.Part(ctx, t.Tree, t.Path, progress)
	} else {
		added, err = addBlob(ctx, s, t.Blob)
	}
	if err != nil {
		return tree, nil, fmt.Errorf("%s: %w", t.Ref, err)
	}
	return added.Tree, added.Release, nil
}

// addBlob makes a tree of a blob that no tree is known of.
func addBlob(ctx context.Context, s *cas.Store, d cas.Digest) (*cas.Added, error) {
	b, err := s.OpenBlob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return s.AddTree(ctx, &cas.Tree{Single: true, Entries: []cas.Entry{{Name: d.String(), Kind: cas.KindFile, Size: b.Size(), Digest: d}}})
}
