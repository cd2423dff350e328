package stages

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// check finds what is wrong between the parts of a file that could be read.
func (f *File) check(r *fileReader) {
	for _, st := range f.Stages {
		if st.broken {
			continue
		}
		before := len(r.problems)
		f.checkCommand(r, st)
		f.checkInputs(r, st)
		f.checkAggregate(r, st)
		if len(r.problems) == before && !st.ViaEnv {
			checkNamed(r, st)
		}
		if len(r.problems) == before {
			p := &Plan{Stage: st.Stage}
			p.Dir = "/"
			if err := p.check(); err != nil {
				r.problem(st.at[""], "stage %s: %v", st.Name, err)
			}
		}
	}
	f.checkFroms(r)
	f.checkPublished(r)
	f.checkCycles(r)
	f.checkSets(r)
	if len(r.problems) == 0 {
		f.checkResources(r)
	}
}

// checkCommand checks the placeholders of a command.
func (f *File) checkCommand(r *fileReader, st *FileStage) {
	names := st.declared()
	for i, element := range st.Command {
		n := st.at[fmt.Sprint("run.", i)]
		segs, err := parseElement(element)
		if err != nil {
			r.problem(n, "stage %s: %v", st.Name, err)
			continue
		}
		for _, s := range segs {
			kind := s.kind
			if kind == "meta" {
				kind = "in"
			}
			if have, ok := names[kind]; ok && !slices.Contains(have, s.name) {
				r.problem(n, "stage %s: placeholder %s: the stage has no %s %s%s", st.Name, s.text, placeholderNoun[s.kind], s.name, suggest(s.name, have, "{"+s.kind+".%s}"))
				continue
			}
			p := &Plan{Stage: st.Stage}
			if s.kind == "secret" {
				if err := p.checkSecret(s); err != nil {
					r.problem(n, "stage %s: %s", st.Name, strings.ReplaceAll(err.Error(), "--env", "env:"))
				}
			}
			if q, ok := p.param(s.name); ok && s.kind == "param" && q.Type == "list" && !s.json && (len(segs) > 1 || st.Shell) {
				r.problem(n, "stage %s: %q: the list %s is only part of an element here: write {param.%s:json}, or let it stand alone", st.Name, element, s.text, s.name)
			}
		}
	}
}

// declared lists what placeholders can name, by their kind.
func (st *FileStage) declared() map[string][]string {
	names := map[string][]string{"in": nil, "out": nil, "work": st.Work, "param": nil}
	for _, in := range st.Inputs {
		names["in"] = append(names["in"], in.Name)
	}
	for _, o := range st.Outputs {
		names["out"] = append(names["out"], o.Name)
	}
	for _, q := range st.Params {
		names["param"] = append(names["param"], q.Name)
	}
	return names
}

// checkNamed reports what a command does not name: most likely it was
// forgotten there, and the program would not see it.
func checkNamed(r *fileReader, st *FileStage) {
	named := map[string]bool{}
	note := func(text string) {
		segs, _ := parseElement(text)
		for _, s := range segs {
			kind := s.kind
			if kind == "meta" {
				kind = "in"
			}
			named[kind+"."+s.name] = true
		}
	}
	for _, element := range st.Command {
		note(element)
	}
	for _, in := range st.Inputs {
		note(in.Ref)
	}
	note(st.Stdin)
	for _, n := range st.Resources {
		note(n)
	}
	if st.Launcher != nil {
		for _, n := range st.Launcher.Options {
			note(n)
		}
	}
	text := strings.Join(st.Command, "\n")
	report := func(kind, name, noun string) {
		v := EnvironmentName(strings.ToUpper(kind), name)
		if named[kind+"."+name] || strings.Contains(text, v) || kind == "param" && strings.Contains(text, "CURI_PARAMS") || kind != "param" && named["root."] {
			return
		}
		r.problem(st.at[kind+"."+name], "stage %s: the command does not name %s %s: write {%s.%s} in it, or via: env if the program reads %s", st.Name, noun, name, kind, name, v)
	}
	for kind, names := range st.declared() {
		for _, name := range names {
			if kind == "out" && st.output(name).From != "" {
				continue // the program insists on a path
			}
			report(kind, name, placeholderNoun[kind])
		}
	}
}

func (st *FileStage) output(name string) *Output {
	for i := range st.Outputs {
		if st.Outputs[i].Name == name {
			return &st.Outputs[i]
		}
	}
	return nil
}

// An upstream is what an input is of another stage of the file.
type upstream struct {
	stage  *FileStage
	output string
	path   string // inside the output
}

// upstream tells which stage of the file a REF is an output of; ok is false for
// what the store knows.
func (f *File) upstream(ref string) (up upstream, ok bool, err error) {
	parts, err := parseRef(ref)
	if err != nil {
		return upstream{}, false, err
	}
	if parts.name == "" || parts.output == "" || parts.output == "work" || parts.params != nil || parts.selector != "" {
		return upstream{}, false, nil
	}
	st := f.Stage(parts.name)
	if st == nil {
		return upstream{}, false, nil
	}
	if st.output(parts.output) == nil {
		if st.broken {
			return upstream{}, false, nil
		}
		outs := st.declared()["out"]
		hint := suggest(parts.output, outs, parts.name+".%s")
		if hint == "" && len(outs) > 0 {
			hint = ": it has " + strings.Join(outs, ", ")
		} else if hint == "" {
			hint = ": it has no outputs"
		}
		return upstream{}, false, usagef("stage %s has no output %s%s", parts.name, parts.output, hint)
	}
	if out := st.output(parts.output); parts.path != "" && !out.Dir && !strings.HasPrefix(out.Path+"/", parts.path+"/") {
		return upstream{}, false, usagef("output %s of stage %s is the file %s, and has no %s in it: declare a directory with a final slash", parts.output, parts.name, out.Path, parts.path)
	}
	return upstream{st, parts.output, parts.path}, true, nil
}

// checkInputs checks the REFs of a stage as far as they can be without a store.
func (f *File) checkInputs(r *fileReader, st *FileStage) {
	for _, in := range st.Inputs {
		f.checkRef(r, st, in.Ref, "in."+in.Name, "input "+in.Name)
	}
	if st.Stdin != "" && st.Stdin != "-" {
		f.checkRef(r, st, st.Stdin, "stdin", "stdin")
	}
}

func (f *File) checkRef(r *fileReader, st *FileStage, text, at, what string) {
	ref, err := expandRef(text, st.Params)
	if err == nil && ref == "" {
		return // a parameter that only sets give
	}
	if err == nil {
		_, _, err = f.upstream(ref)
	}
	if err != nil {
		r.problem(st.at[at], "stage %s: %s: %v", st.Name, what, err)
	}
}

// expandRef fills {param.N} in a REF.
func expandRef(text string, params []Param) (string, error) {
	if !strings.ContainsRune(text, '{') {
		return text, nil
	}
	segs, err := parseElement(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	var names []string
	for _, q := range params {
		names = append(names, q.Name)
	}
	for _, s := range segs {
		if s.kind == "" {
			b.WriteString(s.text)
			continue
		}
		i := slices.IndexFunc(params, func(q Param) bool { return q.Name == s.name })
		if s.kind != "param" || s.json {
			return "", usagef("%q: only {param.NAME} can stand here", text)
		}
		if i < 0 {
			return "", usagef("%q: the stage has no parameter %s%s", text, s.name, suggest(s.name, names, "{param.%s}"))
		}
		b.WriteString(params[i].Raw)
	}
	return b.String(), nil
}

func (f *File) checkAggregate(r *fileReader, st *FileStage) {
	if st.Aggregate == "" {
		return
	}
	of := f.Stage(st.Aggregate)
	n := st.at["aggregate"]
	switch {
	case of == nil:
		r.problem(n, "stage %s: aggregate: there is no stage %q%s", st.Name, st.Aggregate, suggest(st.Aggregate, f.StageNames(), "%s"))
	case of == st || of.Aggregate != "":
		r.problem(n, "stage %s: aggregate: %s runs once itself, whatever the parameter sets", st.Name, st.Aggregate)
	case !of.broken && !slices.ContainsFunc(st.Inputs, func(in Input) bool {
		up, ok, _ := f.upstream(in.Ref)
		return ok && up.stage == of
	}):
		r.problem(n, "stage %s: aggregate: no input is an output of %s: write in: {NAME: %s.OUTPUT}", st.Name, st.Aggregate, st.Aggregate)
	}
}

// checkPublished finds outputs that would replace each other under one name.
func (f *File) checkPublished(r *fileReader) {
	names := map[string]string{}
	for _, st := range f.Stages {
		for _, o := range st.Outputs {
			is := "output " + o.Name + " of stage " + st.Name
			for _, name := range o.Publish {
				if other, ok := names[name]; ok {
					r.problem(st.at["out."+o.Name], "%s and %s are both published as %s: give one another name", other, is, name)
				}
				names[name] = is
			}
		}
	}
}

// checkFroms finds outputs that are taken from one path, or from within what
// another is taken from.
func (f *File) checkFroms(r *fileReader) {
	type taken struct {
		path, is string
		at       *yaml.Node
	}
	var all []taken
	for _, st := range f.Stages {
		for _, o := range st.Outputs {
			if o.From != "" {
				all = append(all, taken{filepath.Clean(o.From), "output " + o.Name + " of stage " + st.Name, st.at["out."+o.Name]})
			}
		}
	}
	// A directory stands just before what lies in it.
	slices.SortStableFunc(all, func(a, b taken) int { return strings.Compare(a.path+"/", b.path+"/") })
	for i, last := 1, 0; i < len(all); i++ {
		switch a, b := all[last], all[i]; {
		case a.path == b.path:
			r.problem(b.at, "%s and %s are both taken from %s: let one write elsewhere", a.is, b.is, b.path)
		case strings.HasPrefix(b.path, a.path+"/"):
			r.problem(b.at, "%s is taken from %s, which lies in %s, from which %s is taken: let one write elsewhere", b.is, b.path, a.path, a.is)
		default:
			last = i
		}
	}
}

// checkCycles reports each stage that needs its own output.
func (f *File) checkCycles(r *fileReader) {
	const walking, done = 1, 2
	state := map[*FileStage]int{}
	var path []string
	var walk func(st *FileStage)
	walk = func(st *FileStage) {
		state[st] = walking
		path = append(path, st.Name)
		for _, in := range st.Inputs {
			ref, err := expandRef(in.Ref, st.Params)
			if err != nil || ref == "" {
				continue
			}
			up, ok, err := f.upstream(ref)
			switch {
			case err != nil || !ok:
			case state[up.stage] == walking:
				i := slices.Index(path, up.stage.Name)
				way := append(slices.Clone(path[i:]), up.stage.Name)
				slices.Reverse(way) // as the data flows
				r.problem(st.at["in."+in.Name], "stage %s: input %s closes a cycle: %s", st.Name, in.Name, strings.Join(way, " → "))
			case state[up.stage] == 0:
				walk(up.stage)
			}
		}
		path = path[:len(path)-1]
		state[st] = done
	}
	for _, st := range f.Stages {
		if state[st] == 0 {
			walk(st)
		}
	}
}

// checkSets checks the values of sets against the stages' own.
func (f *File) checkSets(r *fileReader) {
	var all []string
	for _, st := range f.Stages {
		if st.Aggregate == "" {
			all = append(all, st.declared()["param"]...)
		}
	}
	known := map[string]bool{}
	for _, name := range all {
		known[name] = true
	}
	broken := slices.ContainsFunc(f.Stages, func(st *FileStage) bool { return st.broken })
	for _, set := range f.Sets {
		for _, q := range set.Params {
			if !known[q.Name] && !broken {
				hint := suggest(q.Name, all, "%s")
				if hint == "" {
					hint = ": params of a stage give it its first value (a stage with aggregate runs once, and takes none from sets)"
				}
				r.problem(set.at[q.Name], "parameter set %s: no stage has a parameter %s%s", set.Group, q.Name, hint)
			}
		}
	}
	for _, st := range f.Stages {
		if st.Aggregate != "" {
			continue
		}
		own := map[string]Param{}
		for _, q := range st.Params {
			own[q.Name] = q
		}
		for _, set := range f.Sets {
			for _, q := range set.Params {
				if mine, ok := own[q.Name]; ok && !sameType(mine, q) {
					r.problem(set.at[q.Name], "parameter set %s: %s is %s here and %s in stage %s (line %d): write both as one type%s", set.Group, q.Name,
						describeParam(q), describeParam(mine), st.Name, st.at["param."+q.Name].Line, typeHint(q, mine))
				}
			}
		}
	}
}

// typeHint says how an integer is written for a parameter that is a float.
func typeHint(q, mine Param) string {
	switch {
	case q.Type == "int" && mine.Type == "float":
		return ", such as " + q.Raw + ".0"
	case mine.Type == "str":
		return fmt.Sprintf(", such as %q", q.Raw)
	}
	return ""
}
