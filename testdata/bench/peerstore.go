package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// peerLarge stores the large file, which is in the page cache, in an empty
// repository of each tool.
func (b *bench) peerLarge() error {
	large, err := b.large()
	if err != nil {
		return err
	}
	return b.peerStore("store a file of "+mebibytes(b.size)+", warm", large, amount{bytes: b.size},
		[][]string{{"cp", large, b.path("copied")}, {"sync", b.path("copied")}, {"b3sum", b.path("copied")}})
}

// peerMany stores many small files likewise.
func (b *bench) peerMany() error {
	n := b.many(addedFiles)
	dir, err := b.tree(n, openedSize)
	if err != nil {
		return err
	}
	return b.peerStore("store 20,000 files of 4 KiB", dir, amount{files: n},
		[][]string{{"cp", "-r", dir, b.path("copied")}, {"sync", "-f", b.path("copied")}})
}

func (b *bench) peerStore(what, source string, a amount, plain [][]string) error {
	os.Setenv("RESTIC_PASSWORD", "bench")
	repo := b.path("repo")
	// The tools that version a directory want their data in it.
	inRepo := filepath.Join(repo, filepath.Base(source))
	fresh := func(prepare [][]string, store []string) (float64, error) {
		if err := b.atRest(repo); err != nil {
			return 0, err
		}
		if err := os.MkdirAll(repo, 0o755); err != nil {
			return 0, err
		}
		for _, argv := range prepare {
			if _, err := b.in(repo, argv); err != nil {
				return 0, err
			}
		}
		if err := syncFilesystem(b.dir); err != nil {
			return 0, err
		}
		return b.in(repo, store)
	}
	dvcBin, annexBin, resticBin := b.program(dvc), b.program(annex), b.program(restic)
	err := b.peer(what, a, 3, map[peer]func() (float64, error){
		native: func() (float64, error) {
			if err := b.atRest(repo); err != nil {
				return 0, err
			}
			return b.timed(plain...)
		},
		curi: func() (float64, error) { return b.addFresh(source) },
		dvc: func() (float64, error) {
			return fresh([][]string{{dvcBin, "init", "--quiet", "--no-scm"}, {dvcBin, "config", "core.analytics", "false"}, {"cp", "-r", source, inRepo}},
				[]string{dvcBin, "add", "--quiet", filepath.Base(source)})
		},
		restic: func() (float64, error) {
			return fresh([][]string{{resticBin, "init", "--quiet", "--repo", repo + "/r"}}, []string{resticBin, "backup", "--quiet", "--repo", repo + "/r", source})
		},
		annex: func() (float64, error) {
			return fresh([][]string{{"git", "init", "--quiet", "."}, {"git", "config", "user.email", "bench@localhost"}, {"git", "config", "user.name", "bench"},
				{annexBin, "init", "--quiet", "bench"}, {"cp", "-r", source, inRepo}}, []string{annexBin, "add", "--quiet", filepath.Base(source)})
		},
	})
	if err != nil {
		return err
	}
	return b.atRest(repo)
}

// in times a program in a directory.
func (b *bench) in(dir string, argv []string) (float64, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	// Tools call their own helpers by name.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(argv[0])+":"+os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null")
	start := time.Now()
	_, err := b.outputOf(cmd)
	return time.Since(start).Seconds(), err
}

// curifactoryStage is an experiment of one stage with one cached result.
const curifactoryStage = `from dataclasses import dataclass
import curifactory as cf
from curifactory.caching import JsonCacher

@dataclass
class Params(cf.ExperimentParameters):
    lr: float = 0.1

@cf.stage(None, ["model"], [JsonCacher])
def train(record):
    return {"lr": record.params.lr}

def get_params():
    return [Params(name="only")]

def run(params, manager):
    for p in params:
        train(cf.Record(manager, p))
`

// peerCached runs a pipeline of one stage whose result is known, as whole
// processes.
func (b *bench) peerCached() error {
	repo := b.path("pipeline")
	files := map[string]string{
		"dvc/data":                            "data\n",
		"dvc/dvc.yaml":                        "stages:\n  train:\n    cmd: cp data model\n    deps: [data]\n    outs: [model]\n",
		"curifactory/experiments/bench.py":    curifactoryStage,
		"curifactory/experiments/__init__.py": "",
		"curifactory/curifactory_config.json": `{"experiments_module_name": "experiments", "params_module_name": "params", "manager_cache_path": "data/",
			"cache_path": "data/cache", "runs_path": "data/runs", "logs_path": "logs/", "notebooks_path": "notebooks/", "reports_path": "reports/",
			"report_css_path": "reports/style.css"}`,
	}
	for name, text := range files {
		path := filepath.Join(repo, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := b.artifact("data", filepath.Join(repo, "dvc/data")); err != nil {
		return err
	}
	stage := []string{b.tool("curi"), "stage", "exec", "--name", "train", "--in", "data=data", "--out", "model=model", "--", "cp", "{in.data}", "{out.model}"}
	runs := map[peer]func() (float64, error){
		native: func() (float64, error) { return b.timed([]string{b.python, "-c", "pass"}) },
		curi:   func() (float64, error) { return b.timed(stage) },
	}
	if bin := b.program(dvc); bin != "" {
		dir := filepath.Join(repo, "dvc")
		for _, argv := range [][]string{{bin, "init", "--quiet", "--no-scm"}, {bin, "config", "core.analytics", "false"}} {
			if _, err := b.in(dir, argv); err != nil {
				return err
			}
		}
		runs[dvc] = func() (float64, error) { return b.in(dir, []string{bin, "repro", "--quiet"}) }
	}
	if bin := b.program(curifactory); bin != "" {
		runs[curifactory] = func() (float64, error) {
			return b.in(filepath.Join(repo, "curifactory"), []string{bin, "bench", "-p", "bench", "--quiet"})
		}
	}
	// The first run of each computes.
	for p := range peers {
		if runs[p] != nil && (p <= curi || b.program(p) != "") {
			if _, err := runs[p](); err != nil {
				return err
			}
		}
	}
	return b.peer("a pipeline with everything cached; native: `python3 -c pass`", amount{}, 7, runs)
}

func mebibytes(n int64) string {
	if n == 1<<30 {
		return "1 GiB"
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
