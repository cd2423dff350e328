package main_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// project is a site with the project that people begin with: a data set, a
// trainer of it, and a comparison over all parameter sets.
func projectSite(t *testing.T, w way) *site {
	s := bareSite(t, w)
	s.write("curi.yaml", `
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
  compare:
    aggregate: train          # one run over all parameter sets of train
    run: [python, external/compare.py, "{in.models}", --out, "{out.table}"]
    in: {models: train.model}
    out: {table: table.csv}
parameter_sets:
  base: {}
  small-lr: {lr: 0.001}
  sweep: {grid: {lr: [0.1, 0.01], seed: [1, 2]}}    # the product; a list anywhere else is one value
`)
	s.write("external/make_dataset.py", `
import argparse, os
p = argparse.ArgumentParser()
p.add_argument("--out"); p.add_argument("--seed", type=int)
a = p.parse_args()
open(os.environ["SIDE"] + "/ran", "a").write(f"dataset-{a.seed}\n")
open(os.path.join(a.out, "numbers.txt"), "w").write(f"seed {a.seed}\n")
`)
	s.write("external/my_model_trainer.py", `
import argparse, os, sys
p = argparse.ArgumentParser()
for o in ["dataset_path", "model_path", "checkpoint_dir", "log_dir", "ckpt_path"]: p.add_argument("--" + o)
p.add_argument("--lr", type=float)
a = p.parse_args()
if os.environ["RANK"] != "0": sys.exit(0)
open(os.environ["SIDE"] + "/ran", "a").write(f"train-{a.lr}\n")
print("epoch 1 loss", a.lr, flush=True)
if os.environ.get("FAIL") == str(a.lr): sys.exit(3)
open(os.path.join(a.checkpoint_dir, "last.txt"), "w").write("epoch 1")
open(a.model_path, "w").write(open(os.path.join(a.dataset_path, "numbers.txt")).read() + f"lr {a.lr}\n")
`)
	s.write("external/compare.py", `
import argparse, json, os
p = argparse.ArgumentParser()
p.add_argument("models"); p.add_argument("--out")
a = p.parse_args()
open(os.environ["SIDE"] + "/ran", "a").write("compare\n")
with open(a.out, "w") as f:
    for e in json.load(open(os.path.join(a.models, "sets.json"))):
        for s in e["sets"]:
            print(s["set"], s["params"]["lr"], open(os.path.join(a.models, e["path"])).read().split(), sep="|", file=f)
`)
	return s
}

// task is what `curi stage status --json` tells of one.
type task struct {
	Stage  string   `json:"stage"`
	Sets   []string `json:"sets"`
	Status string   `json:"status"`
	Why    string   `json:"why"`
	Run    string   `json:"run"`
	Key    string   `json:"key"`
}

// status lists "STAGE SET: STATUS" of every task.
func (s *site) status(args ...string) []string {
	s.t.Helper()
	var list []string
	for _, t := range decode[[]task](s, s.ok(append([]string{"curi", "stage", "status", "--json"}, args...)...)) {
		name := t.Stage
		if len(t.Sets) > 0 {
			name += " " + t.Sets[0]
		}
		list = append(list, name+": "+t.Status)
	}
	return list
}

// wantRan checks what ran since the last call, in any order.
func (s *site) wantRan(names ...string) {
	s.t.Helper()
	got := s.lines("ran")
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		s.t.Errorf("ran %v, want %v", got, names)
	}
	_ = os.Remove(s.side + "/ran")
}

func TestProjectByName(t *testing.T) {
	s := projectSite(t, byMount)
	s.ok("curi", "stage", "check")

	// The first set, and what the stage needs first.
	o := s.run(s.execArgv("train")...)
	r := decode[result](s, o.stdout)
	if o.status != 0 || r.Cached || !strings.Contains(o.stderr, "parameter set base, the first of curi.yaml") {
		t.Fatalf("exec train: %s", o)
	}
	if text := s.read(r.Outputs["model"].Path); text != "seed 7\nlr 0.01\n" {
		t.Errorf("the model is %q", text)
	}
	s.wantRan("dataset-7", "train-0.01")
	if again := s.stage("train"); !again.Cached || again.Run != r.Run {
		t.Errorf("the second time: %+v", again)
	}
	s.wantRan()

	// The same stage has the same key on the command line.
	same := s.execArgv("--name", "other", "--in", "dataset=dataset.dataset", "--out", "model=model.ckpt", "--meta", "model:type=ModelType1",
		"--optional-out", "metrics=metrics/", "--work", "checkpoints", "--param", "lr=0.01", "--op-param", "num_gpus=8", "--code", "external/**/*.py", "--",
		"torchrun", "--standalone", "--nproc_per_node", "{param.num_gpus}", "external/my_model_trainer.py", "--dataset_path", "{in.dataset}",
		"--model_path", "{out.model}", "--checkpoint_dir", "{work.checkpoints}", "--log_dir", "{out.metrics}", "--lr", "{param.lr}", "--ckpt_path={resume}")
	if got := decode[result](s, s.ok(same...)); !got.Cached || got.Key != r.Key {
		t.Errorf("by options: %+v, by name: %+v", got, r)
	}
	if got := decode[task](s, s.ok(s.execArgv("train", "--dry-run")...)); got.Key != r.Key {
		t.Errorf("the dry run has key %s, want %s", got.Key, r.Key)
	}

	// Everything: sets share what they have in common, and of what is cached
	// nothing runs.
	s.ok(slices.Concat(s.execArgv("--all", "--jobs", "2"))...)
	s.wantRan("dataset-1", "dataset-2", "train-0.001", "train-0.1", "train-0.1", "train-0.01", "train-0.01", "compare")
	table := s.ok("curi", "cat", "compare.table")
	for _, line := range []string{
		"base|0.01|['seed', '7', 'lr', '0.01']", "small-lr|0.001|['seed', '7', 'lr', '0.001']",
		"sweep/lr=0.1,seed=1|0.1|['seed', '1', 'lr', '0.1']", "sweep/lr=0.01,seed=2|0.01|['seed', '2', 'lr', '0.01']",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("the table lacks %s:\n%s", line, table)
		}
	}
	if lines := strings.Count(table, "\n"); lines != 6 {
		t.Errorf("%d lines in the table:\n%s", lines, table)
	}
	if down := s.ok("curi", "lineage", "compare.table"); !strings.Contains(down, "models = "+r.Run+".model") || !strings.Contains(down, "dataset = dataset-") {
		t.Errorf("the lineage does not lead through the aggregate:\n%s", down)
	}
	for _, line := range s.status() {
		if !strings.HasSuffix(line, ": cached") {
			t.Error(line)
		}
	}
	s.ok(s.execArgv("--all")...)
	s.wantRan()

	// An edit makes stale what it concerns, and says why.
	trainer, err := os.ReadFile(filepath.Join(s.dir, "external/my_model_trainer.py"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("external/my_model_trainer.py", string(trainer)+"# better\n")
	tasks := decode[[]task](s, s.ok("curi", "stage", "status", "train", "--set", "base", "--json"))
	if tasks[0].Status != "cached" || tasks[1].Status != "stale" || !strings.Contains(tasks[1].Why, "code external/my_model_trainer.py changed") {
		t.Errorf("after an edit: %+v", tasks)
	}
	// What comes out as before stops there: the comparison stays cached.
	s.ok(s.execArgv("compare", "--jobs", "2")...)
	s.wantRan("train-0.001", "train-0.1", "train-0.1", "train-0.01", "train-0.01", "train-0.01")
	if forced := s.stage("train", "--force", "--fresh"); forced.Cached {
		t.Errorf("forced: %+v", forced)
	}
	s.wantRan("train-0.01") // and not what it needs
	if r := s.stage("train", "-p", "lr=1", "-p", "num_gpus=1"); r.Cached {
		t.Errorf("with another parameter: %+v", r)
	}
	s.wantRan("train-1.0")
}

// A failure stops what needs it, and without --keep-going all else; the status
// is the command's.
func TestProjectFailure(t *testing.T) {
	s := projectSite(t, byCopy)
	s.env = append(s.env, "FAIL=0.01")
	o := s.fails(1, "train[base] failed with exit status 1", s.execArgv("train", "compare", "--set", "base,small-lr")...)
	if !strings.Contains(o.stderr, "1 ran, 1 failed, 2 not run") {
		t.Error(o)
	}
	s.wantRan("dataset-7", "train-0.01")
	o = s.fails(1, "1 cached, 1 failed, 1 not run", s.execArgv("train", "compare", "--set", "base,small-lr", "--keep-going")...)
	s.wantRan("train-0.01", "train-0.001")
	if got := s.status(); !slices.Contains(got, "train base: failed") || !slices.Contains(got, "compare: stale") || !slices.Contains(got, "train small-lr: cached") {
		t.Errorf("status %v after %s", got, o)
	}
	s.env = s.env[:len(s.env)-1]
	s.ok(s.execArgv("train", "compare", "--set", "base,small-lr")...)
	s.wantRan("train-0.01", "compare")
}

// At a terminal each running stage has a line with its newest output, what is
// over stays above them, and a summary ends it.
func TestProjectAtATerminal(t *testing.T) {
	t.Parallel()
	s := slowSite(t, byCopy, 2, "")
	file, err := os.ReadFile(filepath.Join(s.dir, "curi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("curi.yaml", strings.ReplaceAll(string(file), "echo $$ >>", `printf "epoch 1\nbatch 1 of 2\r"; echo $$ >>`))
	cmd := s.command("curi", "stage", "exec", "--all", "--jobs", "2", "--no-mount")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 20, Cols: 60})
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var shown syncBuffer
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(&shown, terminal)
	}()
	for _, line := range []string{`(?:\n|A)  s0 +\d\.\d s  batch 1 of 2\x1b`, `(?:\n|A)  s1 +\d\.\d s  batch 1 of 2\x1b`, `(?:\n|A)  1 of 4 done, 0 of them cached\x1b`} {
		s.eventually(nil, line, func() bool { return regexp.MustCompile(line).MatchString(shown.String()) })
	}
	s.touch("go")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	terminal.Close()
	<-drained
	text := shown.String()
	for _, line := range []string{`curi: s0 succeeded in `, `Jcuri: 4 ran, in \d`} {
		if !regexp.MustCompile(line).MatchString(text) {
			t.Errorf("%s was not shown:\n%q", line, text)
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		if plain := regexp.MustCompile(`\x1b\[[0-9]*[A-Z]|\r`).ReplaceAllString(line, ""); strings.HasPrefix(plain, "  s") && len([]rune(plain)) > 59 {
			t.Errorf("a line is longer than the terminal is wide: %q", plain)
		}
	}
}

// A stage of the file may be a job of Slurm, and what needs it waits for that.
func TestProjectBySlurm(t *testing.T) {
	s := slurmSite(t, byCopy)
	s.write("curi.yaml", `
stages:
  first: {shell: 'echo x > {out.o}; env | grep SLURM_JOB_ID >> $SIDE/jobs; echo first >> $SIDE/ran', out: {o: o}, launcher: {slurm: {time: "10", requeue: false}}, resources: {cpus: 1}}
  second: {shell: 'cat {in.x}/first* > {out.o}; env | grep SLURM_JOB_ID >> $SIDE/jobs; echo second >> $SIDE/ran', in: {x: first.o}, out: {o: o}, aggregate: first}
`)
	r := s.stage("second")
	if s.read(r.Outputs["o"].Path) != "x\n" || len(s.lines("jobs")) != 1 {
		t.Errorf("%+v, jobs %v", r, s.lines("jobs"))
	}
	s.wantRan("first", "second")
	o := s.run(s.execArgv("second", "first", "--force", "--launcher", "slurm", "--detach")...)
	if o.status != 0 || !strings.Contains(o.stderr, "second is not run: what it needs is a job that is not waited for") {
		t.Errorf("detached: %s", o)
	}
	run := decode[[]jobRun](s, s.ok("curi", "log", "--stage", "first", "--json"))[0].Run
	s.ok("curi", "attach", run)
	s.wantRan("first")
	s.write("curi.yaml", "stages: {a: {run: [x], launcher: {slurm: {wait: true, J: x}}}}")
	s.fails(120, "curi.yaml:1:", s.execArgv("a")...)
	s.fails(120, "slurm option J: write job-name", "curi", "stage", "check")
}
