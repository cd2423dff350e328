package stages

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

var resumeKeys = []string{"work", "glob"}

// runKey reads what says how a stage runs, none of which is keyed.
func (r *fileReader) runKey(st *FileStage, key string, n *yaml.Node, where string) {
	switch key {
	case "timeout", "grace", "snapshot":
		text, ok := r.text(n, where)
		if !ok {
			return
		}
		d, err := ParseDuration(text)
		if err == nil && d <= 0 {
			err = usagef("it must be more than 0")
		}
		if err != nil {
			r.problem(n, "%s: %v", where, err)
		}
		*map[string]*time.Duration{"timeout": &st.Timeout, "grace": &st.Grace, "snapshot": &st.Snapshot}[key] = d
	case "resume":
		st.Resume = &ResumeRule{}
		for _, p := range r.mapping(n, where) {
			switch p.name {
			case "work":
				st.Resume.Work, _ = r.text(p.value, where+": work")
			case "glob":
				st.Resume.Glob, _ = r.text(p.value, where+": glob")
			default:
				r.unknownKey(p, where, resumeKeys)
				return
			}
		}
		if err := st.Resume.check(st.Work); err != nil {
			r.problem(n, "%s: %s", where, strings.TrimPrefix(err.Error(), "resume: "))
		}
	case "resources":
		r.resources(st, n, where)
	case "launcher":
		r.launcher(st, n, where)
	}
}

func (r *fileReader) number(n *yaml.Node, where string, low, high int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < low || v > high {
		r.problem(n, "%s: want a whole number from %d to %d, this is %s", where, low, high, kindOf(n))
	}
	return v
}

func (r *fileReader) resources(st *FileStage, n *yaml.Node, where string) {
	st.Resources = map[string]string{}
	for _, p := range r.mapping(n, where) {
		if !slices.Contains(resourceKinds, p.name) {
			r.unknownKey(p, where, resourceKinds)
			continue
		}
		text, ok := r.text(p.value, where+": "+p.name)
		if !ok {
			continue
		}
		if segs, err := parseElement(text); err != nil || len(segs) != 1 || segs[0].kind != "param" {
			r.number(p.value, where+": "+p.name, 0, maxResource)
		}
		st.Resources[p.name] = text
		st.at["resource."+p.name] = p.value
	}
}

// launcher reads NAME, or {NAME: {OPTION: VALUE}}.
func (r *fileReader) launcher(st *FileStage, n *yaml.Node, where string) {
	l := &LauncherChoice{Options: map[string]string{}, Line: n.Line, Column: n.Column}
	st.Launcher = l
	if n.Kind == yaml.ScalarNode {
		l.Name, _ = r.text(n, where)
	} else {
		for i, p := range r.mapping(n, where) {
			if i > 0 {
				r.problem(p.key, "%s: one launcher runs a stage, %s is another", where, p.name)
				continue
			}
			l.Name = p.name
			for _, q := range r.mapping(p.value, where+": "+p.name) {
				l.Options[q.name] = ""
				if !isNull(q.value) {
					l.Options[q.name], _ = r.text(q.value, where+": "+q.name)
				}
			}
		}
	}
	if !slices.Contains(launchers, l.Name) {
		r.problem(n, "%s: %q is unknown: use one of %s", where, l.Name, strings.Join(launchers, ", "))
	}
}
