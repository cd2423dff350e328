package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// slurm is the Slurm that all tests of this package share: the path of its
// slurm.conf. It ends with the process of the tests, however that ends, because
// its input does.
var slurm struct {
	once sync.Once
	conf string
	err  error
}

// startSlurm starts it; reach is shell code that makes reachable what jobs of
// unprivileged users need.
func startSlurm(reach string) (conf string, err error) {
	in, keep, err := os.Pipe() // this process holds the other end, and closes it by ending
	if err != nil {
		return "", err
	}
	defer in.Close()
	held = keep
	said, err := os.CreateTemp("", "slurm-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd := exec.Command("../../testdata/dev/slurm.sh")
	cmd.Stdin, cmd.Stderr = in, said
	cmd.Env = append(os.Environ(), "CURI_SLURM_REACH="+reach)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	conf, ok := strings.CutPrefix(strings.TrimSpace(line), "SLURM_CONF=")
	if err != nil || !ok {
		text, _ := os.ReadFile(said.Name())
		return "", fmt.Errorf("no Slurm came up (%q, %v):\n%s", line, err, text)
	}
	return conf, nil
}

// held keeps the input of the Slurm open.
var held *os.File

// withSlurm makes the programs of a site use the tests' Slurm.
func (s *site) withSlurm() *site {
	s.t.Helper()
	need(s.t, os.Getuid() == 0, "root, to run a Slurm")
	for _, program := range []string{"sbatch", "slurmd"} {
		_, err := exec.LookPath(program)
		if err != nil {
			_, err = os.Stat("/usr/sbin/" + program)
		}
		need(s.t, err == nil, program+" (testdata/dev/debian.sh installs it)")
	}
	bin, err := binaries()
	if err != nil {
		s.t.Fatal(err)
	}
	slurm.once.Do(func() { slurm.conf, slurm.err = startSlurm(reach(s.t, []string{bin})) })
	if slurm.err != nil {
		s.t.Fatal(slurm.err)
	}
	s.env = append(s.env, "SLURM_CONF="+slurm.conf)
	return s
}

// launchers of ranks start a command as two processes of one job.
var launchers = map[string][]string{
	"srun":   {"srun", "--quiet", "-n2"},
	"mpirun": {"mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"},
}

// launched is a site with a launcher of ranks.
func launched(t *testing.T, name string) *site {
	s := newSite(t, byMount)
	if name == "mpirun" {
		_, err := exec.LookPath(name)
		need(t, err == nil, name+" (testdata/dev/debian.sh installs it)")
		// It makes sockets there.
		s.env = append(s.env, "TMPDIR=/tmp")
		return s
	}
	return s.withSlurm()
}

// Row 15, under the real launchers: each rank calls curi with the same key.
func TestRow15UnderRealLaunchers(t *testing.T) {
	for name, launcher := range launchers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := launched(t, name)
			start := func(script string) *job {
				return s.begin(append(launcher, s.execArgv("--name", "train", "--out", "model=model", "--", "sh", "-c", script)...)...)
			}
			release := func(j *job, file string) {
				s.eventually(j, "one rank to wait for the other", func() bool {
					text := j.stderr.String()
					return strings.Contains(text, "waiting for run train-") && (strings.Contains(text, "rank 0: ") || strings.Contains(text, "rank 1: "))
				})
				s.touch(file)
			}
			// One runs and fails; the other does not try, and says so.
			j := start("echo x >> $SIDE/ran; while ! test -e $SIDE/fail; do sleep 0.02; done; exit 42")
			release(j, "fail")
			if o := s.finish(j); o.status != 42 {
				t.Errorf("ranks of which one failed: %s", o)
			}
			s.wantStarts(1)
			s.nothingPublished()
			// One runs and succeeds; the other takes its result.
			j = start("echo x >> $SIDE/ran; while ! test -e $SIDE/go; do sleep 0.02; done; echo weights > {out.model}")
			release(j, "go")
			o := s.finish(j)
			if o.status != 0 {
				t.Fatalf("ranks: %s", o)
			}
			s.wantStarts(2)
			cached := 0
			var digests []string
			for dec := json.NewDecoder(strings.NewReader(o.stdout)); dec.More(); {
				var r result
				if err := dec.Decode(&r); err != nil {
					t.Fatalf("not JSON (%v): %s", err, o)
				}
				if r.Cached {
					cached++
				}
				digests = append(digests, r.Outputs["model"].Digest)
			}
			if len(digests) != 2 || digests[0] != digests[1] || cached != 1 {
				t.Errorf("%d of the ranks took the result: %s", cached, o)
			}
		})
	}
}
