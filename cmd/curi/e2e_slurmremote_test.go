package main_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A job shows other machines that its stage runs, whether who submitted it
// waits or not; and it takes what another machine made meanwhile.
func TestSlurmJobIsSeenElsewhere(t *testing.T) {
	s := slurmSite(t, byCopy)
	elsewhere := *s
	elsewhere.store = s.side + "/store"
	elsewhere.env = append(slices.Clone(s.env), "CURI_STORE="+elsewhere.store)
	for _, m := range []*site{s, &elsewhere} {
		m.ok("curi", "remote", "add", "team", "file://"+s.side+"/bucket")
	}
	script := "echo x >> $SIDE/ran; " + untilGo + "echo weights > {out.model}"
	local := without(s.batchArgv(script), "--launcher", "slurm")

	s.ok(s.batchArgv(script, "--detach")...)
	s.eventually(nil, "the job to begin", func() bool { return s.starts() == 1 })
	// The lease of who submitted it is the job's now, which gives signs of life.
	if taken, err := filepath.Glob(s.side + "/bucket/lease/*/0000000002"); err != nil || len(taken) != 1 {
		t.Errorf("the job took %v, %v", taken, err)
	}
	j := elsewhere.begin(local...)
	s.eventually(j, "the other machine to wait", func() bool { return strings.Contains(j.stderr.String(), "runs this very stage") || s.starts() > 1 })
	s.touch("go")
	if o := elsewhere.finish(j); o.status != 0 || !decode[result](s, o.stdout).Cached {
		t.Errorf("the other machine: %s", o)
	}
	s.wantStarts(1)

	// Who waits for a job has the lease until that begins.
	waited := s.run(s.batchArgv(script, "--param", "n=2")...)
	if waited.status != 0 || strings.Contains(waited.stderr, "took this stage over") || strings.Contains(waited.stderr, "runs this very stage") {
		t.Errorf("a job that is waited for: %s", waited)
	}
	s.wantStarts(2)

	held := s.begin(s.batchArgv(script, "--param", "n=3", "--slurm", "hold")...)
	s.eventually(held, "the job to be held", func() bool { return strings.Contains(held.stderr.String(), "of Slurm") })
	elsewhere.ok(slices.Insert(slices.Clone(local), 3, "--param", "n=3", "--force")...) // which waits for nobody
	s.wantStarts(3)
	s.release()
	if o := s.finish(held); o.status != 0 {
		t.Errorf("a job whose result came meanwhile: %s", o)
	}
	s.wantStarts(3)
}
