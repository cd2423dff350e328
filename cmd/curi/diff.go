package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// changeJSON is an element of what `curi diff --json` prints.
type changeJSON struct {
	Path      string     `json:"path"`   // "" is the artifact itself: its metadata differs
	Change    string     `json:"change"` // "added", "removed", "changed", "meta"
	OldDigest cas.Digest `json:"old_digest"`
	NewDigest cas.Digest `json:"new_digest"`
	OldBytes  int64      `json:"old_bytes"`
	NewBytes  int64      `json:"new_bytes"`
	Detail    string     `json:"detail"`
}

func newDiff(a *app) *cobra.Command {
	var exitCode bool
	c := &cobra.Command{
		Use:   "diff REF REF",
		Short: "List what differs between two things",
		Long: `List the files that were added (A), removed (D) or changed (M) between two things,
and metadata that differs. Nothing is printed where they are the same.`,
		Example: `  curi diff digits@1 digits@2
  curi diff train-7f3k2m.model train@last.model
  curi diff --exit-code model@best model || echo changed
  diff <(curi cat metrics@1) <(curi cat metrics@2)   # the contents of two files`,
		Args:              nargs(2, 2, "two REFs"),
		ValidArgsFunction: a.completeRefs(2),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := a.diff(c.Context(), args[0], args[1])
			if err == nil && exitCode && n > 0 {
				return &statusError{status: 1}
			}
			return err
		},
	}
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 1 where something differs")
	return c
}

func (a *app) diff(ctx context.Context, from, to string) (int, error) {
	s, old, _, err := a.resolveLazy(ctx, from)
	if err != nil {
		return 0, err
	}
	_, now, _, err := a.resolveLazy(ctx, to)
	if err != nil {
		return 0, err
	}
	list := []changeJSON{}
	err = compare(ctx, s, old, now, func(c cas.Change) error {
		list = append(list, wordChange(c))
		return nil
	})
	if err != nil {
		return 0, err
	}
	if a.json {
		return len(list), a.printJSON(list)
	}
	var b strings.Builder
	for _, c := range list {
		c.Path, c.Detail = visible(c.Path), visible(c.Detail)
		switch c.Change {
		case "added":
			fmt.Fprintf(&b, "A  %s  (%s)\n", c.Path, size(c.NewBytes))
		case "removed":
			fmt.Fprintf(&b, "D  %s  (%s)\n", c.Path, size(c.OldBytes))
		case "changed":
			fmt.Fprintf(&b, "M  %s  (%s)\n", c.Path, c.Detail)
		case "meta":
			fmt.Fprintf(&b, "M  %s\n", strings.TrimSpace(c.Path+"  "+c.Detail))
		}
	}
	return len(list), a.write(b.String())
}

// compare calls fn for what differs between two targets. Two files are
// compared whatever their names are.
func compare(ctx context.Context, s *cas.Store, old, now stages.Target, fn func(cas.Change) error) error {
	var trees [2]cas.Digest
	for i, t := range []stages.Target{old, now} {
		tree, release, err := comparedTree(ctx, s, t)
		if err != nil {
			return err
		}
		defer release()
		trees[i] = tree
	}
	if !old.Blob.IsZero() && !now.Blob.IsZero() {
		_, o, _, err := s.SingleFile(ctx, trees[0])
		if err != nil {
			return err
		}
		name, n, _, err := s.SingleFile(ctx, trees[1])
		if err != nil {
			return err
		}
		if n.Name != o.Name {
			if o.Digest == n.Digest {
				return nil
			}
			return fn(cas.Change{Path: name, Old: o, New: n})
		}
	}
	return s.Diff(ctx, trees[0], trees[1], fn)
}

// comparedTree is treeOf without the bytes of what a remote has: digests tell.
func comparedTree(ctx context.Context, s *cas.Store, t stages.Target) (tree cas.Digest, release func(), err error) {
	if t.WorkDir == "" && t.Path != "" && !s.HasTree(t.Tree) {
		e, err := s.Lookup(ctx, t.Tree, t.Path)
		if err != nil {
			return tree, nil, fmt.Errorf("%s: %w", t.Ref, err)
		}
		if e.Kind == cas.KindDir {
			return e.Digest, func() {}, nil
		}
		if a, err := s.AdoptMade(ctx, &cas.Tree{Single: true, Entries: []cas.Entry{e}}); err == nil {
			return a.Tree, a.Release, nil
		}
	}
	return treeOf(ctx, s, t, nil)
}

func wordChange(c cas.Change) changeJSON {
	j := changeJSON{Path: c.Path, OldDigest: c.Old.Digest, NewDigest: c.New.Digest, OldBytes: c.Old.Size, NewBytes: c.New.Size}
	switch {
	case c.Old.Kind == 0:
		j.Change = "added"
	case c.New.Kind == 0:
		j.Change = "removed"
	case c.Path == "" || c.Old.Kind == c.New.Kind && c.Old.Digest == c.New.Digest && c.Old.Target == c.New.Target:
		j.Change, j.Detail = "meta", wordAttrs(c.Old.Attrs, c.New.Attrs)
	default:
		j.Change = "changed"
		switch {
		case c.Old.Kind == cas.KindSymlink && c.New.Kind == cas.KindSymlink:
			j.Detail = c.Old.Target + " → " + c.New.Target
		case c.Old.Kind == cas.KindSymlink:
			j.Detail = "link → file"
		case c.New.Kind == cas.KindSymlink:
			j.Detail = "file → link"
		case c.Old.Digest == c.New.Digest && c.New.Kind == cas.KindExecutable:
			j.Detail = "now executable"
		case c.Old.Digest == c.New.Digest:
			j.Detail = "no longer executable"
		case c.Old.Size == c.New.Size:
			j.Detail = size(c.New.Size) + ", other bytes"
		default:
			j.Detail = size(c.Old.Size) + " → " + size(c.New.Size)
		}
	}
	return j
}

// wordAttrs words how attributes differ.
func wordAttrs(old, now cas.Attrs) string {
	var keys, words []string
	for _, at := range append(slices.Clone(old), now...) {
		if !slices.Contains(keys, at.Key) {
			keys = append(keys, at.Key)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		o, had := old.Get(k)
		n, has := now.Get(k)
		short := strings.TrimPrefix(k, cas.MetaPrefix)
		switch {
		case !had:
			words = append(words, fmt.Sprintf("meta +%s=%s", short, n))
		case !has:
			words = append(words, fmt.Sprintf("meta -%s=%s", short, o))
		case o != n:
			words = append(words, fmt.Sprintf("meta %s: %s → %s", short, o, n))
		}
	}
	return strings.Join(words, ", ")
}
