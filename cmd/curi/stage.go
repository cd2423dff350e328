package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

func newStage(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "stage",
		Short: "Run commands as stages: recorded, cached, resumable",
		Long: `Run a command as a stage: "curi stage exec" runs it or takes its cached result, and
"curi stage explain" tells which and why. What a project runs again and again stands
in its curi.yaml, and is run by name ("curi init" writes one).`,
		Example: `  curi stage exec --name train --in data=digits --out model=model.ckpt -- python train.py '{in.data}' '{out.model}'
  curi stage exec train --set small-lr`,
		RunE: group,
		Args: subcommand,
	}
	c.AddCommand(newExec(a), newExplain(a), newStageList(a), newStageStatus(a), newStageCheck(a), newStageGraph(a), newStageSchema(a))
	return c
}

// stageOptions are the options that declare a stage: what its key depends on,
// and how its outputs are named.
type stageOptions struct {
	push                          string
	prefetch                      []string
	offline                       bool
	runs                          bool // it is for exec
	name                          string
	in, inRw                      []string
	out, optionalOut, outFrom     []string
	work, meta, publish           []string
	param, opParam                []string
	code, tool, env               []string
	cleanEnv, shell               bool
	stdin                         string
	timeoutText, graceText        string
	snapshotText                  string
	force, fresh, noMount, dryRun bool
	accept, message               string
	resumeFrom                    string
	retries                       int
	launcher                      string
	slurm                         []string
	detach                        bool
	perNode                       bool
	rdzvID                        string
	places                        string

	// Of stages of curi.yaml, by name.
	sets           []string
	all, keepGoing bool
	jobs           int
}

// declare adds the options that make the stage's key.
func (o *stageOptions) declare(a *app, c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	f := c.Flags()
	f.SortFlags = false // as a stage is thought of
	list := func(p *[]string, name, usage string) { f.StringArrayVar(p, name, nil, usage) }
	f.StringVar(&o.name, "name", "", "the stage's `NAME`")
	list(&o.in, "in", "an input, `N=REF`, read-only; {in.N} is its path")
	list(&o.inRw, "in-rw", "a private writable copy of an input, `N=REF`; changes are thrown away")
	list(&o.out, "out", "an output, `N=FILE` or N=DIR/; {out.N} is its path")
	list(&o.optionalOut, "optional-out", "an output that may be missing, `N=FILE` or N=DIR/")
	list(&o.outFrom, "out-from", "an output that the program insists on writing to a path of its own, `N=PATH`")
	list(&o.work, "work", "a directory `N` for checkpoints, kept for the next try; {work.N} is its path")
	list(&o.meta, "meta", "metadata of an output, `OUT:k=v`")
	list(&o.publish, "publish", "make an output the next version of an artifact, `OUT=NAME`")
	f.StringArrayVarP(&o.param, "param", "p", nil, "a parameter, `k=v` or k:TYPE=v; {param.k} is its value")
	list(&o.opParam, "op-param", "a parameter that is recorded but not keyed, `k=v`")
	list(&o.code, "code", "key the files of the project that `GLOB` matches; ** is recursive")
	list(&o.tool, "tool", "key what a shell command prints, `CMD`, such as 'gcc --version'")
	list(&o.env, "env", "a variable that is keyed, `VAR` or VAR=VALUE")
	f.BoolVar(&o.cleanEnv, "clean-env", false, "hand over only the named variables and those that every program needs")
	f.StringVar(&o.stdin, "stdin", "", "what the command reads, a `REF` or - for the caller's; keyed (default: /dev/null)")
	f.BoolVar(&o.shell, "shell", false, "the command is one argument for sh -c")
	f.StringVar(&o.resumeFrom, "resume-from", "", "begin with a copy of the work directories of `RUN`, whatever its key; keyed")
	for name, complete := range map[string]completer{
		"name": a.completeStages, "in": a.completeInputs, "in-rw": a.completeInputs, "publish": a.completePublish,
		"out": cobra.NoFileCompletions, "optional-out": cobra.NoFileCompletions, "work": cobra.NoFileCompletions,
		"meta": cobra.NoFileCompletions, "param": cobra.NoFileCompletions, "op-param": cobra.NoFileCompletions,
		"resume-from": a.completeRuns,
		"env":         completeEnv, "tool": cobra.NoFileCompletions,
		"stdin": func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return a.refs(word), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		},
	} {
		_ = c.RegisterFlagCompletionFunc(name, complete)
	}
}

// declareRun adds the options that say how the command runs.
func (o *stageOptions) declareRun(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.timeoutText, "timeout", "", "end the command after a time `D`, such as 90s, 2h or 1d")
	f.StringVar(&o.graceText, "grace", "", "how long `D` it may take to end before it is killed (default 40s)")
	f.IntVar(&o.retries, "retries", 0, "start a command that fails again, up to `N` times, with what it left")
	f.BoolVar(&o.force, "force", false, "run although cached; replaces the result")
	f.StringVar(&o.snapshotText, "snapshot", "", "when a checkpoint is complete, and `D` after the last time at least, keep a copy of the work directories in the store")
	f.BoolVar(&o.fresh, "fresh", false, "start with empty work directories")
	f.BoolVar(&o.noMount, "no-mount", false, "work on reflinks or copies instead of a mount")
	f.BoolVar(&o.dryRun, "dry-run", false, "only tell: hit or miss, the key, the exact command")
	f.StringArrayVar(&o.prefetch, "prefetch", nil, "bring inputs that lie on a remote whole before the command starts, all or the one called `N`")
	f.Lookup("prefetch").NoOptDefVal = prefetchAll
	f.StringVar(&o.push, "push", pushNow, "when the result goes to remotes to which results are published: `WHEN` is now, later or required")
	f.BoolVar(&o.offline, "offline", false, "ask no remote; what is to be published is owed")
	_ = c.RegisterFlagCompletionFunc("push", cobra.FixedCompletions([]string{pushNow, pushLater, pushRequired}, cobra.ShellCompDirectiveNoFileComp))
}

// prefetchAll is the value of --prefetch alone.
const prefetchAll = "*"

// checkPrefetch returns which inputs are to be brought.
func (o *stageOptions) checkPrefetch(p *stages.Plan) (func(string) bool, error) {
	var names []string
	for _, in := range p.In {
		names = append(names, in.Name)
	}
	for _, n := range o.prefetch {
		if n != prefetchAll && !slices.Contains(names, n) {
			return nil, usagef("--prefetch=%s: the stage has no input of that name%s", n, didYouMean(n, names))
		}
	}
	return func(n string) bool { return slices.Contains(o.prefetch, prefetchAll) || slices.Contains(o.prefetch, n) }, nil
}

// afterDash is the Args of a command that takes a stage's command after --.
func afterDash(c *cobra.Command, args []string) error {
	dash := c.ArgsLenAtDash()
	if o := optionBeforeDash(c); dash < 0 && o != "" {
		return usagef("%s: option --%s wants a value before --; see %s --help", c.CommandPath(), o, c.CommandPath())
	}
	switch {
	case dash < 0 && len(args) > 0:
		return usagef("%s: put -- before the command: %s [OPTIONS] -- %s", c.CommandPath(), c.CommandPath(), strings.Join(args, " "))
	case dash > 0:
		return usagef("%s: %q stands before --; only options do, the command comes after it", c.CommandPath(), args[0])
	case len(args) == 0:
		return usagef("%s wants a stage of %s, or a command after --, such as: %s --name train -- python train.py", c.CommandPath(), stages.FileName, c.CommandPath())
	}
	return nil
}

// optionBeforeDash finds an option that took -- for its value.
func optionBeforeDash(c *cobra.Command) (name string) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok && slices.Contains(list.GetSlice(), "--") || f.Value.String() == "--" {
			name = f.Name
		}
	})
	return name
}

// bind looks up everything that the stage's key depends on.
func (a *app) bind(ctx context.Context, o *stageOptions, command []string) (*cas.Store, *stages.Plan, error) {
	st, err := o.stage(a, command)
	if err != nil {
		return nil, nil, err
	}
	if st.Stdin == "-" {
		in, clear := a.metered(a.stdin(ctx), "reading standard input")
		defer clear()
		st.StdinReader = in
	}
	s, err := a.store(ctx)
	if err != nil {
		return nil, nil, err
	}
	p, err := a.project()
	if err != nil {
		return nil, nil, err
	}
	if o.offline {
		a.reader.Offline()
	}
	st.Elsewhere = func(ctx context.Context, ref string) (stages.Target, func(), error) {
		return a.adopt(ctx, s, ref, o.runs && !o.dryRun)
	}
	plan, err := stages.Bind(ctx, s, p, st)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range plan.Warnings {
		a.say("warning: %s", w)
	}
	return s, plan, nil
}

// duration parses an option that is a duration, else takes the setting.
func (a *app) duration(c *cobra.Command, option, text, setting string) (time.Duration, error) {
	if c.Flags().Lookup(option) == nil || !c.Flags().Changed(option) {
		cfg, err := a.config()
		if err != nil {
			return 0, err
		}
		return cfg.duration(setting), nil
	}
	d, err := parseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("it must be more than 0")
	}
	if err != nil {
		return 0, usagef("--%s %s: %v", option, text, err)
	}
	return d, nil
}

func (a *app) completePublish(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	out, name, ok := strings.Cut(word, "=")
	if !ok {
		return nil, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	list, d := a.completeArtifacts(c, args, name)
	for i := range list {
		list[i] = out + "=" + list[i]
	}
	return list, d
}

func completeEnv(_ *cobra.Command, _ []string, word string) (list []string, _ cobra.ShellCompDirective) {
	for _, e := range os.Environ() {
		if n, _, _ := strings.Cut(e, "="); strings.HasPrefix(n, word) {
			list = append(list, n)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
