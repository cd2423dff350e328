package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// removedJSON is what `curi rm --json` prints.
type removedJSON struct {
	Removed []removedVersion `json:"removed"` // versions of an artifact
	Run     string           `json:"run"`     // the run that was withdrawn, or ""
}

type removedVersion struct {
	Name    string     `json:"name"`
	Version int        `json:"version"`
	Tree    cas.Digest `json:"tree"`
}

func newRm(a *app) *cobra.Command {
	keep := 0
	c := &cobra.Command{
		Use:   "rm NAME[@n] | NAME --keep-last N | RUN",
		Short: "Remove versions of an artifact, or withdraw a run's result",
		Long: `Remove an artifact (NAME), one version of it (NAME@n), or all versions but the last
N. Version numbers are never given again. The bytes stay until "curi gc".

For a RUN, withdraw its result: the next exec of that stage runs again. The run
stays in the log, and so do artifacts that were published from it.`,
		Example: `  curi rm digits@1
  curi rm digits --keep-last 3
  curi rm scratch
  curi rm train-7f3k2m`,
		Args:              nargs(1, 1, "a NAME, NAME@n or RUN"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("keep-last") && keep < 1 {
				return usagef("curi rm --keep-last %d: keep one version at least; curi rm %s removes all", keep, args[0])
			}
			return a.rm(c.Context(), args[0], keep)
		},
	}
	c.Flags().IntVar(&keep, "keep-last", 0, "keep the newest `N` versions, and those with a tag")
	return c
}

func (a *app) rm(ctx context.Context, ref string, keep int) error {
	if s, err := a.existingStore(ctx); err == nil {
		if c, rest, ok, _ := a.splitRemote(ctx, s, ref); ok {
			return notFoundf("%s lies on remote %s: curi remote rm %s %s removes it there, for everybody", ref, c.Name, c.Name, rest)
		}
	}
	s, t, err := a.resolve(ctx, ref)
	if errors.Is(err, cas.ErrCorrupt) && keep == 0 {
		if done, ferr := a.forgetBroken(ctx, s, ref); done || ferr != nil {
			return ferr
		}
	}
	if err != nil {
		return err
	}
	if strings.HasSuffix(ref, "/") {
		return usagef("curi rm removes whole artifacts: leave the / of %s out", ref)
	}
	switch {
	case t.Version != nil && t.Path == "":
		return a.rmVersions(ctx, s, ref, *t.Version, keep)
	case keep > 0:
		return usagef("curi rm --keep-last works on artifacts, and %s is none", t.Name)
	case t.Run != nil && t.Path == "" && t.Name == t.Run.ID && t.WorkDir == "":
		if err := stages.Withdraw(ctx, s, t.Run.ID); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(removedJSON{Removed: []removedVersion{}, Run: t.Run.ID})
		}
		return a.printf("withdrew %s: the next exec of %s with its key runs again\n", t.Run.ID, t.Run.Stage)
	}
	return usagef("curi rm removes NAME, NAME@n or the result of a RUN, and %s is none of these", ref)
}

// forgetBroken removes a name that cannot be read: NAME@n, or a RUN. What it
// named stays until it is collected.
func (a *app) forgetBroken(ctx context.Context, s *cas.Store, ref string) (done bool, err error) {
	out := removedJSON{Removed: []removedVersion{}}
	name, selector, _ := strings.Cut(ref, "@")
	if n, err := strconv.Atoi(selector); err == nil {
		if err := s.RemoveVersions(ctx, name, []int{n}); err != nil {
			return false, err
		}
		out.Removed = append(out.Removed, removedVersion{Name: name, Version: n})
	} else {
		if _, err := s.Ref(ctx, "run/"+ref); !errors.Is(err, cas.ErrCorrupt) {
			return false, nil
		}
		if err := s.DeleteRef(ctx, "run/"+ref); err != nil {
			return false, err
		}
		out.Run = ref
	}
	if a.json {
		return true, a.printJSON(out)
	}
	return true, a.printf("forgot %s, which could not be read\n", ref)
}

func (a *app) rmVersions(ctx context.Context, s *cas.Store, ref string, v cas.Version, keep int) error {
	all, err := s.Versions(ctx, v.Name)
	if err != nil {
		return err
	}
	_, selector, one := strings.Cut(ref, "@")
	if one {
		if keep > 0 {
			return usagef("curi rm --keep-last wants the artifact without a version: curi rm %s --keep-last %d", v.Name, keep)
		}
		if _, err := strconv.Atoi(selector); err != nil {
			return usagef("%s is a tag of %s; to remove the version, say its number: curi rm %s", selector, versionName(v), versionName(v))
		}
	}
	var gone []cas.Version
	for i, w := range all {
		if one && w.N != v.N || keep > 0 && (i >= len(all)-keep || len(w.Tags) > 0) {
			continue
		}
		gone = append(gone, w)
	}
	out := removedJSON{Removed: []removedVersion{}}
	var ns []int
	for _, w := range gone {
		ns = append(ns, w.N)
		out.Removed = append(out.Removed, removedVersion{w.Name, w.N, w.Tree})
	}
	if len(ns) > 0 {
		if err := s.RemoveVersions(ctx, v.Name, ns); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	var b strings.Builder
	for _, w := range gone {
		fmt.Fprintf(&b, "removed %s  %s\n", versionName(w), w.Tree)
	}
	if len(gone) > 0 {
		a.say("the bytes stay until curi gc; until then curi add \"$(curi path %s)\" --name %s brings the last one back", gone[len(gone)-1].Tree.Short(), v.Name)
	} else {
		a.say("%s has no version to remove", v.Name)
	}
	return a.write(b.String())
}
