package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The groups of commands in `curi --help`.
const (
	groupArtifacts = "artifacts"
	groupStages    = "stages"
	groupMounts    = "mounts"
	groupRemotes   = "remotes"
	groupStore     = "store"
)

// newRoot builds the command tree.
func newRoot(a *app) *cobra.Command {
	cobra.EnableCommandSorting = false // the order below is the one to read
	root := &cobra.Command{
		Use:   "curi",
		Short: "A content-addressed artifact store that you use through a mounted filesystem",
		Long: `Curi keeps data sets, models and every other artifact of your experiments in a
content-addressed store, shows them as plain files, and runs trainers as stages
whose results are recorded and cached.`,
		Example: `  curi add ./digits --name digits
  curi stage exec --name train --in data=digits --out model=model.ckpt \
      -- python train.py --data '{in.data}' --out '{out.model}'
  curi path train.model`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		RunE:          group,
		Args:          subcommand,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			a.started = true
			if o := emptyOption(c); o != "" {
				return usagef("--%s: the value is empty; give one, or leave the option out", o)
			}
			if cfg, err := a.config(); err == nil && !a.quiet && !a.verbose {
				// An error of the configuration is for the commands that need it.
				a.quiet, a.verbose = cfg.bool("quiet"), cfg.bool("verbose")
			}
			return exclusive(c, "quiet", "verbose")
		},
	}
	root.SetHelpCommand(newHelp(a))
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetIn(a.in)
	root.SetVersionTemplate("curi {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.storeFlag, "store", "", "the store's `DIR` (default: $CURI_STORE, the configuration, $XDG_DATA_HOME/curi)")
	f.BoolVar(&a.json, "json", false, "print one JSON value on stdout")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "say less; tables shrink to their first column")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more")
	_ = root.RegisterFlagCompletionFunc("store", completeDirs)
	root.AddGroup(
		&cobra.Group{ID: groupArtifacts, Title: "Artifacts:"},
		&cobra.Group{ID: groupStages, Title: "Stages and runs:"},
		&cobra.Group{ID: groupMounts, Title: "Mounts:"},
		&cobra.Group{ID: groupRemotes, Title: "Remotes:"},
		&cobra.Group{ID: groupStore, Title: "Store:"},
	)
	add := func(group string, cs ...*cobra.Command) {
		for _, c := range cs {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupArtifacts, newAdd(a), newLs(a), newShow(a), newCat(a), newPath(a), newCheckout(a), newDiff(a), newTag(a), newMeta(a), newRm(a))
	add(groupStages, newInit(a), newStage(a), newLog(a), newMetrics(a), newLineage(a), newShell(a), newAttach(a), newCancel(a))
	add(groupMounts, newMount(a), newUmount(a))
	add(groupRemotes, newRemote(a), newPush(a), newPull(a))
	add(groupStore, newStore(a), newStatus(a), newDu(a), newGc(a), newFsck(a), newConfig(a))
	root.AddCommand(newVersion(a), newDocs(a), newJob(a))
	root.AddCommand(topics()...)
	addCompletion(root)
	return root
}

// emptyOption finds an option whose value is empty: an unset variable of a
// script must not lead to another store, run what was to be accepted, or take
// all for some.
func emptyOption(c *cobra.Command) (name string) {
	c.Flags().Visit(func(f *pflag.Flag) {
		switch v := f.Value.(type) {
		case pflag.SliceValue: // most lists say better what belongs there
			if l := v.GetSlice(); len(l) == 0 || f.Name == "exclude" && slices.Contains(l, "") {
				name = f.Name
			}
		default:
			if v.Type() == "string" && v.String() == "" && f.Name != "name" {
				name = f.Name
			}
		}
	})
	return name
}

// addCompletion adds cobra's command for completion, which by itself takes
// any word for a shell.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Short = "Print the script that completes commands, names, runs and stages in a shell"
		c.Long = c.Short + "."
		c.Example = "  source <(curi completion bash)   # in ~/.bashrc; needs the package bash-completion"
		c.Args, c.RunE = subcommand, group
		for _, shell := range c.Commands() {
			shell.Example = "  curi completion " + shell.Name()
		}
	}
}

// group is the RunE of a command that only has others below it.
func group(c *cobra.Command, _ []string) error { return c.Help() }

// subcommand is the Args of such a command: whatever is left over is a
// mistyped subcommand.
func subcommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownCommand(c, args[0])
}

func unknownCommand(c *cobra.Command, name string) error {
	var names []string
	for _, sub := range c.Commands() {
		for _, below := range sub.Commands() {
			if below.Name() == name {
				return usagef("unknown command %q; did you mean %s?", c.CommandPath()+" "+name, below.CommandPath())
			}
		}
		if !sub.Hidden && sub.Runnable() {
			names = append(names, sub.Name())
		}
	}
	if n := nearest(name, names); n != "" {
		return usagef("unknown command %q; did you mean %s?", c.CommandPath()+" "+name, c.CommandPath()+" "+n)
	}
	c.SuggestionsMinimumDistance = 2
	if s := c.SuggestionsFor(name); len(s) > 0 {
		return usagef("unknown command %q; did you mean %s?", c.CommandPath()+" "+name, c.CommandPath()+" "+s[0])
	}
	return usagef("unknown command %q; %s --help lists them", c.CommandPath()+" "+name, c.CommandPath())
}

// exclusive refuses options that contradict each other.
func exclusive(c *cobra.Command, options ...string) error {
	var set []string
	for _, o := range options {
		if c.Flags().Changed(o) {
			set = append(set, "--"+o)
		}
	}
	if len(set) > 1 {
		return usagef("%s: %s contradict each other; give one of them", c.CommandPath(), strings.Join(set, " and "))
	}
	return nil
}

// newHelp is `curi help`, which unlike cobra's fails on what it does not know.
func newHelp(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND | TOPIC]",
		Short:   "Help about a command or a topic",
		Example: "  curi help stage exec\n  curi help ref",
		ValidArgsFunction: func(c *cobra.Command, args []string, word string) (list []string, _ cobra.ShellCompDirective) {
			if at, _, err := c.Root().Find(args); err == nil {
				for _, sub := range at.Commands() {
					if !sub.Hidden && strings.HasPrefix(sub.Name(), word) {
						list = append(list, sub.Name()+"\t"+sub.Short)
					}
				}
			}
			return list, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			at := c.Root()
			for _, word := range args {
				next := at
				for _, sub := range at.Commands() {
					if sub.Name() == word || sub.HasAlias(word) {
						next = sub
					}
				}
				if next == at {
					return unknownCommand(at, word)
				}
				at = next
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}

// nargs is the Args of a command that takes from min to max arguments (max
// below 0: any number), called want in the error.
func nargs(min, max int, want string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usagef("%s wants %s; see %s --help", c.CommandPath(), want, c.CommandPath())
		case max >= 0 && len(args) > max:
			return usagef("%s wants %s, and %q is one argument too many; see %s --help", c.CommandPath(), want, args[max], c.CommandPath())
		}
		return nil
	}
}

// flagError words what pflag says about an option as one line with a way out.
func flagError(c *cobra.Command, err error) error {
	if c.HasSubCommands() && c.Flags().NArg() > 0 {
		return unknownCommand(c, c.Flags().Arg(0)) // curi exec --name …
	}
	see := "see " + c.CommandPath() + " --help"
	if c.Name() == "exec" {
		see = "the stage's own command comes after --; " + see
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		if s := nearestFlag(c, name); s != "" {
			return usagef("%s has no option %s; did you mean --%s?", c.CommandPath(), dashed(name), s)
		}
		return usagef("%s has no option %s; %s", c.CommandPath(), dashed(name), see)
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		return usagef("%s: option %s wants a value; %s", c.CommandPath(), dashed(missing.GetSpecifiedName()), see)
	}
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		want := "it wants a " + bad.GetFlag().Value.Type()
		if bad.GetFlag().Value.Type() == "int" {
			want = "it wants a whole number"
		}
		return usagef("%s --%s %q: %s; %s", c.CommandPath(), bad.GetFlag().Name, bad.GetValue(), want, see)
	}
	return usagef("%s: %v; %s", c.CommandPath(), err, see)
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// nearestFlag finds the option of c that was probably meant.
func nearestFlag(c *cobra.Command, name string) string {
	best, dist := "", 3
	look := func(f *pflag.Flag) {
		if f.Hidden || len(name) < 2 {
			return
		}
		d := editDistance(name, f.Name)
		if strings.HasPrefix(f.Name, name) {
			d = 1
		}
		if d < dist && d < len(name) {
			best, dist = f.Name, d
		}
	}
	c.Flags().VisitAll(look)
	c.InheritedFlags().VisitAll(look)
	return best
}

// editDistance counts the letters to insert, remove, replace or swap with
// their neighbour that lead from a to b.
func editDistance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// nearest finds the word of a list that was probably meant by a mistyped one.
func nearest(word string, list []string) string {
	best, dist := "", 3
	for _, w := range list {
		if d := editDistance(word, w); d < dist && d < len(word) {
			best, dist = w, d
		}
	}
	return best
}

// didYouMean is the end of an error that names the nearest word, or "".
func didYouMean(word string, list []string) string {
	if n := nearest(word, list); n != "" {
		return fmt.Sprintf("; did you mean %s?", n)
	}
	return ""
}
