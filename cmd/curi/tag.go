package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

// taggedJSON is what `curi tag --json` prints.
type taggedJSON struct {
	Name    string   `json:"name"`
	Version int      `json:"version"`
	Tags    []string `json:"tags"`
}

func newTag(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "tag REF TAG",
		Short: "Give a version a tag",
		Long: `Give a version of an artifact a tag: model@TAG then means it. A tag that exists is moved.
REMOTE/NAME gives one on the remote, for everybody.`,
		Example: `  curi tag model best
  curi tag model@3 best
  curi path model@best
  curi tag team/model@3 best`,
		Args:              nargs(2, 2, "a REF and a TAG"),
		ValidArgsFunction: a.completeTag,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkNames(args[1], ""); err != nil {
				return err
			}
			if done, err := a.tagRemote(c.Context(), args[0], args[1]); done || err != nil {
				return err
			}
			s, t, err := a.resolve(c.Context(), args[0])
			if err != nil {
				return err
			}
			if t.Version == nil || t.Path != "" {
				return notAVersion("tag", t)
			}
			v := *t.Version
			if err := s.Tag(c.Context(), v.Name, v.N, args[1]); err != nil {
				return err
			}
			if a.json {
				now, err := s.Versions(c.Context(), v.Name)
				if err != nil {
					return err
				}
				for _, n := range now {
					if n.N == v.N {
						slices.Sort(n.Tags)
						v = n
					}
				}
				return a.printJSON(taggedJSON{v.Name, v.N, v.Tags})
			}
			return a.printf("%s@%s  %s\n", v.Name, args[1], versionName(v))
		},
	}
}

// tagRemote gives a tag on a remote; done is false where ref names none.
func (a *app) tagRemote(ctx context.Context, ref, tag string) (done bool, err error) {
	s, err := a.existingStore(ctx)
	if err != nil {
		return false, err
	}
	t, err := a.findRemote(ctx, s, ref)
	if err != nil || t == nil {
		return false, err
	}
	if t.path != "" {
		return false, usagef("curi tag works on a whole version: %s", t.name())
	}
	if err := mayWrite(t.config); err != nil {
		return false, err
	}
	r, err := a.openRemote(ctx, t.config, false)
	if err != nil {
		return false, err
	}
	defer r.Close()
	v := t.version
	if err := r.SetTag(ctx, v.Name, tag, v.N, publisher()); err != nil {
		return false, fmt.Errorf("tag %s: %w", t.name(), err)
	}
	seen, err := r.See(ctx, s, t.config.Name)
	if err != nil {
		return false, err
	}
	name := t.config.Name + "/" + v.Name
	if a.json {
		return true, a.printJSON(taggedJSON{name, v.N, seen.TagsOf(v)})
	}
	return true, a.printf("%s@%s  %s\n", name, tag, t.name())
}

// notAVersion is the error of a command that works on versions of artifacts.
func notAVersion(command string, t stages.Target) error {
	if t.Version != nil {
		return usagef("curi %s works on a whole version: %s", command, versionName(*t.Version))
	}
	return usagef("%s is no version of an artifact, which curi %s wants; make it one: curi add \"$(curi path %s)\" --name NAME", t.Name, command, t.Ref)
}
