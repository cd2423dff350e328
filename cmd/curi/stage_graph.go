package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/stages"
)

func newStageGraph(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "graph [STAGE…]",
		Short: "Draw the stages of curi.yaml and what they need",
		Long: `Draw the stages of the project's curi.yaml: as a tree of what each needs, for
Graphviz (dot), or as a picture (svg). With a STAGE, only it and what it needs.`,
		Example: `  curi stage graph
  curi stage graph --format svg > stages.svg
  curi stage graph train --format dot | dot -Tpdf > train.pdf`,
		ValidArgsFunction: a.completeNamed,
		RunE: func(c *cobra.Command, args []string) error {
			f, _, err := a.file()
			if err != nil {
				return err
			}
			g, err := f.Outline(args)
			if err != nil {
				return err
			}
			if a.json {
				format = "json"
			}
			switch format {
			case "text":
				return a.write(outlineText(g))
			case "dot":
				return a.write(outlineDot(g))
			case "svg":
				return a.write(outlineSVG(g))
			case "json":
				return a.printJSON(g)
			}
			return usagef("curi stage graph --format %s: want text, dot, svg or json", format)
		},
	}
	c.Flags().StringVar(&format, "format", "text", "`FORMAT` is text, dot, svg or json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "dot", "svg", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// outlineText draws a tree below each stage that no other needs.
func outlineText(g *stages.Outline) string {
	var b strings.Builder
	drawn := map[string]bool{}
	var draw func(id, label, indent, deeper string)
	draw = func(id, label, indent, deeper string) {
		var below []stages.OutlineEdge
		for _, e := range g.Edges {
			if e.To == id {
				below = append(below, e)
			}
		}
		b.WriteString(indent + label + g.Name(id))
		if drawn[id] && len(below) > 0 {
			b.WriteString("  (see above)\n")
			return
		}
		drawn[id] = true
		b.WriteString("\n")
		for i, e := range below {
			branch, next := "├─ ", "│  "
			if i == len(below)-1 {
				branch, next = "└─ ", "   "
			}
			draw(e.From, e.As+" = ", deeper+branch, deeper+next)
		}
	}
	for _, n := range g.Nodes {
		if !slices.ContainsFunc(g.Edges, func(e stages.OutlineEdge) bool { return e.From == n.ID }) {
			draw(n.ID, "", "", "")
		}
	}
	return b.String()
}

func outlineDot(g *stages.Outline) string {
	var b strings.Builder
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	b.WriteString("digraph stages {\n  rankdir=LR;\n")
	for _, n := range g.Nodes {
		shape := "box"
		if n.Kind != "stage" {
			shape = "ellipse"
		}
		label := n.Name
		if n.Aggregate != "" {
			label += "\n(all sets)"
		}
		fmt.Fprintf(&b, "  %s [shape=%s, label=%s];\n", quote(n.ID), shape, strings.ReplaceAll(quote(label), "\n", `\n`))
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "  %s -> %s [label=%s];\n", quote(e.From), quote(e.To), quote(e.As))
	}
	b.WriteString("}\n")
	return b.String()
}
