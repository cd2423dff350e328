package stages

import (
	"slices"
	"strings"
)

// Places are the absolute paths of one run, for placeholders.
type Places struct {
	Root   string // {root}
	Logs   string // {logs}
	Tmp    string
	In     map[string]string
	Out    map[string]string
	Work   map[string]string
	Run    string // {run}
	Resume string // {resume}; "" without a checkpoint
}

// Argv returns the command with every placeholder filled, and the same with
// secrets by name, for people and the record. secrets looks up {secret.VAR}.
// A shell stage becomes "/bin/sh", "-c" and its text. Errors wrap [ErrUsage].
//
// Without a checkpoint an element with {resume} drops out, and when it is
// nothing but {resume} also the option before it.
func (p *Plan) Argv(pl Places, secrets func(string) (string, bool)) (argv, shown []string, err error) {
	f := filler{plan: p, places: pl, secrets: secrets}
	if p.Shell {
		segs, err := parseElement(p.Command[0])
		if err != nil {
			return nil, nil, err
		}
		text, shownText, err := f.shell(segs)
		if err != nil {
			return nil, nil, err
		}
		return []string{"/bin/sh", "-c", text}, []string{"/bin/sh", "-c", shownText}, nil
	}
	option := -1 // the last element that is an option as it was written
	for i, element := range p.Command {
		segs, err := parseElement(element)
		if err != nil {
			return nil, nil, err
		}
		if pl.Resume == "" && slices.ContainsFunc(segs, func(s segment) bool { return s.kind == "resume" }) {
			// The option before it goes too: --ckpt_path {resume}. A value
			// that happens to begin with '-' is no option.
			if len(segs) == 1 && option == i-1 && i > 1 {
				argv, shown = argv[:len(argv)-1], shown[:len(shown)-1]
			}
			continue
		}
		if items, ok := f.listElement(segs); ok {
			argv, shown = append(argv, items...), append(shown, items...)
			continue
		}
		var value, shownValue strings.Builder
		for _, s := range segs {
			v, sv, err := f.value(s)
			if err != nil {
				return nil, nil, err
			}
			value.WriteString(v)
			shownValue.WriteString(sv)
		}
		argv, shown = append(argv, value.String()), append(shown, shownValue.String())
		if strings.HasPrefix(element, "-") && element != "--" {
			option = i
		}
	}
	return argv, shown, nil
}

// CheckSecrets looks whether every {secret.VAR} of the command is set, before
// anything is prepared for it. Errors wrap [ErrUsage].
func (p *Plan) CheckSecrets(secrets func(string) (string, bool)) error {
	for _, element := range p.Command {
		segs, err := parseElement(element)
		if err != nil {
			return err
		}
		for _, s := range segs {
			if _, ok := secrets(s.name); s.kind == "secret" && !ok {
				return notSet(s)
			}
		}
	}
	return nil
}

func notSet(s segment) error {
	return usagef("%s: the variable %s is not set in the environment", s.text, s.name)
}

// filler fills placeholders of one plan.
type filler struct {
	plan    *Plan
	places  Places
	secrets func(string) (string, bool)
}

func (f *filler) listElement(segs []segment) ([]string, bool) {
	if len(segs) != 1 || segs[0].kind != "param" || segs[0].json {
		return nil, false
	}
	q, ok := f.plan.param(segs[0].name)
	if !ok || q.Type != "list" {
		return nil, false
	}
	return q.items(), true
}

// value returns what a segment stands for, and how it is shown.
func (f *filler) value(s segment) (value, shown string, err error) {
	value, ok := "", true
	switch s.kind {
	case "":
		return s.text, s.text, nil
	case "in":
		value, ok = f.places.In[s.name]
	case "out":
		value, ok = f.places.Out[s.name]
	case "work":
		value, ok = f.places.Work[s.name]
	case "root":
		value = f.places.Root
	case "logs":
		value = f.places.Logs
	case "run":
		value = f.places.Run
	case "resume":
		value = f.places.Resume
	case "meta":
		for _, in := range f.plan.In {
			if in.Name == s.name {
				value, ok = in.Meta[s.key]
			}
		}
	case "param":
		q, found := f.plan.param(s.name)
		value, ok = q.Raw, found
		if s.json {
			value = string(q.JSON())
		}
	case "secret":
		if f.secrets == nil {
			return s.text, s.text, nil
		}
		if value, ok = f.secrets(s.name); !ok {
			return "", "", notSet(s)
		}
		return value, s.text, nil
	}
	if !ok {
		return "", "", usagef("placeholder %s has no value here", s.text)
	}
	return value, value, nil
}

func (p *Plan) param(name string) (Param, bool) {
	for _, q := range p.Params {
		if q.Name == name {
			return q, true
		}
	}
	return Param{}, false
}

// checkPlaceholders parses every element and checks each placeholder against
// what the stage declares.
func (p *Plan) checkPlaceholders() error {
	var ins, outs, params []string
	for _, in := range p.Inputs {
		ins = append(ins, in.Name)
	}
	for _, o := range p.Outputs {
		outs = append(outs, o.Name)
	}
	for _, q := range p.Params {
		params = append(params, q.Name)
	}
	check := func(s segment, names []string, option string) error {
		if slices.Contains(names, s.name) {
			return nil
		}
		hint := suggest(s.name, names, "{"+s.kind+".%s}")
		if hint == "" {
			hint = "; declare it with " + option + " " + s.name
		}
		return usagef("placeholder %s: the stage has no such %s%s", s.text, placeholderNoun[s.kind], hint)
	}
	for _, element := range p.Command {
		segs, err := parseElement(element)
		if err != nil {
			return err
		}
		for _, s := range segs {
			switch s.kind {
			case "in", "meta":
				err = check(s, ins, "--in")
			case "out":
				err = check(s, outs, "--out")
			case "work":
				err = check(s, p.Work, "--work")
			case "param":
				err = check(s, params, "--param")
			case "secret":
				err = p.checkSecret(s)
			}
			if err != nil {
				return err
			}
			if q, ok := p.param(s.name); ok && s.kind == "param" && q.Type == "list" && !s.json && (len(segs) > 1 || p.Shell) {
				return usagef("%q: the list %s is only part of an element here: write {param.%s:json}, or let it stand alone", element, s.text, s.name)
			}
		}
	}
	return nil
}

var placeholderNoun = map[string]string{
	"in": "input", "meta": "input", "out": "output", "work": "work directory", "param": "parameter",
}

func (p *Plan) checkSecret(s segment) error {
	if !envName.MatchString(s.name) {
		return usagef("placeholder %s: %q is not the name of an environment variable", s.text, s.name)
	}
	for _, v := range p.Env {
		if v.Name == s.name {
			return usagef("placeholder %s: --env %s would record the secret: name it in one of them only", s.text, s.name)
		}
	}
	return nil
}

// checkMeta checks {meta.IN.KEY} once the inputs are bound.
func (p *Plan) checkMeta() error {
	for _, element := range p.Command {
		segs, err := parseElement(element)
		if err != nil {
			return err
		}
		for _, s := range segs {
			if s.kind != "meta" {
				continue
			}
			for _, in := range p.In {
				if in.Name != s.name {
					continue
				}
				if _, ok := in.Meta[s.key]; ok {
					continue
				}
				var keys []string
				for k := range in.Meta {
					keys = append(keys, k)
				}
				slices.Sort(keys)
				has := "it has none"
				if len(keys) > 0 {
					has = "it has " + strings.Join(keys, ", ")
				}
				return usagef("placeholder %s: %s has no metadata %q: %s", s.text, in.From, s.key, has)
			}
		}
	}
	return nil
}
