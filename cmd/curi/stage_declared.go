package main

import (
	"os"
	"path"
	"strings"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// stage builds what the options declare.
func (o *stageOptions) stage(a *app, command []string) (stages.Stage, error) {
	st := stages.Stage{
		Name: o.name, Command: command, Shell: o.shell, Work: o.work, Code: o.code, Tools: o.tool,
		CleanEnv: o.cleanEnv, Stdin: o.stdin, Environ: os.Environ(), ResumeFrom: o.resumeFrom,
	}
	if o.name == "" {
		return st, usagef("curi stage wants a name for the stage: --name NAME, such as --name train")
	}
	var err error
	if st.Dir, err = currentDir(); err != nil {
		return st, err
	}
	for _, f := range []func(*stages.Stage) error{o.inputs, o.outputs, o.describeOutputs, o.params, o.environment} {
		if err := f(&st); err != nil {
			return st, err
		}
	}
	return st, nil
}

func (o *stageOptions) inputs(st *stages.Stage) error {
	for _, l := range []struct {
		option string
		texts  []string
		rw     bool
	}{{"--in", o.in, false}, {"--in-rw", o.inRw, true}} {
		for _, t := range l.texts {
			n, ref, err := parsePair(l.option, t, l.option+" N=REF, such as "+l.option+" data=digits")
			if err != nil {
				return err
			}
			st.Inputs = append(st.Inputs, stages.Input{Name: n, Ref: ref, Writable: l.rw})
		}
	}
	return nil
}

func (o *stageOptions) outputs(st *stages.Stage) error {
	for _, l := range []struct {
		option   string
		texts    []string
		optional bool
	}{{"--out", o.out, false}, {"--optional-out", o.optionalOut, true}} {
		for _, t := range l.texts {
			n, file, err := parsePair(l.option, t, l.option+" N=FILE or N=DIR/, such as "+l.option+" model=model.ckpt")
			if err != nil {
				return err
			}
			dir := strings.HasSuffix(file, "/")
			if file == "" {
				return usagef("%s %q: the file is empty; the right form is %s %s=FILE, or %s=DIR/ for a directory", l.option, t, l.option, n, n)
			}
			st.Outputs = append(st.Outputs, stages.Output{Name: n, Path: trimSlash(file), Dir: dir, Optional: l.optional})
		}
	}
	for _, t := range o.outFrom {
		n, from, err := parsePair("--out-from", t, "--out-from N=PATH, such as --out-from logs=lightning_logs/")
		if err != nil {
			return err
		}
		if from == "" {
			return usagef("--out-from %q: the path is empty; the right form is --out-from %s=PATH", t, n)
		}
		dir := strings.HasSuffix(from, "/")
		from = trimSlash(from)
		if out := findOutput(st, n); out != nil {
			if out.From != "" {
				return usagef("--out-from %s is given twice", n)
			}
			out.From = from
			continue
		}
		base := path.Base(from)
		if base == "." || base == ".." || base == "/" {
			return usagef("--out-from %q: %s has no name of its own to give the output; say --out %s=DIR/ too", t, from, n)
		}
		st.Outputs = append(st.Outputs, stages.Output{Name: n, Path: base, Dir: dir, From: from})
	}
	return nil
}

// trimSlash takes final slashes off, but never the root's.
func trimSlash(p string) string {
	if t := strings.TrimRight(p, "/"); t != "" {
		return t
	}
	return p
}

func findOutput(st *stages.Stage, name string) *stages.Output {
	for i := range st.Outputs {
		if st.Outputs[i].Name == name {
			return &st.Outputs[i]
		}
	}
	return nil
}

// describeOutputs adds metadata and names to outputs that are declared.
func (o *stageOptions) describeOutputs(st *stages.Stage) error {
	var names []string
	for _, out := range st.Outputs {
		names = append(names, out.Name)
	}
	find := func(option, text, n string) (*stages.Output, error) {
		if out := findOutput(st, n); out != nil {
			return out, nil
		}
		return nil, usagef("%s %s: the stage has no output %q%s; declare it with --out %s=FILE", option, text, n, didYouMean(n, names), n)
	}
	for _, t := range o.meta {
		form := "--meta OUT:KEY=VALUE, such as --meta model:type=DigitsNet"
		n, pair, ok := strings.Cut(t, ":")
		if !ok || n == "" {
			return usagef("--meta %q: the right form is %s", t, form)
		}
		k, v, err := parsePair("--meta", pair, form)
		if k = metaKey(k); err != nil || k == "" {
			return usagef("--meta %q: the right form is %s", t, form)
		}
		out, err := find("--meta", t, n)
		if err != nil {
			return err
		}
		if out.Meta == nil {
			out.Meta = map[string]string{}
		}
		if _, twice := out.Meta[k]; twice {
			return usagef("--meta %s:%s is given twice", n, k)
		}
		out.Meta[k] = v
	}
	for _, t := range o.publish {
		n, name, err := parsePair("--publish", t, "--publish OUT=NAME, such as --publish model=digits-model")
		if err != nil {
			return err
		}
		out, err := find("--publish", t, n)
		if err != nil {
			return err
		}
		if err := cas.CheckName(name); err != nil {
			return usagef("--publish %s: %v", t, err)
		}
		out.Publish = append(out.Publish, name)
	}
	return nil
}

func (o *stageOptions) params(st *stages.Stage) error {
	for _, l := range []struct {
		option string
		texts  []string
		op     bool
	}{{"--param", o.param, false}, {"--op-param", o.opParam, true}} {
		for _, t := range l.texts {
			p, err := stages.ParseParam(t, l.op)
			if err != nil {
				return usagef("%s: %v", l.option, err)
			}
			st.Params = append(st.Params, p)
		}
	}
	return nil
}

func (o *stageOptions) environment(st *stages.Stage) error {
	for _, t := range o.env {
		n, v, given := strings.Cut(t, "=")
		if n == "" {
			return usagef("--env %q: the right form is --env VAR or --env VAR=VALUE", t)
		}
		e := stages.EnvVar{Name: n}
		if given {
			e.Value = &v
		}
		st.Env = append(st.Env, e)
	}
	return nil
}
