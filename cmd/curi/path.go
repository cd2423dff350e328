package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

func newPath(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "path REF",
		Short: "Print a path that can be opened now",
		Long: `Print a path that can be opened now and stays as long as the thing does: in a
mount if one serves, else in a read-only view that the store keeps. What only a
remote has comes when it is read, in a mount; without one, it comes now. Of a store
that is full or can only be read, where there may be no view, files have a path all
the same; for a directory use a mount.`,
		Example: `  curi path digits
  python -c 'import torch, sys; torch.load(sys.argv[1])' "$(curi path model)"
  curi path train.model --json`,
		Args:              nargs(1, 1, "one REF"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.path(c.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"path": p})
			}
			return a.printf("%s\n", p)
		},
	}
}

// path is a path of what a REF means. What only a remote has is in a mount, if
// one serves, before its bytes are here; else they come now.
func (a *app) path(ctx context.Context, ref string) (string, error) {
	s, t, remote, err := a.resolveLazy(ctx, ref)
	if err != nil {
		return "", err
	}
	if remote != nil && !s.HasTree(t.Tree) {
		if m, ok := servingMount(ctx, s); ok {
			inside, err := insidePath(ctx, s, t)
			if err != nil {
				return "", err
			}
			v := remote.version
			return filepath.Join(m.Dir, "remotes", remote.config.Name, fmt.Sprintf("%s@%d", v.Name, v.N), filepath.FromSlash(inside)), nil
		}
	}
	if remote != nil {
		if s, t, err = a.resolveLocal(ctx, ref); err != nil {
			return "", err
		}
	}
	return lastingPath(ctx, s, t)
}

// lastingPath is a path of a target that stays as long as the target does.
func lastingPath(ctx context.Context, s *cas.Store, t stages.Target) (string, error) {
	if t.WorkDir != "" {
		return t.WorkDir, nil
	}
	if t.Tree.IsZero() && t.Blob.IsZero() {
		return "", notFoundf("%s left nothing that could be opened; curi log %s tells why", t.Name, t.Name)
	}
	inside, err := insidePath(ctx, s, t)
	if err != nil {
		return "", err
	}
	if err := stillThere(ctx, s, t, inside); err != nil {
		return "", err
	}
	inside = filepath.FromSlash(inside)
	if m, ok := servingMount(ctx, s); ok {
		switch {
		case t.Version != nil:
			return filepath.Join(m.Dir, "artifacts", versionName(*t.Version), inside), nil
		case t.Run != nil && !s.HasTree(t.Tree) && !s.HasLazyTree(t.Tree):
			// An output of a result that a remote has: known by the run only.
			output, _, _ := strings.Cut(strings.TrimPrefix(t.Name, t.Run.ID+"."), "/")
			return filepath.Join(m.Dir, "runs", t.Run.ID, "out", output, inside), nil
		case !t.Tree.IsZero():
			return filepath.Join(m.Dir, "cas", t.Tree.String(), inside), nil
		}
		return filepath.Join(m.Dir, "cas", t.Blob.String()), nil
	}
	if t.Tree.IsZero() {
		b, err := s.OpenBlob(ctx, t.Blob)
		if err != nil {
			return "", err
		}
		defer b.Close()
		return b.Name(), nil
	}
	p, err := s.PathOf(ctx, t.Tree, filepath.ToSlash(inside))
	if err != nil {
		return "", fmt.Errorf("looking for a path of %s: %w", t.Name, err)
	}
	return p, nil
}

// lookedFor is how many files of a directory are looked for: a path is printed
// at once.
const lookedFor = 1000

// stillThere is an error where bytes of the target were taken away, by a purge
// of a scratch disk for instance: a path to them would not open.
func stillThere(ctx context.Context, s *cas.Store, t stages.Target, inside string) error {
	if t.Tree.IsZero() {
		return nil // a digest that was found
	}
	gone := func(path string) error {
		return notFoundf("%s: the bytes of %s are no longer in the store %s; add or make it again (curi fsck names all that is missing)", t.Ref, path, s.Dir())
	}
	if !s.HasTree(t.Tree) {
		return nil // a remote has it
	}
	e, err := s.Lookup(ctx, t.Tree, inside)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Ref, err)
	}
	if e.IsRegular() && !s.HasWholeBlob(e.Digest, e.Size) {
		return gone(inside)
	}
	if e.Kind != cas.KindDir {
		return nil
	}
	n := 0
	return s.Walk(ctx, e.Digest, func(path string, f cas.Entry) error {
		if n++; n > lookedFor {
			return fs.SkipAll
		}
		if f.IsRegular() && !s.HasWholeBlob(f.Digest, f.Size) {
			return gone(path)
		}
		return nil
	})
}

// servingMount finds a mount whose paths last: one that a person made, not
// one that leaves with its last run.
func servingMount(ctx context.Context, s *cas.Store) (cas.Mount, bool) {
	live, _, err := s.Mounts(ctx)
	if err != nil {
		return cas.Mount{}, false // a view serves as well
	}
	for _, m := range live {
		if !m.Auto && m.Reachable() && (m.AllowOther || m.UID == os.Geteuid()) {
			return m, true
		}
	}
	return cas.Mount{}, false
}
