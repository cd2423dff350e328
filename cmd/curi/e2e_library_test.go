package main_test

import (
	"strings"
	"testing"
)

// torch.distributed.checkpoint (save, async_save, load), safetensors and
// torch.save write into a run's places, and what they wrote loads afterwards.
func TestTorchCheckpointLibraries(t *testing.T) {
	s := newSite(t, byMount).real()
	o := s.run(s.execArgv("--name", "save", "--out", "models=models/", "--work", "checkpoints", "--",
		"torchrun", "--standalone", "--nproc_per_node", "2", "--module", "external.checkpoint_libraries", "{work.checkpoints}", "{out.models}")...)
	if o.status != 0 || !strings.Contains(o.stderr, "rank 1: all loaded") {
		t.Fatal(o)
	}
	r := decode[result](s, o.stdout)
	// Sealed, through the mount and through a path that needs none.
	load := `import sys, torch, safetensors.torch as st
for path in sys.argv[1:]:
    a = st.load_file(path + "/model.safetensors")["weights"]
    b = torch.load(path + "/model.pt", mmap=True)["weights"]
    c = st.safe_open(path + "/model.safetensors", "pt").get_slice("weights")[3:4]
    assert torch.equal(a, b) and torch.equal(a[3:4], c)`
	s.ok("python", "-c", load, r.Outputs["models"].Path, s.path("save.models"))
	if text := s.ok("curi", "cat", r.Run+".work/checkpoints/dcp/.metadata"); text == "" {
		t.Error("the work directory was not kept")
	}
}

// A notebook by papermill, with a parameter, and work on it in the places of
// its run.
func TestNotebookByPapermill(t *testing.T) {
	t.Parallel()
	s := bareSite(t, byMount)
	s.env = append(s.env, "PYTHONPATH="+layer())
	s.write("digits/numbers.txt", "1 2 3 4\n")
	s.write("sums.py", "def total(text):\n    return sum(map(int, text.split()))\n")
	s.write("report.ipynb", `{"nbformat": 4, "nbformat_minor": 5,
 "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
 "cells": [
  {"id": "a", "cell_type": "code", "metadata": {"tags": ["parameters"]}, "execution_count": null, "outputs": [], "source": ["times = 1"]},
  {"id": "b", "cell_type": "code", "metadata": {}, "execution_count": null, "outputs": [], "source": [
   "import os\n", "import sums\n", "text = open(os.environ['CURI_IN_data'] + '/numbers.txt').read()\n", "print('it is', times * sums.total(text))"]}]}`)
	s.write("curi.yaml", `
stages:
  report:
    run: [python, -m, papermill, report.ipynb, "{out.report}", -p, times, "{param.times}", --no-progress-bar]
    in: {data: digits}
    out: {report: report.ipynb}
    params: {times: 3}
    via: env
`)
	s.ok("curi", "add", "./digits", "--name", "digits")
	s.ok("curi", "stage", "exec", "report")
	if text := s.ok("curi", "cat", "report.report"); !strings.Contains(text, "it is 30") {
		t.Errorf("the executed copy:\n%s", text)
	}
	if text := s.ok("curi", "shell", "report", "--save", "again", "--", "sh", "-c",
		`jupyter nbconvert --to script --stdout report.ipynb && ls "$CURI_IN_data" && echo $CURI_PARAM_times > "$CURI_OUT_report"`); !strings.Contains(text, "sums.total(text)") || !strings.Contains(text, "numbers.txt") {
		t.Errorf("the shell:\n%s", text)
	}
	if text := s.ok("curi", "cat", "again"); text != "3\n" {
		t.Errorf("it kept %q", text)
	}
	// What the notebook imports is code.
	s.write("sums.py", "def total(text):\n    return 0\n")
	if o := s.run("curi", "stage", "exec", "report", "--dry-run"); !strings.Contains(o.stdout, "sums.py") {
		t.Errorf("the edit is not seen: %s", o)
	}
}

// PyTorch Lightning's Trainer(strategy="ddp") with ModelCheckpoint, which
// stages checkpoints in TMPDIR and moves them.
func TestTorchLightning(t *testing.T) {
	s := bareSite(t, byMount).real()
	s.copyIn("../../testdata/demo/external", "external")
	s.stage("--name", "dataset", "--out", "digits=digits/", "--publish", "digits=digits", "--",
		"python", "-m", "external.make_dataset", "--output_path", "{out.digits}", "--test_fraction", "0.8")
	argv := []string{"--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt", "--work", "checkpoints", "--param", "epochs=2", "--",
		"torchrun", "--standalone", "--nproc_per_node", "2", "--module", "external.lightning_trainer",
		"--dataset_path", "{in.dataset}", "--model_path", "{out.model}", "--checkpoint_dir", "{work.checkpoints}",
		"--epochs", "{param.epochs}", "--num_gpus", "2"}
	o := s.run(s.execArgv(argv...)...)
	if o.status != 0 {
		t.Fatal(o)
	}
	r := decode[result](s, o.stdout)
	if !strings.Contains(o.stderr, "best checkpoint: /") {
		t.Errorf("ModelCheckpoint kept no best checkpoint: %s", o)
	}
	s.ok("python", "-c", "import sys, torch; assert 'net.layers.0.weight' in torch.load(sys.argv[1], weights_only=False)['state_dict']", r.Outputs["model"].Path)
	if files := s.ok("ls", s.mount+"/runs/"+r.Run+"/work/checkpoints"); !strings.Contains(files, "last.ckpt") {
		t.Errorf("the work directory has %q", files)
	}
	if !s.stage(argv...).Cached {
		t.Error("the same again was a miss")
	}
}
