package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// keySpec is a stage that can be written as a file and as options.
type keySpec struct {
	shell          bool
	argv           []string
	in, inRw       map[string]string
	out            map[string]outSpec
	work           []string
	params         map[string]string // values as --param takes them, with their type: "int=3"
	operational    []string
	code, tools    []string
	env            map[string]string
	cleanEnv       bool
	stdin          string
	onlyFile       []string // lines that no key depends on
	commentsIn     bool
	publish        map[string]string
	files          map[string]string // code
	artifactValues map[string]string
}

type outSpec struct {
	path, from string
	optional   bool
	meta       map[string]string
}

func (k keySpec) clone() keySpec {
	k.argv, k.work, k.operational = slices.Clone(k.argv), slices.Clone(k.work), slices.Clone(k.operational)
	k.code, k.tools, k.onlyFile = slices.Clone(k.code), slices.Clone(k.tools), slices.Clone(k.onlyFile)
	k.in, k.inRw, k.params, k.env, k.out = maps.Clone(k.in), maps.Clone(k.inRw), maps.Clone(k.params), maps.Clone(k.env), maps.Clone(k.out)
	k.publish, k.files, k.artifactValues = maps.Clone(k.publish), maps.Clone(k.files), maps.Clone(k.artifactValues)
	for n, o := range k.out {
		o.meta = maps.Clone(o.meta)
		k.out[n] = o
	}
	return k
}

var awkward = []string{"a", "two words", `q"uote`, `back\slash`, "it's", "x: y", "#no comment", "- dash", "ünï", "tab\tnew\nline", "", "*", "&a", "{{", "true", "~", "0x10", "1e3", "{param.p0}", "-", "[", "%"}

// newKeySpec makes up a stage.
func newKeySpec(r *rand.Rand) keySpec {
	some := func(n int) int { return r.IntN(n + 1) }
	text := func() string { return awkward[r.IntN(len(awkward))] }
	plain := func() string { return strings.NewReplacer("{{", "x", "{param.p0}", "y").Replace(text()) }
	k := keySpec{in: map[string]string{}, inRw: map[string]string{}, out: map[string]outSpec{}, params: map[string]string{}, env: map[string]string{}, publish: map[string]string{},
		files: map[string]string{"src/a.py": "a = 1\n", "src/b.py": "b = 1\n", "tool.cfg": "c\n"}, artifactValues: map[string]string{"d0": "0", "d1": "1", "d2": "2", "d3": "3"}}
	k.params["p0"] = "int=3"
	for i := range some(4) {
		value := []string{"int=7", "float=0.50", "bool=true", "str=" + plain(), `list=[1,"x",2.50]`, "null=", "str=3", "float=1e-3"}[r.IntN(8)]
		k.params[fmt.Sprint("q", i)] = value
	}
	k.params["num_gpus"], k.operational = "int=2", []string{"num_gpus"}
	for i := range 1 + some(2) {
		k.in[fmt.Sprint("i", i)] = fmt.Sprint("d", i)
	}
	if r.IntN(2) == 0 {
		k.inRw["w"] = "d3"
	}
	k.out["o"] = outSpec{path: "o.txt", meta: map[string]string{"type": plain() + "x"}}
	for i := range some(3) {
		o := outSpec{path: fmt.Sprintf("dir%d/", i), optional: r.IntN(2) == 0}
		if r.IntN(3) == 0 {
			o.from = fmt.Sprintf("here%d/", i)
		}
		k.out[fmt.Sprint("u", i)] = o
	}
	k.work = []string{"ck", "tmp_2"}[:some(2)]
	k.code = [][]string{{"src/**.py"}, {"src/a.py", "tool.cfg"}}[r.IntN(2)]
	k.tools = []string{"echo tool 1", "printf 2"}[:1+some(1)]
	k.env["MODE"], k.env["EMPTY"] = "m"+strings.ReplaceAll(plain(), "\n", " "), ""
	k.cleanEnv = r.IntN(2) == 0
	k.stdin = []string{"", "d2"}[r.IntN(2)]
	k.publish["o"] = "published"
	if k.shell = r.IntN(3) == 0; k.shell {
		k.argv = []string{"cat {in.i0} > {out.o} # " + plain() + "\n\techo {param.p0}"}
		return k
	}
	k.argv = []string{"prog", "{in.i0}", "{out.o}", "--p={param.p0}"}
	for range some(4) {
		k.argv = append(k.argv, text())
	}
	return k
}

// options are those of exec, in any order.
func (k keySpec) options(r *rand.Rand) []string {
	groups := [][]string{}
	add := func(option, value string) { groups = append(groups, []string{"--" + option + "=" + value}) }
	for n, ref := range k.in {
		add("in", n+"="+ref)
	}
	for n, ref := range k.inRw {
		add("in-rw", n+"="+ref)
	}
	for n, o := range k.out {
		option := "out"
		if o.optional {
			option = "optional-out"
		}
		declared := []string{"--" + option + "=" + n + "=" + o.path}
		if o.from != "" {
			declared = append(declared, "--out-from="+n+"="+o.from)
		}
		groups = append(groups, declared)
		for key, v := range o.meta {
			groups = append(groups, []string{"--meta=" + n + ":" + key + "=" + v})
		}
	}
	for n, name := range k.publish {
		add("publish", n+"="+name)
	}
	for _, w := range k.work {
		add("work", w)
	}
	for n, v := range k.params {
		typ, raw, _ := strings.Cut(v, "=")
		option := "param"
		if slices.Contains(k.operational, n) {
			option = "op-param"
		}
		add(option, n+":"+typ+"="+raw)
	}
	for _, c := range k.code {
		add("code", c)
	}
	for _, c := range k.tools {
		add("tool", c)
	}
	for n, v := range k.env {
		add("env", n+"="+v)
	}
	r.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
	args := slices.Concat(groups...)
	args = append(args, "--name=t", "--stdin="+k.stdin)
	if k.shell {
		args = append(args, "--shell")
	}
	if k.cleanEnv {
		args = append(args, "--clean-env")
	}
	return args
}

// quoted is a text in YAML: JSON's strings are such.
func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// yaml is the file, its keys in any order.
func (k keySpec) yaml(r *rand.Rand) string {
	var blocks []string
	add := func(format string, args ...any) {
		b := "    " + fmt.Sprintf(format, args...)
		if k.commentsIn {
			b = "\n    # " + fmt.Sprint(r.Uint64()) + "\n" + b + "   # so"
		}
		blocks = append(blocks, b)
	}
	mapping := func(pairs []string) string {
		r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	texts := func(m map[string]string) string {
		var pairs []string
		for n, v := range m {
			pairs = append(pairs, n+": "+quoted(v))
		}
		return mapping(pairs)
	}
	list := func(l []string) string {
		var q []string
		for _, s := range l {
			q = append(q, quoted(s))
		}
		return "[" + strings.Join(q, ", ") + "]"
	}
	if k.shell {
		add("shell: %s", quoted(k.argv[0]))
	} else {
		add("run: %s", list(k.argv))
	}
	add("in: %s", texts(k.in))
	if len(k.inRw) > 0 {
		add("in_rw: %s", texts(k.inRw))
	}
	var outs []string
	for n, o := range k.out {
		text := fmt.Sprintf("%s: {path: %s, optional: %v, meta: %s", n, quoted(o.path), o.optional, texts(o.meta))
		if o.from != "" {
			text += ", from: " + quoted(o.from)
		}
		outs = append(outs, text+"}")
	}
	add("out: %s", mapping(outs))
	add("publish: %s", texts(k.publish))
	add("work: %s", list(k.work))
	var params []string
	for n, v := range k.params {
		typ, raw, _ := strings.Cut(v, "=")
		switch typ {
		case "str":
			raw = quoted(raw)
		case "null":
			raw = "~"
		}
		params = append(params, n+": "+raw)
	}
	add("params: %s", mapping(params))
	add("operational: %s", list(k.operational))
	add("code: %s", list(k.code))
	add("tools: %s", list(k.tools))
	add("env: %s", texts(k.env))
	add("clean_env: %v", k.cleanEnv)
	if k.stdin != "" {
		add("stdin: %s", k.stdin)
	}
	add("via: env")
	for _, line := range k.onlyFile {
		add("%s", line)
	}
	r.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	return "stages:\n  t:\n" + strings.Join(blocks, "\n") + "\n"
}

// keyRig binds stages in a project and a store of their own.
type keyRig struct {
	t   *testing.T
	dir string
	s   *cas.Store
}

func (g *keyRig) prepare(k keySpec) {
	for name, text := range k.files {
		path := filepath.Join(g.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	for name, value := range k.artifactValues {
		added, err := g.s.AddReader(g.t.Context(), strings.NewReader(value), "file", cas.AddOptions{})
		if err == nil {
			_, _, err = g.s.Publish(g.t.Context(), name, added.Tree, cas.PublishOptions{})
			added.Release()
		}
		if err != nil {
			g.t.Fatal(err)
		}
	}
}

func (g *keyRig) key(st stages.Stage) (string, stages.Preimage) {
	g.t.Helper()
	st.Dir, st.Environ = g.dir, []string{"PATH=/usr/bin:/bin"}
	p, err := stages.Bind(g.t.Context(), g.s, stages.Project{Name: "p", Dir: g.dir}, st)
	if err != nil {
		g.t.Fatalf("%v: %+v", err, st)
	}
	defer p.Release()
	return p.Key.String(), p.Preimage
}

// fileKey is the key of the stage as a file has it.
func (g *keyRig) fileKey(k keySpec, r *rand.Rand) (string, string) {
	g.t.Helper()
	text := k.yaml(r)
	f, err := stages.ParseFile([]byte(text), "F")
	if err != nil {
		g.t.Fatalf("%v:\n%s", err, text)
	}
	key, preimage := g.key(f.Stages[0].Stage)
	return key, text + string(preimage)
}

// TestKeysOfStages makes up stages with many things at once: each has one key in
// a file and by options, whatever the order, comments and what only says how it
// runs; and another one when any keyed thing is another.
func TestKeysOfStages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 7))
		top := t.TempDir()
		s, err := cas.Open(t.Context(), top+"/s", cas.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		g := &keyRig{t: t, dir: top + "/p", s: s}
		k := newKeySpec(r)
		g.prepare(k)
		key, text := g.fileKey(k, r)
		st, err := parseStage(k.options(r))
		if err != nil {
			t.Fatalf("seed %d: %v: %q", seed, err, k.options(r))
		}
		st.Command = k.argv
		if by, preimage := g.key(st); by != key {
			t.Fatalf("seed %d: by options the key's text is\n%s\nin a file\n%s", seed, preimage, text)
		}
		for what, change := range unkeyed {
			other := k.clone()
			change(&other)
			if got, text := g.fileKey(other, r); got != key {
				t.Errorf("seed %d: %s changes the key:\n%s", seed, what, text)
			}
		}
		keys := map[string]string{key: "nothing"}
		for what, change := range keyed {
			other := k.clone()
			change(&other)
			world := !maps.Equal(other.files, k.files) || !maps.Equal(other.artifactValues, k.artifactValues)
			if world {
				g.prepare(other)
			}
			got, text := g.fileKey(other, r)
			if same, ok := keys[got]; ok {
				t.Errorf("seed %d: with %s changed the key is that with %s changed:\n%s", seed, what, same, text)
			}
			keys[got] = what
			if world {
				g.prepare(k)
			}
		}
	}
}

var unkeyed = map[string]func(*keySpec){
	"order":                 func(*keySpec) {},
	"a comment":             func(k *keySpec) { k.commentsIn = true },
	"retries":               func(k *keySpec) { k.onlyFile = []string{"retries: 3"} },
	"resources":             func(k *keySpec) { k.onlyFile = []string{"resources: {gpus: 2, cpus: 1}"} },
	"launcher":              func(k *keySpec) { k.onlyFile = []string{"launcher: {slurm: {partition: gpu}}"} },
	"time limits":           func(k *keySpec) { k.onlyFile = []string{"timeout: 2h", "grace: 3s", "snapshot: 10m"} },
	"an operational value":  func(k *keySpec) { k.params["num_gpus"] = "int=8" },
	"one more that is so":   func(k *keySpec) { k.params["workers"] = "int=1"; k.operational = append(k.operational, "workers") },
	"the published name":    func(k *keySpec) { k.publish["o"] = "otherwise" },
	"a glob for the same":   func(k *keySpec) { k.code = append(k.code, k.code[0]) },
	"a number's other form": func(k *keySpec) { k.params["p0"] = "int=3" },
}

var keyed = map[string]func(*keySpec){
	"an argument": func(k *keySpec) { k.argv[len(k.argv)-1] += "x" },
	"the shell": func(k *keySpec) {
		k.argv, k.shell = []string{"echo other"}, true
	},
	"the content of an input": func(k *keySpec) { k.artifactValues["d0"] = "other" },
	"which input it is":       func(k *keySpec) { k.in["i0"] = "d3" },
	"an input more":           func(k *keySpec) { k.in["more"] = "d0" },
	"an input to write to":    func(k *keySpec) { k.inRw["more"] = "d0" },
	"a value":                 func(k *keySpec) { k.params["p0"] = "int=4" },
	"a value's type":          func(k *keySpec) { k.params["p0"] = "str=3" },
	"a parameter more":        func(k *keySpec) { k.params["more"] = "int=3" },
	"what is keyed of them":   func(k *keySpec) { k.operational = []string{} },
	"code":                    func(k *keySpec) { k.files["src/a.py"] = "a = 2\n" },
	"a tool":                  func(k *keySpec) { k.tools[0] = "echo tool 2" },
	"a tool more":             func(k *keySpec) { k.tools = append(k.tools, "echo more") },
	"a variable's value":      func(k *keySpec) { k.env["MODE"] += "x" },
	"a variable more":         func(k *keySpec) { k.env["MORE"] = "" },
	"the clean environment":   func(k *keySpec) { k.cleanEnv = !k.cleanEnv },
	"standard input":          func(k *keySpec) { k.stdin = "d1" },
	"an output's path":        func(k *keySpec) { o := k.out["o"]; o.path = "p.txt"; k.out["o"] = o },
	"whether it is optional":  func(k *keySpec) { o := k.out["o"]; o.optional = true; k.out["o"] = o },
	"whether it is a directory": func(k *keySpec) {
		o := k.out["o"]
		o.path += "/"
		k.out["o"] = o
	},
	"where it is taken from": func(k *keySpec) { o := k.out["o"]; o.from = "elsewhere"; k.out["o"] = o },
	"metadata":               func(k *keySpec) { k.out["o"].meta["type"] += "x" },
	"metadata's name":        func(k *keySpec) { k.out["o"].meta["kind"] = "" },
	"an output more":         func(k *keySpec) { k.out["more"] = outSpec{path: "o.txt"} },
	"a work directory more":  func(k *keySpec) { k.work = append(k.work, "more") },
}
