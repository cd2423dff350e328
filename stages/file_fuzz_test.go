package stages

import (
	"errors"
	"strings"
	"testing"
)

// FuzzFile checks that a curi.yaml is refused with problems that lie in it, each
// one line, or makes stages of which every one can be chosen with every set.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		example, "", "{}", "stages:", "a: &a [*a]", "stages: &s {a: *s}", "x-a: &a {<<: *a}\nstages: {b: {<<: *a}}", "<<: 1", "? [a]\n: b",
		"stages: {a: {run: [x, \"{param.p}\"], params: {p: [1, {a: [~]}]}}}", "parameter_sets: {a: {grid: {b: [1, \"1\", [2]]}}}",
		"stages: {a: {shell: \"x {in.i} {{}}\", in: {i: \"{param.p}/x\"}, params: {p: b.o}}, b: {run: [x], out: {o: o/}, via: env}}\nparameter_sets: {s: {p: a.o}}",
		"stages: {a: {run: [x, \"{out.o}\"], out: {o: o}, params: {n: 1}, via: env}, b: {aggregate: a, run: [y, \"{in.i}\"], in: {i: a.o}}}\nparameter_sets: {s: {grid: {n: [1, 2]}}}",
		"stages: {a: {run: [x], stdin: a.o, resources: {cpus: \"{param.q}\"}, params: {q: 3}, launcher: {slurm: {a: ~}}, env: {A: ~}}}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := ParseFile([]byte(text), "F")
		if err != nil {
			var all *FileError
			if !errors.As(err, &all) || len(all.Problems) == 0 {
				t.Fatalf("error %v", err)
			}
			lines := strings.Count(text, "\n") + 2 // YAML knows other ends of lines too
			for _, p := range all.Problems {
				if strings.ContainsAny(text, "\r\u0085\u2028\u2029") {
					lines = len(text) + 2
				}
				if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Text == "" || strings.Contains(p.Text, "\n") {
					t.Fatalf("problem %+v of %d lines", p, lines)
				}
			}
			return
		}
		if len(file.Sets) > 100 {
			return
		}
		for _, set := range file.Sets {
			sel := Selection{}
			if set.Name != "" {
				sel.Sets = []string{set.Name}
				if got, err := file.SelectSets(sel.Sets); err != nil || len(got) == 0 {
					t.Fatalf("--set %q: %d sets (%v)", set.Name, len(got), err)
				}
			}
			g, err := file.Graph(Project{Name: "p", Dir: "/p"}, sel)
			if err != nil {
				if !errors.Is(err, ErrUsage) {
					t.Fatal(err)
				}
				continue
			}
			for i, task := range g.Tasks {
				for _, need := range task.Needs {
					if need.index >= i {
						t.Fatalf("%s stands before %s, which it needs", task.Label, need.Label)
					}
				}
			}
			if len(g.Tasks) < len(file.Stages) {
				t.Fatalf("%d tasks of %d stages", len(g.Tasks), len(file.Stages))
			}
		}
	})
}
