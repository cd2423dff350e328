package main_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Stages as jobs of a real Slurm.

// slurmSite is a site whose stages can be jobs.
func slurmSite(t *testing.T, w way) *site {
	t.Helper()
	t.Parallel()
	return newSite(t, w).withSlurm()
}

// batchArgv is a stage exec that runs its command, a shell text, as a job.
func (s *site) batchArgv(script string, options ...string) []string {
	argv := append(s.execArgv("--launcher", "slurm", "--name", "train", "--out", "model=model"), options...)
	return append(argv, "--", "sh", "-c", script)
}

// jobRun is what curi log says of a run that is a job.
type jobRun struct {
	Run     string
	Status  string
	Exit    int `json:"exit_status"`
	Attempt int
	Job     string
}

func (s *site) runs() []jobRun {
	s.t.Helper()
	return decode[[]jobRun](s, s.ok("curi", "log", "--json"))
}

// queue is what Slurm has in its queue of a run's job.
func (s *site) queue(job string) string {
	s.t.Helper()
	return strings.TrimSpace(s.ok("squeue", "--noheader", "--format=%A %T", "--job="+job))
}

// release lets the newest job of the site, which was submitted with hold, run.
func (s *site) release() {
	s.t.Helper()
	s.ok("sh", "-c", "scontrol release $(squeue --noheader --format=%A --name="+"curi-"+s.runs()[0].Run+")")
}

const untilGo = "while ! test -e $SIDE/go; do sleep 0.02; done; "

// A job runs, shows what it writes while it does, and its result is that of a
// local run: by digest, status and JSON. A second call is a hit and submits
// nothing.
func TestSlurmRuns(t *testing.T) {
	for _, w := range []way{byMount, byCopy} {
		t.Run(string(w), func(t *testing.T) {
			s := slurmSite(t, w)
			s.env = append(s.env, "TOKEN=hush-hush-hush")
			argv := s.batchArgv("echo x >> $SIDE/ran; echo out; echo err >&2; echo 'the {secret.TOKEN}'; "+untilGo+"cat {in.d}/numbers.txt > {out.model}; env | grep SLURM_JOB_ID",
				"--in", "d=digits", "--slurm", "comment=a b", "--slurm", "time=10", "--publish", "model=model")
			j := s.begin(argv...)
			s.eventually(j, "the job's output to come through", func() bool {
				return strings.Contains(j.stderr.String(), "\nout\n") && strings.Contains(j.stderr.String(), "err\n")
			})
			// Meanwhile the log and the status have it.
			r := s.runs()[0]
			if r.Status != "running" || r.Job == "" {
				t.Errorf("while it runs: %+v", r)
			}
			if text := s.ok("curi", "status"); !strings.Contains(text, "job "+r.Job) {
				t.Errorf("curi status does not name job %s:\n%s", r.Job, text)
			}
			if text := s.ok("scontrol", "show", "job", r.Job); !strings.Contains(text, "Comment=a b") || !strings.Contains(text, "TimeLimit=00:10:00") {
				t.Errorf("options did not reach sbatch:\n%s", text)
			}
			s.touch("go")
			o := s.finish(j)
			if o.status != 0 || !strings.Contains(o.stderr, "SLURM_JOB_ID="+r.Job) {
				t.Fatalf("a job: %s", o)
			}
			if o := s.run("grep", "-r", "hush-hush-hush", s.store); !strings.Contains(s.ok("curi", "cat", r.Run+"/log.txt"), "the {secret.TOKEN}") || o.status == 0 {
				t.Errorf("a secret is kept in %s", o.stdout)
			}
			got := decode[result](s, o.stdout)
			if got.Run != r.Run || got.Cached || s.read(got.Outputs["model"].Path) != "1 2 3 4\n" {
				t.Errorf("the result is %s", o)
			}
			if s.read(s.path("model")) != "1 2 3 4\n" {
				t.Error("the model was not published")
			}
			again := decode[result](s, s.ok(argv...))
			if !again.Cached || again.Outputs["model"] != got.Outputs["model"] {
				t.Errorf("the second call: %+v", again)
			}
			// It is the same stage without Slurm.
			if local := decode[result](s, s.ok(without(argv, "--launcher", "slurm", "--slurm", "comment=a b", "--slurm", "time=10")...)); !local.Cached {
				t.Error("a local call was no hit")
			}
			s.wantStarts(1)
		})
	}
}

// without is argv without some words.
func without(argv []string, words ...string) []string {
	var out []string
	for _, w := range argv {
		drop := false
		for _, x := range words {
			drop = drop || w == x
		}
		if !drop {
			out = append(out, w)
		}
	}
	return out
}

// A command that fails in a job fails as it does here; so does what never
// becomes a job.
func TestSlurmFails(t *testing.T) {
	s := slurmSite(t, byCopy)
	o := s.run(s.batchArgv("echo lost >&2; exit 42")...)
	if o.status != 42 || !strings.Contains(o.stderr, "\nlost\n") || !strings.Contains(o.stderr, "  log: ") {
		t.Errorf("a job that fails: %s", o)
	}
	s.wantStatus("failed")
	s.nothingPublished()
	// Nothing is written: refused in the job, and seen here.
	o = s.fails(124, "output model (model) was not written", s.batchArgv("true")...)
	if strings.Count(o.stderr, "was not written") != 1 {
		t.Errorf("said more than once: %s", o)
	}
	s.fails(124, "invalid partition specified: moon", s.batchArgv("true", "--param", "a=1", "--slurm", "partition=moon")...)
	s.fails(120, "write nodes", s.batchArgv("true", "--slurm", "N=2")...)
	s.fails(120, "Curi itself keeps", s.batchArgv("true", "--slurm", "output=x")...)
	s.fails(120, "--launcher slurm", s.execArgv("--name", "train", "--detach", "--", "true")...)
	for _, r := range s.runs() {
		if r.Status != "failed" {
			t.Errorf("left behind: %+v", r)
		}
	}
	if jobs := s.ok("find", s.store+"/refs/job", "-type", "f"); jobs != "" {
		t.Errorf("jobs are left: %s", jobs)
	}
}

// The code changes while the job waits: the job does not run what it was not
// submitted for.
func TestSlurmCodeChangesInTheQueue(t *testing.T) {
	s := slurmSite(t, byCopy)
	s.write("trainer.sh", "echo x >> $SIDE/ran; echo y > $1\n")
	s.run("git", "add", "trainer.sh")
	argv := append(s.execArgv("--launcher", "slurm", "--slurm", "hold", "--name", "train", "--out", "model=model"), "--", "sh", "trainer.sh", "{out.model}")
	j := s.begin(argv...)
	s.eventually(j, "the job to wait", func() bool { return strings.Contains(j.stderr.String(), "waits in the queue") })
	s.write("trainer.sh", "echo x >> $SIDE/ran; echo z > $1\n")
	s.release()
	if o := s.finish(j); o.status != 124 || !strings.Contains(o.stderr, "trainer.sh changed") {
		t.Errorf("a job whose code changed: %s", o)
	}
	s.wantStarts(0)
}

// Ctrl-C ends the job, wherever it is.
func TestSlurmInterrupt(t *testing.T) {
	s := slurmSite(t, byCopy)
	j := s.begin(s.batchArgv("trap 'echo saved > {work.w}/c; exit 1' INT; echo begun; while :; do sleep 0.02; done", "--work", "w")...)
	s.eventually(j, "the job to begin", func() bool { return strings.Contains(j.stderr.String(), "\nbegun\n") })
	if err := j.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(j); o.status != 130 {
		t.Errorf("an interrupted job: %s", o)
	}
	s.wantStatus("interrupted")
	r := s.runs()[0]
	if text := s.ok("curi", "cat", r.Run+".work/w/c"); text != "saved\n" {
		t.Errorf("the command saved %q", text)
	}
	s.eventually(nil, "the job to leave the queue", func() bool { return s.queue(r.Job) == "" })
	// One that waits leaves the queue at once.
	j = s.begin(s.batchArgv("echo x >> $SIDE/ran", "--slurm", "begin=now+1hour")...)
	s.eventually(j, "the job to wait", func() bool { return strings.Contains(j.stderr.String(), "waits in the queue") })
	if err := j.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(j); o.status != 130 || !strings.Contains(o.stderr, "was cancelled") {
		t.Errorf("a job interrupted in the queue: %s", o)
	}
	s.wantStatus("interrupted")
	s.wantStarts(0)
}

// A job outlives who submitted it: by --detach, SIGHUP or kill -9. Others find
// it, before it begins and while it runs, and nothing is submitted twice.
func TestSlurmOutlivesItsSubmitter(t *testing.T) {
	s := slurmSite(t, byCopy)
	argv := s.batchArgv("echo x >> $SIDE/ran; echo begun; "+untilGo+"echo weights > {out.model}", "--slurm", "hold")
	j := s.begin(argv...)
	s.eventually(j, "the job to wait", func() bool { return strings.Contains(j.stderr.String(), "waits in the queue") })
	if err := j.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = j.Wait()
	run := s.runs()[0]
	if run.Status != "queued" || run.Job == "" {
		t.Errorf("in the queue: %+v", run)
	}
	if text := s.ok("curi", "status"); !strings.Contains(text, "job "+run.Job) {
		t.Errorf("curi status does not name job %s:\n%s", run.Job, text)
	}
	// A second call, a local one too, waits for the job.
	second := s.begin(argv...)
	local := s.begin(without(argv, "--launcher", "slurm", "--slurm", "hold")...)
	attached := s.begin("curi", "attach", "--json", run.Run)
	hung := s.begin("curi", "attach", run.Run)
	for _, j := range []*job{second, local} {
		s.eventually(j, "a call to wait for the job", func() bool { return strings.Contains(j.stderr.String(), "job "+run.Job+" of Slurm") })
	}
	s.release()
	for _, j := range []*job{attached, hung, second} {
		s.eventually(j, "the output", func() bool { return strings.Contains("\n"+j.stderr.String()+"\n"+j.stdout.String(), "\nbegun\n") })
	}
	if err := hung.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(hung); o.status != 129 || !strings.Contains(o.stderr, "goes on") {
		t.Errorf("SIGHUP: %s", o)
	}
	s.touch("go")
	var digests []string
	for _, j := range []*job{second, local, attached} {
		o := s.finish(j)
		if o.status != 0 {
			t.Fatalf("who waited: %s", o)
		}
		digests = append(digests, decode[result](s, o.stdout).Outputs["model"].Digest)
	}
	if digests[0] == "" || digests[0] != digests[1] || digests[1] != digests[2] {
		t.Errorf("the digests are %v", digests)
	}
	s.wantStarts(1)
	if n := len(s.runs()); n != 1 {
		t.Errorf("%d runs were made", n)
	}
}

// A submitter that dies between the submission and its note of it leaves a job
// that is found by its name.
func TestSlurmSubmitterDiesInTheGap(t *testing.T) {
	s := slurmSite(t, byCopy)
	argv := s.batchArgv("echo x >> $SIDE/ran; "+untilGo+"echo weights > {out.model}", "--slurm", "hold")
	s.diesInTheGap(argv)
	second := s.begin(argv...)
	s.eventually(second, "the second call to find the job", func() bool { return strings.Contains(second.stderr.String(), "job "+s.lines("id")[0]) })
	s.release()
	s.touch("go")
	if o := s.finish(second); o.status != 0 {
		t.Errorf("the second call: %s", o)
	}
	s.wantStarts(1)
}

// diesInTheGap makes a call that is killed once its job is submitted, and
// before it knows which it is.
func (s *site) diesInTheGap(argv []string) {
	s.t.Helper()
	plain := s.sbatchHangs()
	j := s.begin(argv...)
	s.eventually(j, "what is submitted", func() bool { return len(s.lines("submitted")) > 0 })
	if err := j.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.ok("kill", s.lines("submitted")[0])
	_ = j.Wait()
	s.env = plain
}

// sbatchHangs makes sbatch never return once the job is submitted, and returns
// the environment as it was.
func (s *site) sbatchHangs() (plain []string) {
	s.t.Helper()
	s.write("fake/sbatch", "#!/bin/sh\nenv PATH=/usr/bin sbatch \"$@\" >$SIDE/id && echo $$ > $SIDE/submitted && exec sleep 600\n")
	s.ok("chmod", "755", "fake/sbatch")
	plain = s.env
	for _, v := range plain {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			s.env = append(slices.Clone(plain), "PATH="+s.dir+"/fake:"+path)
		}
	}
	return plain
}

// curi cancel, and scancel behind Curi's back.
func TestSlurmCancel(t *testing.T) {
	s := slurmSite(t, byCopy)
	script := "echo begun >> $SIDE/begun; while :; do sleep 0.02; done"
	detached := decode[jobRun](s, s.ok(s.batchArgv(script, "--detach")...))
	if detached.Job == "" {
		t.Fatalf("--detach: %+v", detached)
	}
	s.eventually(nil, "the job to begin", func() bool { return len(s.lines("begun")) == 1 })
	attached := s.begin("curi", "attach", detached.Run)
	s.ok("curi", "cancel", detached.Run)
	if o := s.finish(attached); o.status != 130 {
		t.Errorf("curi cancel: %s", o)
	}
	s.wantStatus("interrupted")
	s.fails(120, "is over", "curi", "cancel", detached.Run)

	j := s.begin(s.batchArgv(script)...)
	s.eventually(j, "the job to begin", func() bool { return len(s.lines("begun")) == 2 })
	s.ok("scancel", s.runs()[0].Job)
	if o := s.finish(j); o.status != 143 || !strings.Contains(o.stderr, "was cancelled") {
		t.Errorf("scancel: %s", o)
	}
	if r := s.runs()[0]; r.Status != "interrupted" {
		t.Errorf("after scancel: %+v", r)
	}
}

// At the time limit the command is told to save, and the job goes on from
// there: it is the same job, another run, and one result.
func TestSlurmTimeLimit(t *testing.T) {
	s := slurmSite(t, byCopy)
	script := `echo "try $CURI_ATTEMPT resume=$CURI_RESUME from [{resume}]" >> $SIDE/tries
		test -z "$CURI_RESUME" || { cat {work.w}/a.json > {out.model}; exit 0; }
		trap 'echo saved > {work.w}/a.json; exit 1' TERM; echo begun; while :; do sleep 0.02; done`
	script = strings.Replace(script, " from [{resume}]", "", 1)
	j := s.begin(s.batchArgv(script, "--work", "w", "--slurm", "time=1", "--slurm", "signal=45")...)
	o := s.finish(j)
	if o.status != 0 || !strings.Contains(o.stderr, "goes back into the queue") {
		t.Fatalf("a job with a time limit: %s", o)
	}
	if text := s.ok("cat", s.side+"/tries"); text != "try 1 resume=\ntry 2 resume=1\n" {
		t.Errorf("the tries were %q", text)
	}
	var r result
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || s.read(r.Outputs["model"].Path) != "saved\n" {
		t.Errorf("the result: %s", o)
	}
	runs := s.runs()
	if len(runs) != 2 || runs[0].Status != "succeeded" || runs[0].Attempt != 2 || runs[1].Status != "interrupted" || runs[0].Job != runs[1].Job || runs[0].Run != r.Run {
		t.Errorf("the runs: %+v", runs)
	}
}

// A job that saves nothing until its time limit would never end: it is not
// tried again. The warning is sent here as Slurm sends it.
func TestSlurmTimeLimitInVain(t *testing.T) {
	s := slurmSite(t, byCopy)
	j := s.begin(s.batchArgv("echo begun; while :; do sleep 0.02; done", "--work", "w")...)
	s.eventually(j, "the job to begin", func() bool { return strings.Contains(j.stderr.String(), "\nbegun\n") })
	s.ok("scancel", "--batch", "--signal=USR1", s.runs()[0].Job)
	if o := s.finish(j); o.status != 143 || !strings.Contains(o.stderr, "nothing new lies in a work directory") {
		t.Errorf("a job that saved nothing: %s", o)
	}
	s.wantStatus("timed-out")
}

// Preempted by a job of a better partition, a job saves on the signal, begins
// again by itself when the other is over, and goes on from what it saved.
func TestSlurmPreempted(t *testing.T) {
	s := slurmSite(t, byCopy)
	script := `echo "$CURI_ATTEMPT" >> $SIDE/tries; test -z "$CURI_RESUME" || { cat {work.w}/a > {out.model}; exit 0; }
		trap 'echo saved > {work.w}/a; exit 1' TERM; echo begun; while :; do sleep 0.02; done`
	j := s.begin(s.batchArgv(script, "--work", "w", "--slurm", "partition=low", "--slurm", "cpus-per-task=2")...)
	s.eventually(j, "the job to begin", func() bool { return strings.Contains(j.stderr.String(), "\nbegun\n") })
	urgent := s.ok("sbatch", "--parsable", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap", "echo x >> $SIDE/urgent; "+untilGo)
	s.eventually(j, "the urgent job to run instead", func() bool { return len(s.lines("urgent")) == 1 })
	if waits, urgent := s.queue(s.runs()[0].Job), s.queue(strings.TrimSpace(urgent)); !strings.Contains(waits, "PENDING") || !strings.Contains(urgent, "RUNNING") {
		t.Errorf("the job is %q, the urgent one %q", waits, urgent)
	}
	s.touch("go")
	o := s.finish(j)
	if o.status != 0 || !strings.Contains(o.stderr, "goes on as") {
		t.Errorf("a preempted job: %s", o)
	}
	if tries := s.lines("tries"); strings.Join(tries, " ") != "1 2" {
		t.Errorf("the tries were %v", tries)
	}
	if r := decode[result](s, o.stdout); s.read(r.Outputs["model"].Path) != "saved\n" {
		t.Errorf("the result: %s", o)
	}
	runs := s.runs()
	if len(runs) != 2 || runs[0].Status != "succeeded" || runs[1].Status != "interrupted" || runs[0].Job != runs[1].Job {
		t.Errorf("the runs: %+v", runs)
	}
}

// What a job mounts ends with it: a run of another job, or of none, is not in
// that mount, and none of them waits for the other.
func TestSlurmMountsOfTheirOwn(t *testing.T) {
	s := slurmSite(t, byCopy)
	s.way = "" // with a mount of its own
	script := "echo x >> $SIDE/ran; " + untilGo + "echo y > {out.model}"
	jobs := []*job{s.begin(s.batchArgv(script, "--param", "n=1")...)}
	s.eventually(jobs[0], "the first to run", func() bool { return s.starts() == 1 })
	jobs = append(jobs, s.begin(s.batchArgv(script, "--param", "n=2")...))
	s.eventually(jobs[1], "the second to run", func() bool { return s.starts() == 2 })
	jobs = append(jobs, s.begin(without(s.batchArgv(script, "--param", "n=3"), "--launcher", "slurm")...))
	s.eventually(jobs[2], "the third to run", func() bool { return s.starts() == 3 })
	type status struct {
		Mounts []struct {
			Dir  string
			Auto bool
		}
	}
	if st := decode[status](s, s.ok("curi", "status", "--json")); len(st.Mounts) != 3 || !st.Mounts[0].Auto {
		t.Errorf("the mounts are %+v", st)
	}
	s.touch("go")
	for _, j := range jobs {
		if o := s.finish(j); o.status != 0 {
			t.Error(o)
		}
	}
	s.eventually(nil, "the mounts to leave", func() bool { return len(decode[status](s, s.ok("curi", "status", "--json")).Mounts) == 0 })
}
