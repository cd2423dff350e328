package main_test

import (
	"regexp"
	"strings"
	"testing"
)

var madeFrom = regexp.MustCompile(`from (\S+|the beginning), weights ([0-9a-f]{64})`)

// A training that was killed ends with the same weights as one that was not.
func resumesExactly(t *testing.T, from string, argv ...string) (s *site, run string) {
	s = newSite(t, byMount).real()
	unbroken := s.begin(s.execArgv(argv...)...)
	argv = append(argv, "--die")
	if o := s.run(s.execArgv(argv...)...); o.status != 137 || madeFrom.MatchString(o.stderr) {
		t.Fatalf("the first try: %s", o)
	}
	again := s.run(s.execArgv(argv...)...)
	got := madeFrom.FindStringSubmatch(again.stderr)
	if again.status != 0 || got == nil || got[1] != from {
		t.Fatalf("the second try does not go on from %s: %s", from, again)
	}
	o := s.finish(unbroken)
	want := madeFrom.FindStringSubmatch(o.stderr)
	if o.status != 0 || want == nil || want[1] != "the" && want[1] != "the beginning" {
		t.Fatalf("the unbroken run: %s", o)
	}
	if got[2] != want[2] {
		t.Errorf("the weights are %s, of an unbroken run %s", got[2], want[2])
	}
	r := decode[result](s, again.stdout)
	if record := s.ok("curi", "cat", r.Run+"/record.json"); !strings.Contains(record, `"checkpoint": "checkpoints/`+from+`"`) {
		t.Errorf("the record does not say that it went on from %s", from)
	}
	return s, r.Run
}

func TestTorchLightningKilledInMidEpoch(t *testing.T) {
	s, run := resumesExactly(t, "epoch=1-step=8.ckpt", "--name", "train", "--out", "model=model.ckpt", "--out", "logs=logs/", "--work", "checkpoints", "--",
		"python", "-m", "external.resume_lightning", "--model_path", "{out.model}", "--log_dir", "{out.logs}",
		"--checkpoint_dir", "{work.checkpoints}", "--ckpt_path={resume}")
	// The CSVLogger's, of epochs 2 and 3.
	got := decode[[]struct {
		Metrics []struct {
			Name        string
			Step, Count int
		}
	}](s, s.ok("curi", "metrics", run, "--metric", "loss", "--json"))
	if len(got) != 1 || len(got[0].Metrics) != 1 || got[0].Metrics[0].Step != 15 || got[0].Metrics[0].Count != 2 {
		t.Errorf("the metrics are %+v", got)
	}
}

func TestTorchDistributedKilledInMidCheckpoint(t *testing.T) {
	resumesExactly(t, "step=1", "--name", "train", "--out", "model=model.pt", "--work", "checkpoints", "--",
		"python", "-m", "external.resume_distributed", "--model_path", "{out.model}",
		"--checkpoint_dir", "{work.checkpoints}", "--resume", "{resume}")
}
