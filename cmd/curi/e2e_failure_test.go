package main_test

import (
	"strings"
	"testing"
)

// Row 1: the trainer failed, the stage was cached and the run exited 0.
func TestRow01FailureIsAFailure(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		// torchrun says 1 whatever its workers said.
		failing := recipe{args: []string{"--ran", s.ran(), "--fail", "exit"}}
		o := s.stageFails(1, "loss is NaN", failing.argv()...)
		if !strings.Contains(o.stderr, "log") {
			t.Errorf("a failed run names no log: %s", o)
		}
		s.wantStatus("failed")
		s.nothingPublished()

		s.stageFails(1, "loss is NaN", failing.argv()...)
		s.wantStarts(2)

		s.stageFails(42, "loss is NaN", "--name", "alone", "--in", "dataset=digits", "--out", "model=model.ckpt", "--",
			"python3", "external/plain_trainer.py", "--dataset_path", "{in.dataset}", "--model_path", "{out.model}",
			"--fail", "exit", "--exit_status", "42")
		s.wantStatus("failed")
	})
}

// Row 2: a reference to a file that was never written was passed on.
func TestRow02OutputMustExist(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		o := s.stageFails(124, "model", "--name", "train", "--in", "dataset=digits", "--publish", "model=model",
			"--out", "model=model.ckpt", "--out", "report=report/", "--",
			"sh", "-c", "cat {in.dataset}/numbers.txt > {out.report}/numbers.txt")
		if !strings.Contains(o.stderr, "model.ckpt") {
			t.Errorf("the error does not name the file: %s", o)
		}
		s.nothingPublished()

		s.stageFails(124, "model", "--name", "empty", "--out", "model=model.ckpt", "--", "sh", "-c", ": > {out.model}")
		s.stageFails(124, "model", "--name", "empty-dir", "--out", "model=model/", "--", "true")

		r := s.stage("--name", "optional", "--out", "model=model.ckpt", "--optional-out", "report=report.txt", "--",
			"sh", "-c", "echo weights > {out.model}")
		if _, ok := r.Outputs["report"]; ok || r.Outputs["model"].Bytes != 8 {
			t.Errorf("outputs: %+v", r.Outputs)
		}
	})
}

// Row 3: a partial output of a crashed run became a cache hit.
func TestRow03PartialOutputIsNoHit(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		r := recipe{args: []string{"--ran", s.ran(), "--fail", "partial", "--fail_once"}}
		o := s.run(s.execArgv(r.argv()...)...)
		if o.status == 0 {
			t.Fatalf("a trainer killed by SIGKILL: %s", o)
		}
		s.nothingPublished()

		got := s.stage(r.argv()...)
		if got.Cached || s.starts() != 2 {
			t.Errorf("the second run was a hit: %+v", got)
		}
		if text := s.read(got.Outputs["model"].Path); !strings.HasPrefix(text, "model of 1 2 3 4 with lr=0.05") {
			t.Errorf("the model is %q", text)
		}
	})
}

// Row 3: what a run left in its outputs is not there for the next one.
func TestRow03OutputsBeginEmpty(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		args := []string{"--name", "parts", "--out", "parts=parts/", "--",
			"sh", "-c", "echo x > {out.parts}/$(ls $SIDE | wc -l); test -e $SIDE/again"}
		s.stageFails(1, "", args...)
		s.touch("again")
		r := s.stage(args...)
		if names := strings.Fields(s.ok("ls", r.Outputs["parts"].Path)); len(names) != 1 {
			t.Errorf("outputs of a failed run and its successor: %q", names)
		}
	})
}

// Row 4: a trainer that did nothing exited 0.
func TestRow04DoingNothingIsAFailure(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		s.stageFails(124, "model.ckpt", recipe{args: []string{"--fail", "nothing"}}.argv()...)
		s.nothingPublished()
		s.stageFails(124, "model.ckpt", recipe{args: []string{"--fail", "empty"}}.argv()...)
		s.nothingPublished()
	})
}
