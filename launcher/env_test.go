package launcher

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/stages"
)

// dumped is the environment that a command wrote with `env -0`.
func dumped(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for v := range strings.SplitSeq(string(b), "\x00") {
		if k, val, ok := strings.Cut(v, "="); ok {
			env[k] = val
		}
	}
	return env
}

func param(t *testing.T, text string, op bool) stages.Param {
	t.Helper()
	p, err := stages.ParseParam(text, op)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnvironment(t *testing.T) {
	c := shell(t, "env -0 > {out.model}; cp $CURI_PARAMS {out.params}")
	c.addInput(t, "data", map[string]string{"a": "x"})
	c.Stage.Outputs = append(c.Stage.Outputs, stages.Output{Name: "params", Path: "p.json"})
	c.Stage.Params = []stages.Param{param(t, "lr=1e-2", false), param(t, "name=x y", false), param(t, "gpus=2", true)}
	c.Environ = append(c.Environ, "INHERITED=1", "TMPDIR=/var/tmp", "LOGNAME=ada", "CURI_RUN=outer", "CURI_IN_other=x")
	res, _ := c.must(t)
	env := dumped(t, res.Outputs["model"].Path)
	root := c.at(t)
	for k, want := range map[string]string{
		"CURI_RUN": res.Run, "CURI_ROOT": root, "CURI_ATTEMPT": "1",
		"CURI_IN_data": root + "/in/data", "CURI_OUT_model": root + "/out/model/model.bin", "CURI_WORK_ck": root + "/work/ck",
		"CURI_PARAM_lr": "1e-2", "CURI_PARAM_name": "x y", "CURI_PARAM_gpus": "2",
		"TMPDIR": root + "/tmp", "INHERITED": "1", "PYTHONUNBUFFERED": "1",
		"TORCHINDUCTOR_CACHE_DIR": "/var/tmp/torchinductor_ada", "PET_LOG_DIR": root + "/logs", "PET_TEE": "3",
	} {
		if env[k] != want {
			t.Errorf("%s=%q, want %q", k, env[k], want)
		}
	}
	for _, k := range []string{"CURI_RESUME", "CURI_IN_other"} {
		if v, ok := env[k]; ok {
			t.Errorf("%s=%q is set", k, v)
		}
	}
	b, err := os.ReadFile(res.Outputs["params"].Path)
	if err != nil {
		t.Fatal(err)
	}
	var params map[string]any
	if err := json.Unmarshal(b, &params); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"lr": 0.01, "name": "x y", "gpus": 2.0}; !maps.Equal(params, want) {
		t.Errorf("CURI_PARAMS: %v, want %v", params, want)
	}
}

func TestCleanEnvironment(t *testing.T) {
	c := shell(t, "env -0 > {out.model}")
	given := "given"
	c.Stage.CleanEnv = true
	c.Stage.Env = []stages.EnvVar{{Name: "NAMED"}, {Name: "GIVEN", Value: &given}, {Name: "UNSET"}}
	c.Environ = append(c.Environ, "NAMED=n", "OTHER=o", "LC_ALL=C", "RANK=0", "CUDA_VISIBLE_DEVICES=1", "PYTHONPATH=/x")
	res, _ := c.must(t)
	env := dumped(t, res.Outputs["model"].Path)
	for k, want := range map[string]string{"NAMED": "n", "GIVEN": "given", "LC_ALL": "C", "RANK": "0", "CUDA_VISIBLE_DEVICES": "1", "PATH": os.Getenv("PATH")} {
		if env[k] != want {
			t.Errorf("%s=%q, want %q", k, env[k], want)
		}
	}
	for _, k := range []string{"OTHER", "UNSET", "PYTHONPATH", "MARKS"} {
		if v, ok := env[k]; ok {
			t.Errorf("%s=%q is set", k, v)
		}
	}
}

func TestRankLogs(t *testing.T) {
	for _, tc := range []struct {
		argv string
		env  string
		want bool
	}{
		{"torchrun --standalone --nproc_per_node 2 x.py", "", true},
		{"torchrun --standalone x.py --log_dir mine --tee 1", "", true},
		{"torchrun --log_dir mine x.py", "", false},
		{"torchrun --log-dir=mine x.py", "", false},
		{"python -m torch.distributed.run --nnodes 1 -t 3 x.py", "", false},
		{"torchrun -r3 x.py", "", false},
		{"torchrun x.py", "PET_TEE=1", false},
		{"torchrun x.py", "PET_LOG_DIR=/mine", false},
		{"python x.py", "", true}, // it may start torchrun itself
	} {
		env := environment(strings.Fields(tc.env))
		before := slices.Clone(env)
		if got := rankLogs(&env, strings.Fields(tc.argv), "/logs"); got != tc.want {
			t.Errorf("%s with %q: %v, want %v", tc.argv, tc.env, got, tc.want)
		}
		if !tc.want && !slices.Equal(env, before) {
			t.Errorf("%s: changed to %v", tc.argv, env)
		}
	}
}

func TestFakeTorchrunKeepsRankLogs(t *testing.T) {
	fake, err := filepath.Abs("../testdata/faketorchrun")
	if err != nil {
		t.Fatal(err)
	}
	c := shell(t, "")
	script := filepath.Join(c.Stage.Dir, "train.py")
	text := `import os, sys
print("rank", os.environ["RANK"], "of", os.environ["WORLD_SIZE"])
if os.environ["RANK"] == "0":
    open(sys.argv[1], "w").write("model")
`
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Stage.Shell = false
	c.Stage.Command = []string{fake, "--standalone", "--nproc_per_node", "2", "train.py", "{out.model}"}
	_, out := c.must(t)
	wantText(t, out, "[default0]:rank 0 of 2\n", "[default1]:rank 1 of 2\n")
	logs, _ := filepath.Glob(filepath.Join(c.at(t), "logs", "*", "attempt_0", "1", "stdout.log"))
	if len(logs) != 1 {
		t.Fatalf("rank logs: %v", logs)
	}
	wantFile(t, logs[0], "rank 1 of 2\n")
}
