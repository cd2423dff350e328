package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// showEntries is how many names of a directory `curi show` prints.
const showEntries = 20

func newShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show REF",
		Short: "Describe an artifact, a run's output, a run or a digest",
		Long: `Describe what a REF means: version, tags, digest, size, metadata and which run
made it. See "curi help ref" for how things are named.`,
		Example: `  curi show digits
  curi show model@best
  curi show train.model --json
  curi show train@last
  curi show digits/images`,
		Args:              nargs(1, 1, "one REF, such as digits or digits@2"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.show(c.Context(), args[0])
		},
	}
}

func (a *app) show(ctx context.Context, ref string) error {
	s, t, remote, err := a.resolveLazy(ctx, ref)
	if err != nil {
		return err
	}
	var d thing
	if remote != nil {
		d, err = describeRemote(ctx, s, t, remote)
	} else {
		d, err = describe(ctx, s, t)
	}
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(d)
	}
	var entries []cas.Entry
	if d.Kind == "directory" && !a.quiet {
		t, err := s.Tree(ctx, d.Digest)
		if err != nil {
			return err
		}
		entries = t.Entries
	}
	return a.showThing(d, entries)
}

// showThing prints what d tells, and the first of the entries in it.
func (a *app) showThing(d thing, entries []cas.Entry) error {
	var b strings.Builder
	line := func(k, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", k, visible(fmt.Sprintf(format, args...)))
	}
	name := d.Ref
	if len(d.Tags) > 0 {
		name += " (" + strings.Join(d.Tags, ", ") + ")"
	}
	line("name", "%s", name)
	line("kind", "%s", d.Kind)
	if d.Path != "" {
		line("path", "%s", d.Path)
	}
	if d.Target != "" {
		line("target", "%s", d.Target)
	}
	if !d.Digest.IsZero() {
		line("digest", "%s", d.Digest)
	}
	if !d.Tree.IsZero() && d.Tree != d.Digest {
		line("tree", "%s", d.Tree)
	}
	if d.File != "" {
		line("file", "%s", d.File)
	}
	if d.Kind != "symlink" {
		text := contents(d.Bytes, d.Files)
		if d.LocalBytes < d.Bytes {
			text += fmt.Sprintf(", %s of it here", size(d.LocalBytes))
		}
		line("size", "%s", text)
	}
	if d.MadeBy != "" {
		line("made by", "%s", d.MadeBy)
	}
	if d.By != "" {
		line("published", "by %s", d.By)
	}
	if d.Time != nil && !d.Time.IsZero() {
		line("made", "%s, %s", d.Time.Local().Format(time.DateTime), age(*d.Time))
	}
	if d.Run != nil {
		showRun(line, *d.Run)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Meta)) {
		line("meta", "%s=%s", k, d.Meta[k])
	}
	if !a.quiet {
		listEntries(&b, entries)
	}
	return a.write(b.String())
}

// showRun prints what a run's ref tells of it.
func showRun(line func(k, format string, args ...any), r stages.Run) {
	line("stage", "%s of project %s", r.Stage, r.Project)
	line("key", "%s", r.Key)
	status := string(r.Status)
	if r.Exit != 0 {
		status += fmt.Sprintf(", exit status %d", r.Exit)
	}
	line("status", "%s", status)
	if r.Attempt > 1 {
		line("attempt", "%d", r.Attempt)
	}
	if !r.Ended.IsZero() {
		line("took", "%s", span(r.Ended.Sub(r.Started)))
	}
	if len(r.Params) > 0 {
		line("params", "%s", pairs(r.Params))
	}
	if len(r.Outputs) > 0 {
		line("outputs", "%s", strings.Join(r.Outputs, " "))
	}
	if len(r.Work) > 0 {
		line("work", "%s", strings.Join(r.Work, " "))
	}
	for _, d := range r.Differs {
		line("differs", "from %s of %s on remote %s, which has the same key and other outputs: the stage does not always make the same", d.Run, d.By, d.Remote)
	}
}

// pairs words a map as sorted k=v.
func pairs(m map[string]string) string {
	var ws []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		ws = append(ws, k+"="+m[k])
	}
	return strings.Join(ws, " ")
}

// listEntries prints the first names in a directory.
func listEntries(b *strings.Builder, entries []cas.Entry) {
	for i, e := range entries {
		if i == showEntries {
			fmt.Fprintf(b, "  … and %d more\n", len(entries)-i)
			break
		}
		switch e.Kind {
		case cas.KindDir:
			fmt.Fprintf(b, "  %9s  %s/\n", size(e.Size), visible(e.Name))
		case cas.KindSymlink:
			fmt.Fprintf(b, "  %9s  %s -> %s\n", "", visible(e.Name), visible(e.Target))
		default:
			fmt.Fprintf(b, "  %9s  %s\n", size(e.Size), visible(e.Name))
		}
	}
}
