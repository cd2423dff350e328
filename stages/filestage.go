package stages

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"go.yaml.in/yaml/v3"
)

// stageKeys are the keys of a stage, in the order in which people write them.
var stageKeys = []string{
	"run", "shell", "code", "in", "in_rw", "out", "work", "params", "operational", "aggregate", "via",
	"tools", "env", "clean_env", "stdin", "timeout", "grace", "publish", "retries", "resume", "snapshot", "resources", "launcher",
}

// stage reads one stage.
func (r *fileReader) stage(p pair) *FileStage {
	st := &FileStage{Line: p.key.Line, at: map[string]*yaml.Node{"": p.key}}
	st.Name = p.name
	if err := (&Plan{Stage: Stage{Name: p.name, Command: []string{"x"}, Dir: "/"}}).check(); err != nil {
		r.problem(p.key, "stage %q: %v", p.name, err)
	}
	where := "stage " + p.name
	values := map[string]*yaml.Node{}
	for _, q := range r.mapping(p.value, where) {
		if !slices.Contains(stageKeys, q.name) {
			r.unknownKey(q, where, stageKeys)
			continue
		}
		values[q.name], st.at[q.name] = q.value, q.key
	}
	// In this order, not the file's: some need what others say.
	for _, key := range stageKeys {
		if n := values[key]; n != nil {
			r.stageKey(st, key, n, where+": "+key)
		}
	}
	switch {
	case values["run"] == nil && values["shell"] == nil:
		r.problem(p.key, "%s: there is no command: write run: [PROGRAM, ARGUMENT…], or shell: TEXT", where)
	case values["run"] != nil && values["shell"] != nil:
		r.problem(st.at["shell"], "%s: run and shell are both there: keep one", where)
	}
	return st
}

func (r *fileReader) stageKey(st *FileStage, key string, n *yaml.Node, where string) {
	switch key {
	case "run":
		r.command(st, n, where)
	case "shell":
		if text := r.notEmpty(n, where); text != "" {
			st.Command, st.Shell = []string{text}, true
			st.at["run.0"] = n
		}
	case "code":
		st.Code, _ = r.texts(n, where)
		for i, glob := range st.Code {
			if glob == "" || !doublestar.ValidatePattern(recursive(filepath.ToSlash(glob))) {
				r.problem(n, "%s: %q is not a valid glob", where, st.Code[i])
			}
		}
	case "in", "in_rw":
		r.inputs(st, n, where, key == "in_rw")
	case "out":
		for _, p := range r.mapping(n, where) {
			r.output(st, p, where+": "+p.name)
		}
	case "work":
		r.work(st, n, where)
	case "params":
		for _, p := range r.mapping(n, where) {
			if q, ok := r.param(p, where); ok {
				st.Params = append(st.Params, q)
				st.at["param."+p.name] = p.key
			}
		}
	case "operational":
		r.operational(st, n, where)
	case "aggregate":
		st.Aggregate = r.notEmpty(n, where)
	case "via":
		if via, ok := r.text(n, where); ok && via != "env" {
			r.problem(n, "%s: %q is unknown: write env where the command reads CURI_ variables", where, via)
		}
		st.ViaEnv = true
	case "tools":
		st.Tools, _ = r.texts(n, where)
		if slices.Contains(st.Tools, "") {
			r.problem(n, "%s: a command is empty", where)
		}
	case "env":
		r.env(st, n, where)
	case "clean_env":
		st.CleanEnv = r.boolean(n, where)
	case "stdin":
		st.Stdin, _ = r.text(n, where)
		st.at["stdin"] = n
	case "publish":
		for _, p := range r.mapping(n, where) {
			r.publish(st, p, where)
		}
	case "retries":
		st.Retries = r.number(n, where, 0, 1000)
	default:
		r.runKey(st, key, n, where)
	}
}

func (r *fileReader) command(st *FileStage, n *yaml.Node, where string) {
	if n.Kind == yaml.ScalarNode && !isNull(n) {
		r.problem(n, "%s: want a list, one element an argument: [python, train.py, --lr, \"{param.lr}\"]; a text for a shell is shell: TEXT", where)
		return
	}
	for i, e := range r.sequence(n, where) {
		if e.Kind == yaml.MappingNode {
			r.problem(e, "%s: {…} without quotes is a mapping to YAML: put the element in double quotes, such as \"{in.data}\"", where)
			continue
		}
		if text, ok := r.text(e, where); ok {
			st.Command = append(st.Command, text)
			st.at[fmt.Sprint("run.", i)] = e
		}
	}
	if len(n.Content) == 0 || len(st.Command) > 0 && st.Command[0] == "" {
		r.problem(n, "%s: there is no command", where)
	}
}

func (r *fileReader) inputs(st *FileStage, n *yaml.Node, where string, writable bool) {
	for _, p := range r.mapping(n, where) {
		ref, ok := r.text(p.value, where+": "+p.name)
		if !ok {
			continue
		}
		if ref == "" {
			r.problem(p.value, "%s: %s: the REF is empty", where, p.name)
			continue
		}
		if slices.ContainsFunc(st.Inputs, func(in Input) bool { return in.Name == p.name }) {
			r.problem(p.key, "%s: input %s is declared twice", where, p.name)
			continue
		}
		st.Inputs = append(st.Inputs, Input{Name: p.name, Ref: ref, Writable: writable})
		st.at["in."+p.name] = p.value
		r.checkOf(p.key, where, Stage{Inputs: st.Inputs[len(st.Inputs)-1:]})
	}
}

// checkOf checks one thing as `curi stage exec` would, and reports it there.
func (r *fileReader) checkOf(n *yaml.Node, where string, st Stage) {
	p := &Plan{Stage: st}
	p.Dir = "/"
	for _, f := range []func() error{p.checkNames, p.checkOutputs, p.checkEnv} {
		if err := f(); err != nil {
			r.problem(n, "%s: %s", where, strings.TrimPrefix(err.Error(), "--"))
			return
		}
	}
}

var outputKeys = []string{"path", "from", "optional", "meta", "publish"}

// output reads N: PATH, or N: {path: PATH, …}.
func (r *fileReader) output(st *FileStage, p pair, where string) {
	o := Output{Name: p.name}
	given, from := "", ""
	if p.value.Kind == yaml.ScalarNode && !isNull(p.value) {
		given, _ = r.text(p.value, where)
	} else {
		for _, q := range r.mapping(p.value, where) {
			switch q.name {
			case "path":
				given, _ = r.text(q.value, where+": path")
			case "from":
				from, _ = r.text(q.value, where+": from")
			case "optional":
				o.Optional = r.boolean(q.value, where+": optional")
			case "meta":
				o.Meta = r.meta(q.value, where+": meta")
			case "publish":
				o.Publish, _ = r.texts(q.value, where+": publish")
			default:
				r.unknownKey(q, where, outputKeys)
			}
		}
	}
	st.at["out."+p.name] = p.key
	if given == "" && from == "" {
		r.problem(p.value, "%s: want the output's file, or its directory with a final slash: %s: FILE, or DIR/", where, p.name)
		return
	}
	o.From, o.Dir = trimSlashes(from), strings.HasSuffix(from, "/")
	o.Path = path.Base(o.From)
	if given != "" {
		o.Path, o.Dir = trimSlashes(given), strings.HasSuffix(given, "/")
	} else if o.Path == "." || o.Path == ".." || o.Path == "/" {
		r.problem(p.value, "%s: %s has no name of its own to give the output: say path: too", where, from)
		return
	}
	st.Outputs = append(st.Outputs, o)
	r.checkOf(p.key, where, Stage{Outputs: []Output{o}})
}

// trimSlashes takes final slashes off, but never the root's.
func trimSlashes(p string) string {
	if t := strings.TrimRight(p, "/"); t != "" {
		return t
	}
	return p
}

func (r *fileReader) meta(n *yaml.Node, where string) map[string]string {
	meta := map[string]string{}
	for _, p := range r.mapping(n, where) {
		if v, ok := r.text(p.value, where+": "+p.name); ok {
			key := strings.TrimPrefix(p.name, "user.curi.")
			meta[key] = v
		}
	}
	if len(meta) == 0 {
		return nil
	}
	return meta
}

// publish reads OUT: NAME of the stage's own publish.
func (r *fileReader) publish(st *FileStage, p pair, where string) {
	names, _ := r.texts(p.value, where+": "+p.name)
	for i := range st.Outputs {
		if st.Outputs[i].Name == p.name {
			st.Outputs[i].Publish = append(st.Outputs[i].Publish, names...)
			r.checkOf(p.value, where, Stage{Outputs: st.Outputs[i : i+1]})
			return
		}
	}
	var outs []string
	for _, o := range st.Outputs {
		outs = append(outs, o.Name)
	}
	r.problem(p.key, "%s: the stage has no output %q%s", where, p.name, suggest(p.name, outs, "%s"))
}

// work reads names, or names with what the program would call the directory.
func (r *fileReader) work(st *FileStage, n *yaml.Node, where string) {
	names, nodes := []string(nil), []*yaml.Node(nil)
	if n.Kind == yaml.MappingNode {
		for _, p := range r.mapping(n, where) {
			if !isNull(p.value) {
				_, _ = r.text(p.value, where+": "+p.name)
			}
			names, nodes = append(names, p.name), append(nodes, p.key)
		}
	} else {
		names, nodes = r.texts(n, where)
	}
	for i, name := range names {
		if slices.Contains(st.Work, name) {
			r.problem(nodes[i], "%s: work directory %s is declared twice", where, name)
			continue
		}
		r.checkOf(nodes[i], where, Stage{Work: []string{name}})
		st.Work = append(st.Work, name)
		st.at["work."+name] = nodes[i]
	}
}

func (r *fileReader) operational(st *FileStage, n *yaml.Node, where string) {
	names, nodes := r.texts(n, where)
	var have []string
	for _, q := range st.Params {
		have = append(have, q.Name)
	}
	for i, name := range names {
		j := slices.Index(have, name)
		if j < 0 {
			r.problem(nodes[i], "%s: the stage has no parameter %q%s", where, name, suggest(name, have, "%s"))
			continue
		}
		st.Params[j].Operational = true
	}
}

// env reads [VAR, VAR=VALUE], or {VAR: VALUE} where null is the caller's value.
func (r *fileReader) env(st *FileStage, n *yaml.Node, where string) {
	add := func(at *yaml.Node, v EnvVar) {
		if slices.ContainsFunc(st.Env, func(o EnvVar) bool { return o.Name == v.Name }) {
			r.problem(at, "%s: %s is given twice", where, v.Name)
			return
		}
		st.Env = append(st.Env, v)
		r.checkOf(at, where, Stage{Env: []EnvVar{v}})
	}
	if n.Kind == yaml.MappingNode {
		for _, p := range r.mapping(n, where) {
			v := EnvVar{Name: p.name}
			if !isNull(p.value) {
				text, ok := r.text(p.value, where+": "+p.name)
				if !ok {
					continue
				}
				v.Value = &text
			}
			add(p.key, v)
		}
		return
	}
	list, nodes := r.texts(n, where)
	for i, text := range list {
		name, value, given := strings.Cut(text, "=")
		v := EnvVar{Name: name}
		if given {
			v.Value = &value
		}
		add(nodes[i], v)
	}
}
