package main_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// together starts the same command several times, the i-th with its own
// environment, lets them all get as far as they can, and waits for all.
func (s *site) together(n int, env func(i int) []string, release string, argv []string) []outcome {
	s.t.Helper()
	var jobs []*job
	for i := range n {
		j := &job{s.command(argv...), new(syncBuffer), new(syncBuffer)}
		j.Stdout, j.Stderr = j.stdout, j.stderr
		j.Env = append(slices.Clone(s.env), env(i)...)
		if err := j.Start(); err != nil {
			s.t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	s.eventually(nil, "all but one to say that they wait", func() bool {
		waiting := 0
		for _, j := range jobs {
			if strings.Contains(j.stderr.String(), "waiting for ") {
				waiting++
			}
		}
		return waiting == n-1
	})
	s.touch(release)
	outcomes := make([]outcome, n)
	for i, j := range jobs {
		outcomes[i] = s.finish(j)
	}
	return outcomes
}

// Row 15: each rank re-ran the whole experiment.
func TestRow15RanksOfOneStageRunItOnce(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		rank := func(i int) []string {
			return []string{fmt.Sprint("RANK=", i), fmt.Sprint("LOCAL_RANK=", i), "WORLD_SIZE=3"}
		}
		argv := s.execArgv("--name", "train", "--out", "model=model", "--",
			"sh", "-c", "echo x >> $SIDE/ran; while ! test -e $SIDE/go; do sleep 0.02; done; echo weights > {out.model}")
		hits, digests := 0, map[string]bool{}
		for _, o := range s.together(3, rank, "go", argv) {
			if o.status != 0 {
				t.Fatalf("a rank: %s", o)
			}
			r := decode[result](s, o.stdout)
			digests[r.Outputs["model"].Digest] = true
			if r.Cached {
				hits++
			}
		}
		s.wantStarts(1)
		if hits != 2 || len(digests) != 1 {
			t.Errorf("%d of 3 ranks took the result, of digests %v", hits, digests)
		}
	})
}

// Row 15: the others' share of a failure is the failure.
func TestRow15RanksShareAFailure(t *testing.T) {
	s := newSite(t, byMount)
	argv := s.execArgv("--name", "train", "--out", "model=model", "--",
		"sh", "-c", "echo x >> $SIDE/ran; while ! test -e $SIDE/go; do sleep 0.02; done; exit 42")
	for i, o := range s.together(3, func(i int) []string { return []string{fmt.Sprint("SLURM_PROCID=", i)} }, "go", argv) {
		if o.status != 42 {
			t.Errorf("rank %d: want status 42, got %s", i, o)
		}
	}
	s.wantStarts(1)
	// A rank with other parameters has another key, and runs its own.
	s.env = append(s.env, "RANK=3")
	s.stage("--name", "train", "--param", "part=3", "--out", "model=model", "--", "sh", "-c", "echo x >> $SIDE/ran; echo y > {out.model}")
	s.wantStarts(2)
}

// Row 16: two runs of one key wrote the same path.
func TestRow16SameKeyAtOnceIsRunOnce(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		argv := s.execArgv(recipe{args: []string{"--ran", s.ran(), "--wait_for", s.side + "/go"}}.argv()...)
		outcomes := s.together(2, func(int) []string { return nil }, "go", argv)
		var runs []result
		for _, o := range outcomes {
			if o.status != 0 {
				t.Fatal(o)
			}
			runs = append(runs, decode[result](s, o.stdout))
		}
		s.wantStarts(1)
		if runs[0].Cached == runs[1].Cached || runs[0].Outputs["model"].Digest != runs[1].Outputs["model"].Digest {
			t.Errorf("two at once: %+v and %+v", runs[0], runs[1])
		}
		for _, r := range runs {
			if text := s.read(r.Outputs["model"].Path); !strings.HasPrefix(text, "model of 1 2 3 4") {
				t.Errorf("the model is %q", text)
			}
		}
	})
}

// The holder of a key dies without a word: a waiter takes over.
func TestRow16WaiterTakesOverFromTheDead(t *testing.T) {
	s := newSite(t, byMount)
	argv := s.execArgv("--name", "train", "--out", "model=model", "--",
		"sh", "-c", "echo x >> $SIDE/ran; test -e $SIDE/go || exec sleep 600; echo weights > {out.model}")
	first := s.begin(argv...)
	s.eventually(first, "the first to run", func() bool { return s.starts() == 1 })
	second := s.begin(argv...)
	s.eventually(second, "the second to wait", func() bool { return strings.Contains(second.stderr.String(), "waiting for ") })
	s.touch("go")
	if err := first.Process.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if o := s.finish(second); o.status != 0 {
		t.Errorf("the waiter: %s", o)
	}
	s.wantStarts(2)
}
