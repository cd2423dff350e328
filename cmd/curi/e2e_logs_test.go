package main_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// Row 14: no logs of the ranks.
func TestRow14OutputIsLiveAndKept(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		j := s.begin(s.execArgv(recipe{args: []string{"--wait_for", s.side + "/go"}}.argv()...)...)
		s.eventually(j, "output while the command runs", func() bool {
			return strings.Contains(j.stderr.String(), "epoch 2")
		})
		s.touch("go")
		o := s.finish(j)
		if o.status != 0 {
			t.Fatal(o)
		}
		r := decode[result](s, o.stdout)
		log := s.ok("curi", "cat", r.Run+"/log.txt")
		for _, line := range []string{"rank 0 of 2: begins", "rank 1 of 2: begins", "rank 0: to stderr", "rank 1: to stderr", "epoch 2"} {
			if !strings.Contains(log, line) {
				t.Errorf("the kept log lacks %q:\n%s", line, log)
			}
			if !strings.Contains(o.stderr, line) {
				t.Errorf("%q was not shown live: %s", line, o.stderr)
			}
		}
	})
}

// Row 14: a failed run's log is kept as well, and named.
func TestRow14LogOfAFailedRunIsNamed(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		o := s.stageFails(1, "log", recipe{args: []string{"--fail", "exit"}}.argv()...)
		log := s.ok("curi", "cat", s.lastRun().Run+"/log.txt")
		if !strings.Contains(log, "loss is NaN") {
			t.Errorf("the kept log:\n%s", log)
		}
		named := false
		for _, word := range strings.Fields(o.stderr) {
			word = strings.Trim(word, ".,;:()'\"")
			if filepath.IsAbs(word) && strings.Contains(word, "log") && s.run("test", "-s", word).status == 0 {
				named = true
			}
		}
		if !named {
			t.Errorf("no path of a log that can be opened: %s", o)
		}
	})
}

// Results are on stdout alone: without --json the command's own output comes
// through unchanged.
func TestRow14StreamsStayApart(t *testing.T) {
	s := newSite(t, byMount)
	o := s.run("curi", "stage", "exec", "--name", "talk", "--out", "x=x", "--",
		"sh", "-c", "printf 'a\\0b\\377'; echo oops >&2; echo x > {out.x}")
	if o.status != 0 || !strings.Contains(o.stdout, "a\x00b\xff") || strings.Contains(o.stdout, "oops") || !strings.Contains(o.stderr, "oops\n") {
		t.Errorf("%q, %s", o.stdout, o)
	}
}
