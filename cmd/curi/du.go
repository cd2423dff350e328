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

// usageJSON is an element of what `curi du --json` prints.
type usageJSON struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`         // "artifact", "pulled", "partial", "run", "work", or of the REF
	Own    int64  `json:"own_bytes"`    // only this holds them
	Shared int64  `json:"shared_bytes"` // others hold them too
}

func newDu(a *app) *cobra.Command {
	var runs, work bool
	c := &cobra.Command{
		Use:   "du [REF]",
		Short: "Show what takes space",
		Long: `Show for each artifact (all its versions together), or for one REF, the bytes that
only it holds, which its removal would free, and those that it shares with others.
What was pulled from remotes stands beside them, and "partial" is files of which
only parts came.`,
		Example: `  curi du
  curi du model@3
  curi du --runs --work`,
		Args:              nargs(0, 1, "at most one REF"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var list []usageJSON
			var err error
			if len(args) == 1 {
				if runs || work {
					return usagef("curi du: give a REF, or --runs and --work, not both")
				}
				list, err = a.duRef(c.Context(), args[0])
			} else {
				list, err = a.duAll(c.Context(), runs, work)
			}
			if err != nil {
				return err
			}
			return a.printUsage(list)
		},
	}
	c.Flags().BoolVar(&runs, "runs", false, "runs too")
	c.Flags().BoolVar(&work, "work", false, "work directories too")
	return c
}

func (a *app) printUsage(list []usageJSON) error {
	if a.json {
		return a.printJSON(list)
	}
	var rows [][]string
	for _, u := range list {
		rows = append(rows, []string{u.Name, u.Kind, size(u.Own), size(u.Shared)})
	}
	if len(list) == 0 {
		a.say("nothing is stored yet")
		return nil
	}
	return a.table([]string{"NAME", "KIND", ">OWN", ">SHARED"}, rows)
}

func (a *app) duRef(ctx context.Context, ref string) ([]usageJSON, error) {
	s, t, err := a.resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	d, err := describe(ctx, s, t)
	if err != nil {
		return nil, err
	}
	u := usageJSON{Name: d.Ref, Kind: d.Kind, Own: d.Bytes}
	if d.Kind == "directory" || d.Kind == "run" || d.Kind == "file" && t.Path == "" && !t.Tree.IsZero() {
		root := t.Tree
		if d.Kind == "directory" {
			root = d.Digest
		}
		held, err := s.Usage(ctx, root)
		if err != nil {
			return nil, fmt.Errorf("measuring %s: %w", ref, err)
		}
		u.Own, u.Shared = held.Own, held.Shared
	}
	return []usageJSON{u}, nil
}

func (a *app) duAll(ctx context.Context, runs, work bool) ([]usageJSON, error) {
	s, err := a.store(ctx)
	if err != nil {
		return nil, err
	}
	list := []usageJSON{}
	measure := func(name, kind string, roots ...cas.Digest) error {
		u, err := s.Usage(ctx, roots...)
		if err != nil {
			return fmt.Errorf("measuring %s: %w", name, err)
		}
		list = append(list, usageJSON{name, kind, u.Own, u.Shared})
		return nil
	}
	for v, err := range s.Artifacts(ctx, "") {
		if err != nil {
			return nil, err
		}
		all, err := s.Versions(ctx, v.Name)
		if err != nil {
			return nil, err
		}
		var roots []cas.Digest
		for _, w := range all {
			roots = append(roots, w.Tree)
		}
		if err := measure(v.Name, "artifact", roots...); err != nil {
			return nil, err
		}
	}
	for r, err := range s.Refs(ctx, pulledRefs) {
		if err != nil {
			return nil, err
		}
		if err := measure(strings.TrimPrefix(r.Name, pulledRefs), "pulled", r.Tree); err != nil {
			return nil, err
		}
	}
	if n, err := s.PartialUsage(ctx); err != nil {
		return nil, err
	} else if n > 0 {
		list = append(list, usageJSON{"partial", "partial", n, 0})
	}
	if runs {
		for r, err := range stages.Runs(ctx, s) {
			if err != nil {
				return nil, err
			}
			ref, err := s.Ref(ctx, "run/"+r.ID)
			if err != nil || ref.Tree.IsZero() {
				continue
			}
			if err := measure(r.ID, "run", ref.Tree); err != nil {
				return nil, err
			}
		}
	}
	if work {
		w, err := duWork(ctx, s)
		if err != nil {
			return nil, err
		}
		list = append(list, w...)
	}
	return list, nil
}

// duWork measures the work directories that places keep.
func duWork(ctx context.Context, s *cas.Store) ([]usageJSON, error) {
	keys, err := s.Places(ctx)
	if err != nil {
		return nil, err
	}
	var list []usageJSON
	for _, k := range keys {
		p := s.Place(k)
		st, err := p.State(ctx)
		if err != nil {
			continue // going away just now
		}
		dirs, err := os.ReadDir(filepath.Join(p.Dir(), "work"))
		if err != nil {
			continue
		}
		for _, d := range dirs {
			list = append(list, usageJSON{st.Run + ".work/" + d.Name(), "work", diskBytes(filepath.Join(p.Dir(), "work", d.Name())), 0})
		}
	}
	return list, nil
}

// diskBytes sums up the files below dir; what vanishes meanwhile counts nothing.
func diskBytes(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if st, err := e.Info(); err == nil {
				n += st.Size()
			}
		}
		return nil
	})
	return n
}
