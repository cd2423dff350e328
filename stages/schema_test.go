package stages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The schema names every key that the parser knows, and no other.
func TestSchema(t *testing.T) {
	type schema struct {
		Properties  map[string]schema `json:"properties"`
		Definitions map[string]schema `json:"definitions"`
		AnyOf       []schema          `json:"anyOf"`
		Enum        []string          `json:"enum"`
		OneOf       []json.RawMessage `json:"oneOf"`
	}
	var s schema
	if err := json.Unmarshal([]byte(Schema), &s); err != nil {
		t.Fatal(err)
	}
	stage := s.Definitions["stage"].Properties
	for _, c := range []struct {
		what  string
		have  map[string]schema
		parse []string
	}{
		{"the file", s.Properties, fileKeys},
		{"a stage", stage, stageKeys},
		{"an output", s.Definitions["output"].AnyOf[1].Properties, outputKeys},
		{"resources", stage["resources"].Properties, resourceKinds},
		{"resume", stage["resume"].Properties, resumeKeys},
		{"launcher", stage["launcher"].AnyOf[1].Properties, launchers},
	} {
		have, want := slices.Sorted(maps.Keys(c.have)), slices.Sorted(slices.Values(c.parse))
		if !slices.Equal(have, want) {
			t.Errorf("%s: the schema has\n%q, the parser\n%q", c.what, have, want)
		}
	}
	if !slices.Equal(stage["launcher"].AnyOf[0].Enum, launchers) {
		t.Errorf("launchers %q", stage["launcher"].AnyOf[0].Enum)
	}
}

// wholeFile has every key that a file can have.
const wholeFile = `
project: p
capture: none
x-more: {a: 1}
stages:
  data:
    run: [make, "{out.o}"]
    out: {o: o/}
    work: [ck]
    params: {size: 3}
    via: env
  train:
    run: [train, "{in.d}", "{param.lr}", 7]
    via: env
    code: ["*.py"]
    in: {d: data.o}
    in_rw: {w: data.o/sub}
    out:
      m: {path: model.bin, meta: {type: T}, publish: model}
      l: {from: logs/, optional: true, publish: [log]}
      f: f.txt
    work: {ck: checkpoints/}
    params: {lr: 0.1, sizes: [1, 2], n: 2, s: text, none: null}
    operational: [n]
    tools: [cc --version]
    env: {A: null, B: b}
    clean_env: true
    stdin: data.o/stdin
    timeout: 2h
    grace: 90s
    snapshot: 30m
    retries: 3
    publish: {f: [file]}
    resume: {work: ck, glob: "*.ok"}
    resources: {gpus: "{param.n}", cpus: 2}
    launcher: {slurm: {partition: gpu, nodes: 2}}
    x-note: y
  sh: {via: env, shell: "cat {in.i}", in: {i: train.f}, env: [A, B=c], stdin: "-", launcher: local}
  all: {via: env, aggregate: train, run: [x, "{in.m}"], in: {m: train.m}}
parameter_sets:
  base: {}
  none:
  more: {lr: 0.2, grid: {n: [1, 2], s: [a, b]}}
`

// variants makes files out of a good one: with each value replaced by others,
// and each key left out or called otherwise.
func variants(t *testing.T, text string, yield func(what string, doc *yaml.Node)) {
	parse := func(text string) *yaml.Node {
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
		return &n
	}
	doc := parse(text)
	var walk func(n *yaml.Node, path string)
	try := func(n *yaml.Node, what string, other yaml.Node) {
		old := *n
		*n = other
		yield(what, doc)
		*n = old
	}
	walk = func(n *yaml.Node, path string) {
		for _, value := range []string{"null", "true", "5", "1.5", "text", `""`, `"5"`, "[]", "[a]", "[1, null]", "[{a: b}]", "{}", "{a: 1}", "{x-a: [b]}"} {
			try(n, path+": "+value, *parse(value).Content[0])
		}
		for i, c := range n.Content {
			switch {
			case n.Kind == yaml.SequenceNode:
				walk(c, fmt.Sprintf("%s[%d]", path, i))
			case i%2 == 1:
				name := path + "." + n.Content[i-1].Value
				less := *n
				less.Content = slices.Delete(slices.Clone(n.Content), i-1, i+1)
				try(n, name+" removed", less)
				for _, key := range []string{"zz", "x-zz", "9", "a b", ""} {
					more := *n
					more.Content = slices.Clone(n.Content)
					more.Content[i-1] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key, Style: yaml.DoubleQuotedStyle}
					try(n, name+" called "+strconv.Quote(key), more)
				}
				walk(c, name)
			}
		}
	}
	walk(doc.Content[0], "")
}

// notOfSchema matches what is wrong between parts of a file that are right by
// themselves, of which a schema knows nothing.
var notOfSchema = regexp.MustCompile(`the stage has no |no stage has a parameter|there is no stage|has no output|no input is an output|there is no work directory|` +
	`does not name|write both as one type|^stage \w+: (input \S+|stdin): |^stage \w+: resources: \w+: ".*" is no whole number|did you mean`)

// Editors, which have the schema, and curi stage check find the same wrong, so
// far as a schema can.
func TestSchemaAgrees(t *testing.T) {
	t.Parallel()
	python := os.Getenv("CURI_TEST_PYTHON")
	if python == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must be able to run this: needs CURI_TEST_PYTHON, a Python with jsonschema")
		}
		t.Skip("needs CURI_TEST_PYTHON, a Python with jsonschema (make test sets it)")
	}
	var what []string
	var docs []any
	var problems [][]string
	variants(t, wholeFile, func(name string, doc *yaml.Node) {
		text, err := yaml.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		what, docs, problems = append(what, name), append(docs, asJSON(doc.Content[0])), append(problems, nil)
		var fault *FileError
		if _, err := ParseFile(text, "F"); errors.As(err, &fault) {
			for _, p := range fault.Problems {
				problems[len(problems)-1] = append(problems[len(problems)-1], p.Text)
			}
		}
	})
	input, err := json.Marshal(map[string]any{"schema": json.RawMessage(Schema), "docs": docs})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", `
import json, sys, jsonschema
given = json.load(sys.stdin)
jsonschema.Draft7Validator.check_schema(given["schema"])
v = jsonschema.Draft7Validator(given["schema"])
json.dump([v.is_valid(d) for d in given["docs"]], sys.stdout)
`)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	var valid []bool
	if err := json.Unmarshal(out, &valid); err != nil || len(valid) != len(docs) {
		t.Fatal(err, len(valid))
	}
	right := 0
	for i, ok := range valid {
		switch {
		case ok && problems[i] == nil:
			right++
		case !ok && problems[i] == nil:
			t.Errorf("%s: only the schema finds something wrong", what[i])
		case ok && slices.ContainsFunc(problems[i], func(p string) bool { return !notOfSchema.MatchString(p) }):
			t.Errorf("%s: only the parser finds something wrong: %q", what[i], problems[i])
		}
	}
	if t.Logf("%d files, of which %d are right", len(valid), right); right < 100 || right > len(valid)/2 {
		t.Error("that is no mixture of good and bad files")
	}
}

// asJSON is a value as editors hand it to a schema.
func asJSON(n *yaml.Node) any {
	switch n.Kind {
	case yaml.AliasNode:
		return asJSON(n.Alias)
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = asJSON(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, asJSON(e))
		}
		return list
	}
	var v any
	if n.Decode(&v) != nil {
		return n.Value
	}
	return v
}
