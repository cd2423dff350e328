package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// listedJSON is an element of what `curi ls --json` prints.
type listedJSON struct {
	Name    string     `json:"name"`
	Version int        `json:"version"`
	Tags    []string   `json:"tags"`
	Tree    cas.Digest `json:"tree"`
	Kind    string     `json:"kind"` // "file" or "directory"
	Bytes   int64      `json:"bytes"`
	MadeBy  string     `json:"made_by"`
	Time    time.Time  `json:"time"`
	Local   bool       `json:"local"` // all of it is here
}

func newLs(a *app) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List artifacts",
		Long: `List the newest version of every artifact, or of those whose name begins with PREFIX,
and what the remotes had at the last pull, as REMOTE/NAME. Where not all is here,
HERE says of what all is, a part, or nothing.`,
		Example: `  curi ls
  curi ls mod
  curi ls --versions model
  curi ls -q          # names only, for scripts`,
		Args:              nargs(0, 1, "at most one PREFIX"),
		ValidArgsFunction: a.completeArtifacts,
		RunE: func(c *cobra.Command, args []string) error {
			return a.ls(c.Context(), strings.Join(args, ""), all)
		},
	}
	c.Flags().BoolVar(&all, "versions", false, "list every version, not only the newest")
	return c
}

func (a *app) ls(ctx context.Context, prefix string, all bool) error {
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	list := []listedJSON{}
	bad := false // one bad artifact is not to hide the others
	for newest, err := range s.Artifacts(ctx, prefix) {
		vs := []cas.Version{newest}
		if all && err == nil {
			vs, err = s.Versions(ctx, newest.Name)
		}
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			a.warn("%s", wayOut(err))
			bad = true
			continue
		}
		for _, v := range vs {
			t, err := s.Tree(ctx, v.Tree)
			if err != nil {
				a.warn("%s: %s", versionName(v), wayOut(err))
				bad = true
				continue
			}
			l := listedJSON{Name: v.Name, Version: v.N, Tags: v.Tags, Tree: v.Tree, Kind: "directory", Bytes: t.Bytes(), MadeBy: v.MadeBy, Time: v.Time, Local: s.HasTree(v.Tree)}
			if l.Tags == nil {
				l.Tags = []string{}
			}
			if t.Single {
				l.Kind = "file"
			}
			list = append(list, l)
		}
	}
	onRemotes, err := listRemotes(ctx, s, prefix, all)
	if err != nil {
		return err
	}
	list = append(list, onRemotes...)
	if a.json {
		return a.printJSON(list)
	}
	if len(list) == 0 && bad {
		return nil
	}
	if len(list) == 0 {
		if prefix != "" {
			a.say("no artifact's name begins with %q in %s%s", prefix, s.Dir(), a.unknownYet(ctx, s, prefix))
		} else {
			a.say("no artifacts in %s yet; curi add PATH --name NAME makes one", s.Dir())
		}
		return nil
	}
	var rows [][]string
	head := []string{"NAME", ">VERSION", "KIND", ">SIZE", "MADE", "BY", "TAGS"}
	elsewhere := slices.ContainsFunc(list, func(l listedJSON) bool { return !l.Local })
	for _, l := range list {
		name := l.Name
		if all {
			name = fmt.Sprintf("%s@%d", l.Name, l.Version)
		}
		row := []string{name, fmt.Sprint(l.Version), l.Kind, size(l.Bytes), age(l.Time), orDash(l.MadeBy), strings.Join(l.Tags, " ")}
		if elsewhere {
			row = slices.Insert(row, 4, here(s, l))
		}
		rows = append(rows, row)
	}
	if elsewhere {
		head = slices.Insert(head, 4, "HERE")
	}
	return a.table(head, rows)
}

// unknownYet is why nothing is listed of a remote, or "".
func (a *app) unknownYet(ctx context.Context, s *cas.Store, prefix string) string {
	name, _, _ := strings.Cut(prefix, "/")
	if _, err := remote.FindConfig(ctx, s, name); err != nil {
		return ""
	}
	seen, err := remote.LoadSeen(ctx, s, name)
	if err != nil || seen.Remote != "" {
		return ""
	}
	return fmt.Sprintf("; nothing is known of remote %s yet, curi pull takes its names", name)
}

// here says how much of what is listed the store has.
func here(s *cas.Store, l listedJSON) string {
	switch {
	case l.Local:
		return "all"
	case s.HasLazyTree(l.Tree):
		return "part" // as far as it was read
	}
	return "no"
}

// listRemotes lists what the remotes had at the last pull, as REMOTE/NAME.
func listRemotes(ctx context.Context, s *cas.Store, prefix string, all bool) ([]listedJSON, error) {
	configs, err := remote.Configs(ctx, s)
	if err != nil {
		return nil, err
	}
	var list []listedJSON
	for _, c := range configs {
		seen, err := remote.LoadSeen(ctx, s, c.Name)
		if err != nil {
			return nil, err
		}
		vs := seen.Versions
		if !all {
			vs = seen.Newest("")
		}
		for _, v := range vs {
			l := listedJSON{Name: c.Name + "/" + v.Name, Version: v.N, Tags: seen.TagsOf(v), Tree: v.Tree, Kind: "directory", Bytes: v.Bytes, MadeBy: v.MadeBy, Time: v.Time, Local: s.HasTree(v.Tree)}
			if v.Single {
				l.Kind = "file"
			}
			if strings.HasPrefix(l.Name, prefix) {
				list = append(list, l)
			}
		}
	}
	return list, nil
}
