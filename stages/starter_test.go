package stages

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written to begin with is a file that can be parsed, and names the
// options of the scripts that are there.
func TestStarter(t *testing.T) {
	parsed(t, Starter("p", nil))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"train.py": `
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--dataset_path", required=True)
parser.add_argument("--model_path")
parser.add_argument("--checkpoint-dir", help="a (nested) \"text\", with commas")
parser.add_argument("-l", "--lr", type=float, default=1e-2)
parser.add_argument("--name", default='it: "x"')
parser.add_argument("--steps", type=int)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--ckpt_path", help="to go on from")
parser.add_argument("--local_rank", type=int, default=0)
`,
		"tune.py": "p.add_argument('--ckpt_path')\np.add_argument('--resume_from_checkpoint')\n", "ddp.py": "torch.distributed.init_process_group('gloo')\np.add_argument('--out')\n", "fsdp.py": "rank = os.environ['LOCAL_RANK']\np.add_argument('--num_gpus', default=4)\n", "fit.py": "p.add_argument('--resume-from', default=None)\n",
		"tools/report.py": "import click\n@click.command()\n@click.argument('results')\n@click.option('--out-file', '-o')\n@click.option('--bins', default=10)\ndef main(): pass\n",
		"lib.py":          "def add_argument(x): pass\n", "test_x.py": "add_argument('--x')", "venv/pyvenv.cfg": "", "venv/y.py": "add_argument('--y')",
		"deep/a/b/c/z.py": "p.add_argument('--z')",
		"my report.ipynb": `{"cells": [{"cell_type": "code", "source": ["p.add_argument('--z')"]}]}`, "empty.ipynb": `{"cells": []}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scripts, err := FindScripts(dir)
	if err != nil || len(scripts) != 7 {
		t.Fatalf("%+v (%v)", scripts, err)
	}
	text := Starter("p", scripts)
	f := parsed(t, text)
	if f.Stage("train") == nil || f.Stage("report") == nil {
		t.Fatalf("stages %v of\n%s", f.StageNames(), text)
	}
	got := strings.Join(f.Stage("train").Command, " ")
	want := "python train.py --dataset_path {in.dataset_path} --model_path {out.model_path} --checkpoint-dir {work.checkpoint_dir} --lr {param.lr} --name {param.name} --ckpt_path {resume}"
	if got != want {
		t.Errorf("train runs\n%s, want\n%s", got, want)
	}
	if got := strings.Join(f.Stage("report").Command, " "); got != "python tools/report.py {in.results} --out-file {out.out_file} --bins {param.bins}" {
		t.Errorf("report runs %s", got)
	}
	if got := strings.Join(f.Stage("tune").Command, " "); got != "python tune.py --ckpt_path {work.ckpt_path} --resume_from_checkpoint {resume}" {
		t.Errorf("tune runs %s", got)
	}
	for name, want := range map[string]string{
		"ddp":  "torchrun --standalone --nproc_per_node {param.num_gpus} ddp.py --out {out.out}",
		"fsdp": "torchrun --standalone --nproc_per_node {param.num_gpus} fsdp.py --num_gpus {param.num_gpus}",
	} {
		st := f.Stage(name)
		if got := strings.Join(st.Command, " "); got != want || len(st.Params) != 1 || !st.Params[0].Operational {
			t.Errorf("%s runs %s with %+v", name, got, st.Params)
		}
	}
	if got := strings.Join(f.Stage("fit").Command, " "); got != "python fit.py" {
		t.Errorf("fit, which has nothing to go on from, runs %s", got)
	}
	if st := f.Stage("my_report"); st == nil || st.Command[5] != "my report.ipynb" || st.Command[7] != "{out.notebook}" {
		t.Errorf("the notebook's stage is %+v", st)
	}
	if q := f.Stage("train").Params; q[0].Type != "float" || q[1].Raw != `it: "x"` {
		t.Errorf("parameters %+v", q)
	}
}
