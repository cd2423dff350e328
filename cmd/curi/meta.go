package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// metaJSON is what `curi meta --json` prints.
type metaJSON struct {
	Name    string            `json:"name"`
	Version int               `json:"version"`
	Meta    map[string]string `json:"meta"`
	New     bool              `json:"new"`
}

func newMeta(a *app) *cobra.Command {
	var drop []string
	c := &cobra.Command{
		Use:   "meta REF [k=v…]",
		Short: "Print or change metadata",
		Long: `Print the metadata of a REF, or give its artifact new metadata. A version never
changes: new metadata on the same bytes makes the artifact's next version.`,
		Example: `  curi meta model
  curi meta model type=DigitsNet reviewed=yes
  curi meta model --drop reviewed`,
		Args:              nargs(1, -1, "a REF and any number of k=v"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			set, err := parseMeta(args[1:])
			if err != nil {
				return usagef("curi meta %s: %v", args[0], err)
			}
			return a.meta(c.Context(), args[0], set, drop)
		},
	}
	c.Flags().StringArrayVar(&drop, "drop", nil, "remove this `key` (repeatable)")
	return c
}

func (a *app) meta(ctx context.Context, ref string, set map[string]string, drop []string) error {
	s, t, err := a.resolve(ctx, ref)
	if err != nil {
		return err
	}
	isNew := false
	if len(set) > 0 || len(drop) > 0 {
		if t, isNew, err = changeMeta(ctx, s, t, set, drop); err != nil {
			return err
		}
	}
	d, err := describe(ctx, s, t)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(metaJSON{d.Name, d.Version, d.Meta, isNew})
	}
	if isNew {
		a.say("%s has the new metadata", versionName(*t.Version))
	} else if len(set) > 0 || len(drop) > 0 {
		a.say("%s has this metadata already: no new version", t.Name)
	}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(d.Meta)) {
		fmt.Fprintf(&b, "%s=%s\n", visible(k), visible(d.Meta[k]))
	}
	return a.write(b.String())
}

// changeMeta publishes the newest version's bytes with other metadata.
func changeMeta(ctx context.Context, s *cas.Store, t stages.Target, set map[string]string, drop []string) (stages.Target, bool, error) {
	if t.Version == nil || t.Path != "" {
		return t, false, notAVersion("meta", t)
	}
	newest, err := s.Version(ctx, t.Version.Name, "")
	if err != nil {
		return t, false, err
	}
	if newest.N != t.Version.N {
		return t, false, usagef("%s is not the newest version, %s is; to make its bytes the newest with other metadata: curi add \"$(curi path %s)\" --name %s --meta KEY=VALUE",
			versionName(*t.Version), versionName(newest), versionName(*t.Version), newest.Name)
	}
	// The pin keeps the bytes should somebody remove the version just now.
	pin, err := s.Pin(ctx, "curi meta "+newest.Name, newest.Tree)
	if err != nil {
		return t, false, err
	}
	defer pin.Release()
	tree, err := s.Tree(ctx, newest.Tree)
	if err != nil {
		return t, false, err
	}
	changed := *tree
	for _, k := range drop {
		k = metaKey(k)
		if _, ok := changed.Attrs.Get(cas.MetaPrefix + k); !ok {
			return t, false, notFoundf("%s has no metadata %q%s", versionName(newest), k, didYouMean(k, slices.Collect(maps.Keys(tree.Attrs.Meta()))))
		}
		changed.Attrs = changed.Attrs.Without(cas.MetaPrefix + k)
	}
	for _, at := range cas.MetaAttrs(set) {
		changed.Attrs = changed.Attrs.With(at.Key, at.Value)
	}
	d, err := s.PutTree(ctx, &changed)
	if err != nil {
		return t, false, err
	}
	v, isNew, err := s.Publish(ctx, newest.Name, d, cas.PublishOptions{MadeBy: newest.MadeBy})
	if err != nil {
		return t, false, err
	}
	t.Version, t.Tree, t.Name = &v, v.Tree, versionName(v)
	return t, isNew, nil
}
