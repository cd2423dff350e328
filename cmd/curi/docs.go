package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate sh -c "go run . docs > ../../docs/commands.md"

func newDocs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "docs",
		Short:  "Print docs/commands.md",
		Hidden: true,
		Args:   nargs(0, 0, "no argument"),
		RunE:   func(c *cobra.Command, _ []string) error { return a.write(commandsPage(c.Root())) },
	}
}

// commandsPage is docs/commands.md: every command and topic as --help tells it.
func commandsPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# Commands\n\nThis page is what `curi --help`, `curi COMMAND --help` and `curi help TOPIC` print.\nIt is generated: `go generate ./cmd/curi`.\n\n")
	b.WriteString(root.Long + "\n\n")
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "**%s** ", g.Title)
		var names []string
		for _, c := range documented(root) {
			if c.GroupID == g.ID {
				names = append(names, fmt.Sprintf("[%s](#curi-%s)", c.Name(), c.Name()))
			}
		}
		b.WriteString(strings.Join(names, ", ") + "\n\n")
	}
	var links []string
	for _, t := range topicList {
		links = append(links, fmt.Sprintf("[%s](#%s)", strings.ToLower(t.short), anchor(t.short)))
	}
	b.WriteString("**Also:** " + strings.Join(links, ", ") + "\n\n")
	for _, t := range topicList {
		fmt.Fprintf(&b, "## %s\n\n%s\n", t.short, t.text)
	}
	b.WriteString("## Options of every command\n\n")
	writeFlags(&b, root.PersistentFlags())
	for _, c := range documented(root) {
		writeCommand(&b, c)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// documented lists the commands below c that a page has room for: no topics,
// nothing hidden.
func documented(c *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, sub := range c.Commands() {
		if sub.Runnable() && !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			list = append(list, sub)
		}
	}
	return list
}

func writeCommand(b *strings.Builder, c *cobra.Command) {
	fmt.Fprintf(b, "## %s\n\n", c.CommandPath())
	subs := documented(c)
	if len(subs) == 0 {
		fmt.Fprintf(b, "    %s\n\n", strings.TrimSuffix(c.UseLine(), " [flags]"))
	}
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	b.WriteString(strings.TrimRight(text, "\n") + "\n\n")
	if c.Example != "" && len(subs) == 0 {
		b.WriteString("```sh\n")
		for _, l := range strings.Split(c.Example, "\n") {
			b.WriteString(strings.TrimPrefix(l, "  ") + "\n")
		}
		b.WriteString("```\n\n")
	}
	writeFlags(b, c.LocalNonPersistentFlags())
	for _, s := range subs {
		writeCommand(b, s)
	}
}

func writeFlags(b *strings.Builder, f *pflag.FlagSet) {
	var rows []string
	f.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" && f.Value.Type() != "bool" {
			name += " " + value
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", name, strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;").Replace(usage)))
	})
	if len(rows) > 0 {
		b.WriteString("| option | meaning |\n|---|---|\n" + strings.Join(rows, "") + "\n")
	}
}

// anchor is the address that renderers of Markdown give a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(heading)), " ", "-")
}
