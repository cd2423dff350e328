package stages

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// example is a project as people write it.
const example = `
stages:
  dataset:
    run: [python, external/make_dataset.py, --out, "{out.dataset}", --seed, "{param.seed}"]
    code: [external/make_dataset.py]
    params: {seed: 7}
    out: {dataset: dataset/}
  train:
    run: [torchrun, --standalone, --nproc_per_node, "{param.num_gpus}", external/my_model_trainer.py,
          --dataset_path, "{in.dataset}", --model_path, "{out.model}", --checkpoint_dir, "{work.checkpoints}",
          --log_dir, "{out.metrics}", --lr, "{param.lr}", "--ckpt_path={resume}"]
    code: ["external/**/*.py"]
    in: {dataset: dataset.dataset}
    out: {model: {path: model.ckpt, meta: {type: ModelType1}}, metrics: {path: metrics/, optional: true}}
    work: {checkpoints: model_checkpoints/}
    params: {lr: 0.01, num_gpus: 2}
    operational: [num_gpus]
    resources: {gpus: "{param.num_gpus}"}
    retries: 3
    resume: {work: checkpoints, glob: "*.ckpt"}
    launcher: {slurm: {partition: gpu, nodes: 2, exclusive: true, time: "4:00:00"}}
    timeout: 1d12h
  compare:
    aggregate: train          # one run over all parameter sets of train
    run: [python, external/compare.py, "{in.models}", --out, "{out.table}"]
    in: {models: train.model}
    out: {table: table.csv}
parameter_sets:
  base: {}
  small-lr: {lr: 0.001}
  sweep: {grid: {lr: [0.1, 0.03, 0.01], seed: [1, 2]}}    # the product; a list anywhere else is one value
`

func parsed(t *testing.T, text string) *File {
	t.Helper()
	f, err := ParseFile([]byte(text), "curi.yaml")
	if err != nil {
		var all *FileError
		if errors.As(err, &all) {
			for _, p := range all.Problems {
				t.Error(all.Line(p))
			}
		}
		t.Fatal(err)
	}
	return f
}

func TestExampleFile(t *testing.T) {
	f := parsed(t, example)
	train := f.Stage("train")
	if got := fmt.Sprint(f.StageNames()); got != "[dataset train compare]" {
		t.Errorf("stages %s", got)
	}
	if len(train.Command) != 16 || train.Command[3] != "{param.num_gpus}" {
		t.Errorf("command %q", train.Command)
	}
	model, metrics := train.output("model"), train.output("metrics")
	if model.Path != "model.ckpt" || model.Dir || model.Meta["type"] != "ModelType1" || metrics.Path != "metrics" || !metrics.Dir || !metrics.Optional {
		t.Errorf("outputs %+v", train.Outputs)
	}
	if !slices.Equal(train.Work, []string{"checkpoints"}) || train.Retries != 3 || *train.Resume != (ResumeRule{"checkpoints", "*.ckpt"}) {
		t.Errorf("work %v, retries %d, resume %v", train.Work, train.Retries, train.Resume)
	}
	if fmt.Sprintf("%s %v", train.Launcher.Name, train.Launcher.Options) != "slurm map[exclusive:true nodes:2 partition:gpu time:4:00:00]" || train.Timeout.Hours() != 36 {
		t.Errorf("launcher %v, timeout %v", *train.Launcher, train.Timeout)
	}
	if q := train.Params[1]; q.Name != "num_gpus" || !q.Operational || q.Type != "int" {
		t.Errorf("parameters %+v", train.Params)
	}
	var names []string
	for _, set := range f.Sets {
		names = append(names, set.Name)
	}
	want := "base small-lr sweep/lr=0.1,seed=1 sweep/lr=0.1,seed=2 sweep/lr=0.03,seed=1 sweep/lr=0.03,seed=2 sweep/lr=0.01,seed=1 sweep/lr=0.01,seed=2"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("sets\n%s, want\n%s", got, want)
	}
}

// Every error at once, each where it stands.
func TestFileProblems(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"keys", `
stages:
  a:
    run: [true]
    outs: {x: y}
    out: {x: {paht: y, from: z}}
    resources: {gpu: 1}
    resume: {glbo: x}
  b: {}
  c: {run: x y, shell: z}
  a: {run: [true]}
stage: {}
`, `
5:5: stage a: unknown key "outs": did you mean out?
6:15: stage a: out: x: unknown key "paht": did you mean path?
7:17: stage a: resources: unknown key "gpu": did you mean gpus?
8:14: stage a: resume: unknown key "glbo": did you mean glob?
9:3: stage b: there is no command: write run: [PROGRAM, ARGUMENT…], or shell: TEXT
10:12: stage c: run: want a list, one element an argument: [python, train.py, --lr, "{param.lr}"]; a text for a shell is shell: TEXT
10:17: stage c: run and shell are both there: keep one
11:3: stages: a stands here a second time, after line 3
12:1: unknown key "stage": did you mean stages?`},
		{"values", `
capture: some
stages:
  a b: {run: [true]}
  a:
    run: [{in.x}, "x\0"]
    in: {x: ""}
    out: {y: ../up, z: {path: q, publish: "1"}, work: f}
    env: [RANK, A, A]
    timeout: 3
    retries: many
    clean_env: yes
    work: [c, c]
    params: {a: {b: 1}, 1x: 2, n: 0x10}
    operational: [q]
    launcher: cloud
    via: enw
    aggregate: [b]
`, `
2:10: capture: "some" is unknown: write none, or leave the line out
4:3: stage "a b": the stage's name: name "a b": may hold only letters, digits, '_' and '-'
6:11: stage a: run: {…} without quotes is a mapping to YAML: put the element in double quotes, such as "{in.data}"
6:19: stage a: run: no text here can hold a NUL byte
7:13: stage a: in: x: the REF is empty
8:11: stage a: out: y: output y: the path "../up" leads out of the output's own directory
8:21: stage a: out: z: output z: publish: name "1": is all digits, like a version; put a letter in it
8:49: stage a: out: work: output work: the name is taken, RUN.work/NAME are work directories: choose another
9:11: stage a: env: env RANK: the launcher of the ranks sets it, so it is never keyed: leave the option out, the command gets the variable anyway
9:20: stage a: env: A is given twice
10:14: stage a: timeout: "3" is not a duration; the right form is 90s, 5m, 2h, 1d or 1d12h
11:14: stage a: retries: want a whole number from 0 to 1000, this is "many"
12:16: stage a: clean_env: want true or false, this is "yes"
13:15: stage a: work: work directory c is declared twice
14:17: stage a: params: a: a parameter is a single value or a list, this is a mapping: write a.KEY: VALUE for each
14:25: stage a: params: 1x: a parameter's name is letters, digits, '_', '-', '.' beginning with a letter
14:35: stage a: params: n: 0x10 is a number to YAML and a text to programs: put it in quotes for the text, or write the number in full
15:19: stage a: operational: the stage has no parameter "q"
16:15: stage a: launcher: "cloud" is unknown: use one of local, slurm
17:10: stage a: via: "enw" is unknown: write env where the command reads CURI_ variables
18:16: stage a: aggregate: want a single value, this is a list`},
		{"placeholders", `
stages:
  a:
    run: [x, "{in.dta}", "{param.lr}", "{outt.y}", "{secret.T}", "x{param.l}", "{resume}"]
    in: {data: digits}
    out: {y: y}
    params: {l: [1, 2], seed: 1}
    env: [T]
`, `
4:14: stage a: placeholder {in.dta}: the stage has no input dta: did you mean {in.data}?
4:26: stage a: placeholder {param.lr}: the stage has no parameter lr: did you mean {param.l}?
4:40: stage a: "{outt.y}": unknown placeholder {outt.y}: did you mean {out.y}?; write {{outt.y}} for the text
4:52: stage a: placeholder {secret.T}: env: T would record the secret: name it in one of them only
4:66: stage a: "x{param.l}": the list {param.l} is only part of an element here: write {param.l:json}, or let it stand alone`},
		{"what a command does not name", `
stages:
  a:
    run: [x, "{out.y}"]
    in: {data: digits}
    out: {y: y, z: z, w: {from: lightning_logs/}}
    work: [c]
    params: {lr: 1, seed: 2}
  b: {run: [x], via: env, params: {lr: 1}, out: {y: y}}
  c: {shell: "x $CURI_PARAM_lr > $CURI_OUT_y", params: {lr: 1}, out: {y: y}}
  d: {run: [x, "{out.y}"], params: {data: digits}, in_rw: {q: "{param.data}/sub"}, out: {y: y}}
`, `
5:16: stage a: the command does not name input data: write {in.data} in it, or via: env if the program reads CURI_IN_data
6:17: stage a: the command does not name output z: write {out.z} in it, or via: env if the program reads CURI_OUT_z
7:12: stage a: the command does not name work directory c: write {work.c} in it, or via: env if the program reads CURI_WORK_c
8:14: stage a: the command does not name parameter lr: write {param.lr} in it, or via: env if the program reads CURI_PARAM_lr
8:21: stage a: the command does not name parameter seed: write {param.seed} in it, or via: env if the program reads CURI_PARAM_seed
11:63: stage d: the command does not name input q: write {in.q} in it, or via: env if the program reads CURI_IN_q`},
		{"between stages", `
stages:
  a: {run: [x, "{in.i}", "{out.o}"], in: {i: c.o}, out: {o: {path: f, publish: model}}}
  b: {run: [x, "{in.i}", "{out.o}"], in: {i: a.o}, out: {o: {path: f, from: logs}}}
  c: {run: [x, "{in.i}", "{in.j}", "{out.o}"], in: {i: b.o, j: b.out}, out: {o: {path: f, from: ./logs, publish: model}}}
  d: {run: [x, "{in.i}"], in: {i: digits}, aggregate: b}
  e: {run: [x, "{in.i}"], in: {i: b.o}, aggregate: bb}
  f: {run: [x, "{in.i}"], in: {i: b.o/../x}}
  g: {run: [x], out: {o: {from: logs/sub/}, p: {from: logs-2}}}
  h: {run: [x, "{in.i}", "{in.j}", "{in.k}"], in: {i: b.o/g, j: b.o/f, k: g.o/any}}
`, `
4:46: stage b: input i closes a cycle: a → b → c → a
5:64: stage c: input j: stage b has no output out: it has o
5:78: output o of stage b and output o of stage c are both taken from logs: let one write elsewhere
5:78: output o of stage a and output o of stage c are both published as model: give one another name
6:44: stage d: aggregate: no input is an output of b: write in: {NAME: b.OUTPUT}
7:41: stage e: aggregate: there is no stage "bb": did you mean b?
8:35: stage f: input i: "b.o/../x" names nothing: the path behind '/' has an empty, '.' or '..' part
9:23: output o of stage g is taken from logs/sub, which lies in logs, from which output o of stage b is taken: let one write elsewhere
10:55: stage h: input i: output o of stage b is the file f, and has no g in it: declare a directory with a final slash`},
		{"sets", `
stages:
  a: {run: [x, "{param.lr}", "{param.name}", "{param.unset}"], params: {lr: 0.1, name: n, unset: null}}
parameter_sets:
  one: {lr: 1, name: 3}
  two: {learning_rate: 0.1, ll: 2}
  three: {grid: {lr: [0.1, 0.10], name: x}, name: y}
  all: {}
  four: {grid: {lr: [0.1, "a"]}, unset: 7}
`, `
5:13: parameter set one: lr is an int (1) here and a float (0.1) in stage a (line 3): write both as one type, such as 1.0
5:22: parameter set one: name is an int (3) here and a str (n) in stage a (line 3): write both as one type, such as "3"
6:24: parameter set two: no stage has a parameter learning_rate: params of a stage give it its first value (a stage with aggregate runs once, and takes none from sets)
6:33: parameter set two: no stage has a parameter ll: did you mean lr?
7:28: parameter set three: grid: lr: the value 0.10 stands here twice
7:35: parameter set three: grid: name has a value beside the grid already
8:3: parameter set all: the name means every set: choose another
9:27: parameter set four: lr is a str (a) here and a float (0.1) in stage a (line 3): write both as one type`},
		{"at once what can be known of a stage that could not be read", `
stages:
  a: {run: [x, "{in.i}", "{param.p}"], in: {i: b.o}, params: {p: 1, q: 2}}
  b: {run: [x], outs: {o: o}, in: {i: c.z}, params: {s: 1}}
  c: {run: [x, "{in.i}"], in: {i: b.o}, aggregate: b, via: envv}
  d: {run: [x, "{in.j}"], in: {j: a.o}}
parameter_sets: {base: {p: x, s: 1, t: 1}, 7: {}}
`, `
3:69: stage a: the command does not name parameter q: write {param.q} in it, or via: env if the program reads CURI_PARAM_q
4:17: stage b: unknown key "outs": did you mean out?
5:60: stage c: via: "envv" is unknown: write env where the command reads CURI_ variables
6:35: stage d: input j: stage a has no output o: it has no outputs
7:28: parameter set base: p is a str (x) here and an int (1) in stage a (line 3): write both as one type
7:44: parameter set: name "7": is all digits, like a version; put a letter in it`},
		{"a second document", "stages: {}\n---\nstages: {a: {run: [x]}}\n", `
2:1: a second document begins here, and would not be read: a file is one`},
		{"tags", `
stages:
  a: {run: !!set {x, y}, work: !list [w], code: !glob "*.py"}
  b: !!python/object:os.system {run: [x]}
`, `
3:12: the type !!set means nothing here: leave it out
3:12: stage a: run: want a list ([a, b]), this is a mapping
3:32: the type !list means nothing here: leave it out
3:49: the type !glob means nothing here: leave it out
4:6: the type !!python/object:os.system means nothing here: leave it out`},
		{"syntax", "stages:\n  a: [b\n  c: d\n", `
2:3: no YAML: did not find expected ',' or ']': a bracket is not closed, or an element needs quotes`},
		{"cyclic alias", "stages: &a\n  b: *a\n", `
2:3: stage b: unknown key "b": the keys are run, shell, code, in, in_rw, out, work, params, operational, aggregate, via, tools, env, clean_env, stdin, timeout, grace, publish, retries, resume, snapshot, resources, launcher
2:3: stage b: there is no command: write run: [PROGRAM, ARGUMENT…], or shell: TEXT`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseFile([]byte(c.text), "F")
			var all *FileError
			if !errors.As(err, &all) || !errors.Is(err, ErrUsage) {
				t.Fatalf("error %v", err)
			}
			var lines []string
			for _, p := range all.Problems {
				lines = append(lines, strings.TrimPrefix(all.Line(p), "F:"))
			}
			want := strings.Split(strings.TrimSpace(c.want), "\n")
			for i := range max(len(lines), len(want)) {
				got, w := "", ""
				if i < len(lines) {
					got = lines[i]
				}
				if i < len(want) {
					w = want[i]
				}
				if got != w {
					t.Errorf("problem %d:\n got %s\nwant %s", i, got, w)
				}
			}
		})
	}
}

// A value is what --param makes of the same text, and a text in quotes is a text.
func TestFileParams(t *testing.T) {
	for value, want := range map[string]string{
		"1": "int 1", "0.10": "float 0.10", "1e-3": "float 1e-3", "true": "bool true", "True": "bool True", "yes": "str yes", "abc": "str abc",
		`"1"`: "str 1", "'true'": "str true", "~": "null ", "": "null ", "2026-01-02": "str 2026-01-02", "007x": "str 007x", "-.inf": "float -inf",
		"[1, 0.50, a, \"2\", true, null, [x], {k: .5}]": `list [1,0.50,"a","2",true,null,["x"],{"k":0.5}]`, "!!str 5": "str 5", "!!float 1": "float 1", "|\n        x\n": "str x\n",
	} {
		f, err := ParseFile([]byte("stages:\n  a:\n    run: [x, \"{param.p:json}\"]\n    params:\n      p: "+value+"\n"), "F")
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if q := f.Stages[0].Params[0]; q.Type+" "+q.Raw != want {
			t.Errorf("%s: %s %q, want %s", value, q.Type, q.Raw, want)
		}
	}
	for _, value := range []string{"1_000", "010", "0o7", "{a: 1}", "!!binary aGk=", "!x y"} {
		if _, err := ParseFile([]byte("stages: {a: {run: [x, \"{param.p}\"], params: {p: "+value+"}}}"), "F"); err == nil {
			t.Errorf("%s: no error", value)
		}
	}
}

func TestFileMerges(t *testing.T) {
	f := parsed(t, `
x-defaults: &defaults
  params: {lr: 0.1}
  timeout: 1h
stages:
  a: {<<: *defaults, run: [x, "{param.lr}"], timeout: 2h}
  b: {<<: [*defaults], run: [y, "{param.lr}"]}
`)
	if a, b := f.Stage("a"), f.Stage("b"); a.Timeout.Hours() != 2 || b.Timeout.Hours() != 1 || b.Params[0].Raw != "0.1" {
		t.Errorf("a %+v, b %+v", a, b)
	}
}

func TestSelectSets(t *testing.T) {
	f := parsed(t, strings.Replace(example, "base: {}", "base: {}\n  texts: {grid: {seed: [3], lr: [1e-3, 2.0]}}", 1))
	for sets, want := range map[string]string{
		"":                            "base",
		"small-lr,base":               "base small-lr",
		"sweep/lr=0.1,seed=2":         "sweep/lr=0.1,seed=2",
		"sweep/seed=2,lr=0.10,base":   "base sweep/lr=0.1,seed=2",
		"sweep/seed=1":                "sweep/lr=0.1,seed=1 sweep/lr=0.03,seed=1 sweep/lr=0.01,seed=1",
		"texts":                       "texts/seed=3,lr=1e-3 texts/seed=3,lr=2.0",
		"texts/lr=2":                  "texts/seed=3,lr=2.0",
		"sweep/lr=0.1,seed=2,texts/x": "parameter set texts/x",
		"bas":                         "did you mean base?",
		"sweep/lr=7":                  "there is no parameter set",
		"sweep,":                      "there is no parameter set",
	} {
		var texts []string
		if sets != "" {
			texts = []string{sets}
		}
		got, err := f.SelectSets(texts)
		var names []string
		for _, set := range got {
			names = append(names, set.Name)
		}
		if said := strings.Join(names, " ") + fmt.Sprint(err); !strings.HasPrefix(said, want+"<nil>") && (err == nil || !strings.Contains(said, want)) {
			t.Errorf("--set %s: %s, want %s", sets, said, want)
		}
	}
	if all, err := f.SelectSets([]string{"all"}); err != nil || len(all) != len(f.Sets) {
		t.Errorf("all: %d of %d (%v)", len(all), len(f.Sets), err)
	}
}

// A small file of aliases to aliases is refused, and soon.
func TestFileOfAliases(t *testing.T) {
	var list, merges strings.Builder
	list.WriteString("x-0: &a0 [1, 2, 3, 4, 5, 6, 7, 8]\n")
	merges.WriteString("x-0: &a0 {x-a: 1, outs: 2}\n")
	for i := range 20 {
		fmt.Fprintf(&list, "x-%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i)
		fmt.Fprintf(&merges, "x-%d: &a%d {<<: [*a%d, *a%d, *a%d, *a%d]}\n", i+1, i+1, i, i, i, i)
	}
	for name, text := range map[string]string{
		"lists":  list.String() + "stages: {a: {run: [x, \"{param.p}\"], params: {p: *a20}}}",
		"merges": merges.String() + "stages: {a: *a20, b: *a20}",
	} {
		_, err := ParseFile([]byte(text), "F")
		var all *FileError
		if !errors.As(err, &all) || !slices.ContainsFunc(all.Problems, func(p Problem) bool { return strings.Contains(p.Text, "too large with its aliases taken apart") }) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
