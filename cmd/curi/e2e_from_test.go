package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fromSite is a stage whose program insists on one path, whatever its parameter.
func fromSite(t *testing.T) *site {
	s := bareSite(t, byCopy)
	s.write("curi.yaml", `
project: one
stages:
  train:
    run: [sh, train.sh, "{param.lr}"]
    code: [train.sh]
    params: {lr: 1}
    out: {model: {from: results/model.txt}}
parameter_sets: {sweep: {grid: {lr: [1, 2]}}}
`)
	s.write("train.sh", `mkdir -p results; echo $1 > results/model.txt; echo $$ >> $SIDE/pids; while ! test -e $SIDE/go; do sleep 0.05; done`)
	return s
}

// Two runs at once that insist on one path go one after the other, in one call
// and in two: each result is what its own run wrote.
func TestRunsOfOnePathTakeTurns(t *testing.T) {
	t.Parallel()
	s := fromSite(t)
	// By another name the path is the same.
	link := filepath.Join(filepath.Dir(s.dir), "link")
	if err := os.Symlink(s.dir, link); err != nil {
		t.Fatal(err)
	}
	both := s.begin(s.execArgv("--all", "--jobs", "2")...)
	s.eventually(both, "one to run", func() bool { return len(s.lines("pids")) > 0 })
	third := s.begin("sh", "-c", `cd "$0" && exec "$@"`, link, "curi", "stage", "exec", "--no-mount", "train", "-p", "lr=3")
	for _, j := range []*job{both, third} {
		s.eventually(j, "one to wait for it", func() bool {
			return strings.Contains(j.stderr.String(), "whose output is taken from the same path") || len(s.lines("pids")) > 1
		})
	}
	// Who gives up waiting has no run, and none to look for.
	fourth := s.begin(append(s.execArgv("train", "-p", "lr=4"), "--json")...)
	s.eventually(fourth, "another to wait", func() bool { return strings.Contains(fourth.stderr.String(), "is taken from the same path") })
	if err := fourth.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(fourth); o.status != 130 || decode[result](s, o.stdout).Run != "" {
		t.Errorf("interrupted while it waits: %s", o)
	}
	s.touch("go")
	for _, j := range []*job{both, third} {
		if o := s.finish(j); o.status != 0 {
			t.Error(o)
		}
	}
	for _, lr := range []string{"1", "2", "3"} {
		if got := s.ok("curi", "cat", "train[lr="+lr+"].model"); got != lr+"\n" {
			t.Errorf("the model of lr=%s is that of %s", lr, got)
		}
	}
}

// What a run left at the path when its curi was killed is kept aside by the next
// call, whose stage may be another by then; what was there before is the
// person's, and refused.
func TestPathOfAKilledRun(t *testing.T) {
	t.Parallel()
	s := fromSite(t)
	for n, lr := range []string{"1", "2"} {
		j := s.begin(s.execArgv("train", "-p", "lr=1", "--fresh")...)
		s.eventually(j, "it to run", func() bool { return len(s.lines("pids")) == 2*n+1 })
		if err := j.Process.Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		_ = j.Wait()
		s.touch("go")
		o := s.run(s.execArgv("train", "-p", "lr="+lr)...)
		if o.status != 0 || !strings.Contains(o.stderr, " was killed and left "+s.dir+"/results/model.txt: it is kept as ") {
			t.Fatalf("after the run of lr=1 was killed: %s", o)
		}
		if got := s.ok("curi", "cat", "train[lr="+lr+"].model"); got != lr+"\n" {
			t.Errorf("the model of lr=%s is %q", lr, got)
		}
		s.ok("curi", "rm", "train@last")
		if err := os.Remove(s.side + "/go"); err != nil {
			t.Fatal(err)
		}
	}
	if kept, _ := filepath.Glob(s.store + "/at/*/old/*/out/model/model.txt"); len(kept) != 2 || string(mustRead(t, kept[0])) != "1\n" {
		t.Errorf("kept of the killed runs: %v", kept)
	}
	s.write("results/model.txt", "mine\n")
	s.touch("go")
	s.fails(124, "results/model.txt, which is there already", s.execArgv("train")...)
	if got := string(mustRead(t, s.dir+"/results/model.txt")); got != "mine\n" {
		t.Errorf("my file is %q", got)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
