package main_test

import (
	"strings"
	"syscall"
	"testing"
)

// With the real torchrun.

// Row 1: a rank raises, torchrun ends the others.
func TestTorchRow01FailingRank(t *testing.T) {
	s := newSite(t, byMount).real()
	s.stageFails(1, "loss is NaN", torchRecipe(nil, "--fail", "raise")...)
	s.wantStatus("failed")
	s.nothingPublished()
}

// Rows 3 and 9: rank 0 is killed while it writes the model, then the next try
// goes on from its last checkpoint. In each way, so that this also is the
// whole job without root and without FUSE.
func TestTorchRow03And09KilledAndResumed(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w).real()
		recipe := torchRecipe(nil, "--resume", "{resume}", "--fail", "partial", "--fail_once")
		if o := s.run(s.execArgv(recipe...)...); o.status == 0 || strings.Contains(o.stderr, "resumes") {
			t.Fatalf("the first try: %s", o)
		}
		s.nothingPublished()
		o := s.run(s.execArgv(recipe...)...)
		if o.status != 0 || !strings.Contains(o.stderr, "rank 1: resumes after epoch 0") {
			t.Fatalf("the second try: %s", o)
		}
		r := decode[result](s, o.stdout)
		load := "import sys, torch; print(torch.load(sys.argv[1])['from'])"
		if got := s.ok("python", "-c", load, r.Outputs["model"].Path); got != "1\n" {
			t.Errorf("the model was begun at epoch %q", got)
		}
		if again := s.stage(recipe...); !again.Cached {
			t.Error("the third try was a miss")
		}
		if got := s.ok("python", "-c", load, s.path("model")); got != "1\n" {
			t.Errorf("curi path model has the model begun at epoch %q", got)
		}
	})
}

// Row 7: Ctrl-C in the middle of training.
func TestTorchRow07Interrupt(t *testing.T) {
	s := newSite(t, byMount).real()
	j := s.begin(s.execArgv(torchRecipe(nil, "--fail", "hang")...)...)
	s.eventually(j, "both ranks to train", func() bool {
		text := j.stderr.String()
		return strings.Contains(text, "rank 0: hangs") && strings.Contains(text, "rank 1: hangs")
	})
	if err := j.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	o := s.finish(j)
	if o.status != 130 {
		t.Errorf("want status 130: %s", o)
	}
	s.wantStatus("interrupted")
	s.nothingPublished()
	if o := s.run("pgrep", "-f", "torch_trainer.*"+s.mount); o.status == 0 {
		t.Errorf("processes go on: %s", o.stdout)
	}
}

// Row 14: logs per rank, where torchrun writes them, and output that is live.
func TestTorchRow14RankLogs(t *testing.T) {
	s := newSite(t, byMount).real()
	r := s.stage(torchRecipe(nil)...)
	files := s.ok("find", s.mount+"/runs/"+r.Run+"/logs/", "-type", "f")
	texts := map[string]string{}
	for _, file := range strings.Fields(files) {
		texts[file] = s.read(file)
	}
	for _, rank := range []string{"0", "1"} {
		found := false
		for file, text := range texts {
			found = found || strings.Contains(file, "/"+rank+"/std") && strings.Contains(text, "rank "+rank+": epoch 1")
		}
		if !found {
			t.Errorf("no log of rank %s among\n%s", rank, files)
		}
	}
	log := s.ok("curi", "cat", r.Run+"/log.txt")
	if !strings.Contains(log, "rank 0: epoch 1") || !strings.Contains(log, "rank 1: epoch 1") {
		t.Errorf("the kept log:\n%s", log)
	}
}

// Row 15: the whole experiment is started by torchrun, once per rank.
func TestTorchRow15EachRankCallsCuri(t *testing.T) {
	s := newSite(t, byMount).real()
	argv := append([]string{"torchrun", "--standalone", "--nproc_per_node", "2", "--no-python"},
		s.execArgv("--name", "train", "--out", "model=model", "--", "sh", "-c", "echo x >> $SIDE/ran; sleep 1; echo weights > {out.model}")...)
	s.ok(argv...)
	s.wantStarts(1)
	if got := s.ok("curi", "cat", "train.model"); got != "weights\n" {
		t.Errorf("the model is %q", got)
	}
	failing := append(argv[:5:5],
		s.execArgv("--name", "fail", "--out", "model=model", "--", "sh", "-c", "echo x >> $SIDE/ran; sleep 1; exit 7")...)
	if o := s.run(failing...); o.status == 0 {
		t.Errorf("every rank failed: %s", o)
	}
}
