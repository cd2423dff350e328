package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

func newLineage(a *app) *cobra.Command {
	var down bool
	format := "text"
	c := &cobra.Command{
		Use:   "lineage REF",
		Short: "Show what a thing was made from",
		Long: `Show what a thing was made from, run by run, down to what was added by hand; or with
--down what was made from it.`,
		Example: `  curi lineage model
  curi lineage digits --down
  curi lineage evaluate.accuracy --format dot | dot -Tsvg > lineage.svg
  curi lineage model --json`,
		Args:              nargs(1, 1, "one REF"),
		ValidArgsFunction: a.completeRefs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(lineageFormats, format) {
				return usagef("curi lineage --format %s: want %s", format, strings.Join(lineageFormats, ", "))
			}
			if a.json {
				format = "json"
			}
			return a.lineage(c.Context(), args[0], down, format)
		},
	}
	c.Flags().BoolVar(&down, "down", false, "what was made from it")
	c.Flags().StringVar(&format, "format", format, "`text`, dot (Graphviz) or json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(lineageFormats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

var lineageFormats = []string{"text", "dot", "json"}

func (a *app) lineage(ctx context.Context, ref string, down bool, format string) error {
	s, t, err := a.resolve(ctx, ref)
	if err != nil {
		return err
	}
	follow := stages.Ancestors
	if down {
		follow = stages.Descendants
	}
	g, err := follow(ctx, s, t)
	if err != nil {
		return err
	}
	switch format {
	case "json":
		return a.printJSON(g)
	case "dot":
		return a.write(dot(g))
	}
	var b strings.Builder
	writeLineage(&b, g, down)
	return a.write(b.String())
}

// writeLineage draws the graph as a tree; what was drawn before is only named again.
func writeLineage(b *strings.Builder, g *stages.Lineage, down bool) {
	drawn := map[string]bool{}
	var draw func(id, head, indent string)
	draw = func(id, head, indent string) {
		i := slices.IndexFunc(g.Nodes, func(n stages.LineageNode) bool { return n.ID == id })
		var below []stages.LineageEdge
		for _, e := range g.Edges {
			if down && e.From == id || !down && e.To == id {
				below = append(below, e)
			}
		}
		again := drawn[id] && len(below) > 0
		drawn[id] = true
		b.WriteString(head + wordNode(g.Nodes[i]))
		if again {
			b.WriteString("  (see above)\n")
			return
		}
		b.WriteString("\n")
		for j, e := range below {
			next := e.From
			if down {
				next = e.To
			}
			branch, deeper := "├─ ", "│  "
			if j == len(below)-1 {
				branch, deeper = "└─ ", "   "
			}
			label := ""
			if k := slices.IndexFunc(g.Nodes, func(n stages.LineageNode) bool { return n.ID == id }); (g.Nodes[k].Kind == "run") != down {
				label = e.As + " = "
			}
			draw(next, indent+branch+label, indent+deeper)
		}
	}
	draw(g.Nodes[0].ID, "", "")
}

// wordNode words a run or a thing in one line.
func wordNode(n stages.LineageNode) string {
	text := visible(n.Name)
	if n.Kind == "run" {
		text = "run " + n.Name
		if len(n.Params) > 0 {
			text += "  " + visible(pairs(n.Params))
		}
		return text + "  " + n.Time.Local().Format("2006-01-02 15:04")
	}
	names := slices.DeleteFunc(slices.Clone(n.Names), func(s string) bool { return s == n.Name })
	if len(names) > 0 {
		text += "  (" + strings.Join(names, ", ") + ")"
	}
	if n.Kind != "tree" {
		text += "  " + n.Tree.Short()
	}
	return text
}

// dot words the graph for Graphviz.
func dot(g *stages.Lineage) string {
	var b strings.Builder
	b.WriteString("digraph lineage {\n  rankdir=LR;\n")
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	for _, n := range g.Nodes {
		shape, label := "ellipse", n.Name
		if n.Kind == "run" {
			shape = "box"
			if len(n.Params) > 0 {
				label += "\n" + pairs(n.Params)
			}
		} else if n.Kind == "tree" {
			label = n.Tree.Short()
		}
		if len(n.Names) > 0 && n.Kind == "output" {
			label += "\n" + strings.Join(n.Names, ", ")
		}
		fmt.Fprintf(&b, "  %s [shape=%s, label=%s];\n", quote(n.ID), shape, strings.ReplaceAll(quote(label), "\n", `\n`))
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "  %s -> %s [label=%s];\n", quote(e.From), quote(e.To), quote(e.As))
	}
	b.WriteString("}\n")
	return b.String()
}
