package main_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// everyWay runs a test in each of the three ways.
func everyWay(t *testing.T, test func(t *testing.T, w way)) {
	for _, w := range []way{byMount, byUser, byCopy} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// result is what `curi stage exec --json` prints.
type result struct {
	Run, Stage, Key string
	Cached          bool
	ExitStatus      int `json:"exit_status"`
	Seconds         float64
	Outputs         map[string]struct {
		Digest, Tree, Path string
		Bytes, Files       int64
	}
}

// execArgv is the command line of a stage in the site's way.
func (s *site) execArgv(args ...string) []string {
	argv := []string{"curi", "stage", "exec", "--json"}
	if s.way == byCopy {
		argv = append(argv, "--no-mount")
	}
	return append(argv, args...)
}

// stage runs a stage that must succeed.
func (s *site) stage(args ...string) result {
	s.t.Helper()
	r := decode[result](s, s.ok(s.execArgv(args...)...))
	for name, o := range r.Outputs {
		if !filepath.IsAbs(o.Path) {
			s.t.Errorf("output %s has the path %q", name, o.Path)
		}
	}
	return r
}

// stageFails runs a stage that must fail with a status and say something.
func (s *site) stageFails(status int, says string, args ...string) outcome {
	s.t.Helper()
	return s.fails(status, says, s.execArgv(args...)...)
}

// A recipe is the training stage with what differs from case to case.
type recipe struct {
	lr      string
	gpus    string
	module  string   // the trainer
	options []string // more options of stage exec
	args    []string // more arguments of the trainer
}

func (r recipe) argv() []string {
	or := func(s, standard string) string {
		if s == "" {
			return standard
		}
		return s
	}
	return slices.Concat([]string{
		"--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt",
		"--meta", "model:type=DigitsNet", "--publish", "model=model", "--work", "checkpoints",
		"--param", "lr=" + or(r.lr, "0.05"), "--param", "epochs=3", "--op-param", "num_gpus=" + or(r.gpus, "2"),
		"--code", "external/**/*.py",
	}, r.options, []string{
		"--", "torchrun", "--standalone", "--nproc_per_node", "{param.num_gpus}",
		"--module", or(r.module, "external.plain_trainer"),
		"--dataset_path", "{in.dataset}", "--model_path", "{out.model}", "--checkpoint_dir", "{work.checkpoints}",
		"--lr", "{param.lr}", "--epochs", "{param.epochs}", "--num_gpus", "{param.num_gpus}",
	}, r.args)
}

// torchRecipe is the recipe for torch_trainer, whose options are fewer.
func torchRecipe(options []string, args ...string) []string {
	return slices.Concat([]string{
		"--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt",
		"--meta", "model:type=DigitsNet", "--publish", "model=model", "--work", "checkpoints",
		"--param", "epochs=2", "--code", "external/**/*.py",
	}, options, []string{
		"--", "torchrun", "--standalone", "--nproc_per_node", "2", "--module", "external.torch_trainer",
		"--dataset_path", "{in.dataset}", "--model_path", "{out.model}", "--checkpoint_dir", "{work.checkpoints}",
		"--epochs", "{param.epochs}",
	}, args)
}

// The way in which a run ended, as `curi log --json` has it.
type logged struct {
	Run        string
	Stage      string
	Status     string
	ExitStatus int `json:"exit_status"`
}

// lastRun returns the newest run.
func (s *site) lastRun() logged {
	s.t.Helper()
	runs := decode[[]logged](s, s.ok("curi", "log", "--json"))
	if len(runs) == 0 {
		s.t.Fatal("curi log knows no run")
	}
	return runs[0]
}

// wantStatus checks how the newest run ended.
func (s *site) wantStatus(status string) {
	s.t.Helper()
	if got := s.lastRun(); got.Status != status {
		s.t.Errorf("curi log says %q of the run, want %q", got.Status, status)
	}
}

// nothingPublished checks that no model exists, by any name.
func (s *site) nothingPublished() {
	s.t.Helper()
	s.fails(121, "model", "curi", "show", "model")
	s.fails(121, "train", "curi", "show", "train.model")
	if ls := s.ok("curi", "ls"); strings.Contains(ls, "model") {
		s.t.Errorf("curi ls shows a model:\n%s", ls)
	}
}

// read reads a path as the site's user, from a process of its own.
func (s *site) read(path string) string {
	s.t.Helper()
	return s.ok("cat", "--", path)
}

// path is where a thing can be opened.
func (s *site) path(ref string) string {
	s.t.Helper()
	return strings.TrimSuffix(s.ok("curi", "path", ref), "\n")
}

// starts counts the executions that a trainer with --ran noted.
func (s *site) starts() int { return len(s.lines("ran")) }

// ran is the file that --ran names: outside all places, so that it counts
// what really ran, and outside the project, where it would be keyed.
func (s *site) ran() string { return s.side + "/ran" }

// wantStarts checks how often the trainer ran.
func (s *site) wantStarts(n int) {
	s.t.Helper()
	if got := s.starts(); got != n {
		s.t.Errorf("the trainer ran %d times, want %d", got, n)
	}
}

// touch makes an empty file beside the project.
func (s *site) touch(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.side, name), nil, 0o644); err != nil {
		s.t.Fatal(err)
	}
}
