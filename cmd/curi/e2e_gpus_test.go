package main_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// Who has no GPU takes a result that is on a remote, is told before anything
// runs which stages could not run here, and a stage that wants none sees none.
func TestProjectWithoutGPUs(t *testing.T) {
	t.Parallel()
	s := bareSite(t, byCopy)
	s.write("curi.yaml", `
stages:
  none: {shell: 'echo "none has [$CUDA_VISIBLE_DEVICES]" > {out.o}', out: {o: o}, resources: {gpus: 0}}
  far: {shell: 'cat {in.n}', in: {n: none.o}, resources: {gpus: 2}, launcher: slurm}
  nowhere: {run: [no-such-program, "{in.t}", "{secret.NO_SUCH}"], in: {t: train.o}}
  train: {shell: 'cat {in.n} > {out.o}; echo "train has [$CUDA_VISIBLE_DEVICES]" >> {out.o}', in: {n: none.o}, out: {o: o}, resources: {gpus: 2}}
`)
	remote := "file://" + filepath.Join(s.side, "remote")
	s.ok("mkdir", filepath.Join(s.side, "remote"))
	addRemote := func() { s.ok("curi", "remote", "add", "team", remote) }
	addRemote()
	here := s.env
	s.env = append(here[:len(here):len(here)], "CUDA_VISIBLE_DEVICES=1,GPU-5f,7")
	s.ok(s.execArgv("train")...)
	if got := s.ok("curi", "cat", "train.o"); got != "none has []\ntrain has [1,GPU-5f]\n" {
		t.Errorf("they ran with\n%s", got)
	}
	s.env = append(here[:len(here):len(here)], "CUDA_VISIBLE_DEVICES=", "CURI_STORE="+s.store+"-2")
	addRemote()
	if r := s.stage("train"); !r.Cached {
		t.Errorf("with a remote that has the result: %+v", r)
	}
	s.env[len(s.env)-1] += "3"
	if o := s.run(s.execArgv("far")...); strings.Contains(o.stderr, "stage far wants") {
		t.Errorf("of a stage that runs on a node of Slurm: %s", o)
	}
	s.ok("curi", "rm", "none@last")
	o := s.fails(124, "", s.execArgv("nowhere")...)
	before, _, _ := strings.Cut(o.stderr, " runs: ")
	for _, warning := range []string{
		"warning: stage train wants 2 GPUs, and this machine gives it 0 (",
		"warning: stage nowhere: {secret.NO_SUCH}: the variable NO_SUCH is not set in the environment",
		`warning: stage nowhere: exec: "no-such-program": executable file not found in $PATH; without a result it will fail`,
	} {
		if !strings.Contains(before, warning) {
			t.Errorf("not told before anything runs: %s\n%s", warning, o)
		}
	}
}
