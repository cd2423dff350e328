package main_test

import (
	"strings"
	"testing"
)

// Row 8: a stale checkpoint directory survived an overwrite.
func TestRow08WorkBelongsToItsKey(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		from := func(epochs string, r result) {
			t.Helper()
			if text := s.read(r.Outputs["model"].Path); !strings.HasSuffix(text, "after 3 epochs from "+epochs+"\n") {
				t.Errorf("want a model begun at epoch %s, got %q", epochs, text)
			}
		}
		first := s.stage(recipe{}.argv()...)
		from("0", first)
		// Another key begins empty.
		other := s.stage(recipe{lr: "0.1"}.argv()...)
		from("0", other)
		if other.Key == first.Key {
			t.Error("two learning rates, one key")
		}
		// The same key again is offered what it left, unless told not to.
		from("3", s.stage(recipe{options: []string{"--force"}}.argv()...))
		from("0", s.stage(recipe{options: []string{"--force", "--fresh"}}.argv()...))
	})
}

// Row 9: no resume.
func TestRow09NextTryResumes(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		args := []string{"--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt", "--work", "checkpoints", "--",
			"sh", "-c", `echo "attempt $CURI_ATTEMPT resume ${CURI_RESUME:-0}"; exec "$@"`, "sh",
			"python3", "external/plain_trainer.py", "--dataset_path", "{in.dataset}", "--model_path", "{out.model}",
			"--checkpoint_dir", "{work.checkpoints}", "--resume", "{resume}", "--fail", "exit", "--fail_once", "--epochs", "3"}
		o := s.stageFails(3, "attempt 1 resume 0", args...)
		if strings.Contains(o.stderr, "resumes from") {
			t.Errorf("the first try resumed: %s", o)
		}
		o = s.run(s.execArgv(args...)...)
		if o.status != 0 || !strings.Contains(o.stderr, "attempt 2 resume 1") || !strings.Contains(o.stderr, "resumes from epoch=0.ckpt") {
			t.Fatalf("the second try did not resume: %s", o)
		}
		r := decode[result](s, o.stdout)
		if text := s.read(r.Outputs["model"].Path); !strings.HasSuffix(text, "after 3 epochs from 1\n") {
			t.Errorf("the model is %q", text)
		}
		if text := s.ok("curi", "show", "--json", r.Run); !strings.Contains(text, r.Run) {
			t.Errorf("curi show %s: %s", r.Run, text)
		}
	})
}

// Row 9: a checkpoint that was half written when the run died is never offered.
func TestRow09HalfWrittenCheckpointIsNotOffered(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		args := []string{"--name", "train", "--out", "model=model.ckpt", "--work", "checkpoints", "--",
			"sh", "-c", `if [ "$CURI_RESUME" = 1 ]; then echo "offered: $*" | tee {out.model}; exit; fi
				python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], "w").writestr("epoch", "0")' {work.checkpoints}/whole.ckpt
				sleep 0.02
				head -c 50 {work.checkpoints}/whole.ckpt > {work.checkpoints}/torn.ckpt
				exit 9`, "sh", "--resume={resume}"}
		s.stageFails(9, "", args...)
		r := s.stage(args...)
		text := s.read(r.Outputs["model"].Path)
		if !strings.Contains(text, "/whole.ckpt") || strings.Contains(text, "torn") {
			t.Errorf("offered: %q", text)
		}
	})
}
