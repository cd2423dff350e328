package main_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Parameter sets of a stage as one job array of a real Slurm.

// arraySite is a site whose stage train has the parameter sets sweep/n=1, ….
// Each waits for a file of its number, or for go; on/ has a file for each that runs.
func arraySite(t *testing.T, sets, launcher string) *site {
	s := slurmSite(t, byCopy)
	s.write("curi.yaml", `
stages:
  train:
    shell: |
      trap 'rm -f $SIDE/on/{param.n}; exit 1' INT TERM
      mkdir -p $SIDE/on; touch $SIDE/on/{param.n}; ls $SIDE/on | wc -l >> $SIDE/most
      echo {param.n} >> $SIDE/ran; echo "set {param.n} try $CURI_ATTEMPT"
      test -e {work.w}/saved || echo "saved by {param.n}" > {work.w}/saved
      while ! test -e $SIDE/go -o -e $SIDE/go{param.n}; do sleep 0.02; done
      rm $SIDE/on/{param.n}; test {param.n} != 13 || exit 13
      cat {work.w}/saved > {out.m}; echo "try $CURI_ATTEMPT" >> {out.m}
    params: {n: 0}
    out: {m: m}
    work: [w]
    launcher: `+launcher+`
  eval: {shell: 'echo {param.n} >> $SIDE/evals; cat {in.m} > {out.e}', in: {m: train.m}, out: {e: e}, params: {n: 0}}
parameter_sets:
  base: {}
  sweep: {grid: {n: [`+sets+`]}}
`)
	return s
}

// tasks are the newest runs of train that are jobs, by their set's number. They
// must be of one array.
func (s *site) tasks() (array string, runs map[string]jobRun) {
	s.t.Helper()
	runs = map[string]jobRun{}
	for _, r := range decode[[]struct {
		jobRun
		Params map[string]any
	}](s, s.ok("curi", "log", "--stage", "train", "--json")) {
		n := fmt.Sprint(r.Params["n"])
		base, _, ok := strings.Cut(r.Job, "_")
		if _, older := runs[n]; !ok || older {
			continue
		}
		if array != "" && base != array {
			s.t.Errorf("%s is of job %s, others of array %s", r.Run, r.Job, array)
		}
		array, runs[n] = base, r.jobRun
	}
	return array, runs
}

// inQueue are the tasks of an array that are in a state.
func (s *site) inQueue(array, state string) []string {
	s.t.Helper()
	return strings.Fields(s.ok("squeue", "--array", "--noheader", "--states="+state, "--format=%i", "--job="+array))
}

// Sets that are to run are one array of which --jobs run at a time; each is a
// run of its own, to be cancelled, requeued and attached to. What needs a set
// goes on when that is there, and a set that is cached is no task.
func TestSlurmArray(t *testing.T) {
	s := arraySite(t, "1, 2, 3, 4, 5", "slurm")
	s.touch("go5")
	s.ok(s.execArgv("train", "--launcher", "local", "--set", "sweep/n=5")...)
	_ = os.Remove(s.side + "/ran")
	j := s.begin(s.execArgv("eval", "--set", "sweep", "--jobs", "2")...)
	s.eventually(j, "two tasks to run", func() bool { return s.starts() >= 2 })
	array, runs := s.tasks()
	if len(runs) != 4 || runs["5"].Job != "" {
		t.Fatalf("the tasks are %+v", runs)
	}
	if text := s.ok("scontrol", "show", "job", array); !strings.Contains(text, "ArrayJobId="+array+" ") || !strings.Contains(text, "ArrayTaskThrottle=2") {
		t.Errorf("not the array it should be:\n%s", text)
	}
	waiting := s.inQueue(array, "pending")
	if len(waiting) != 2 {
		t.Errorf("there wait %v", waiting)
	}
	type task struct{ Status, Why string }
	count := map[string]int{}
	for _, st := range decode[[]task](s, s.ok("curi", "stage", "status", "train", "--set", "sweep", "--json")) {
		if count[st.Status]++; st.Status != "cached" && !strings.HasSuffix(st.Why, "of Slurm") {
			t.Errorf("curi stage status: %+v", st)
		}
	}
	if count["running"] != 2 || count["queued"] != 2 || count["cached"] != 1 {
		t.Errorf("curi stage status counts %v", count)
	}
	var first, second, cancelled string
	for n, r := range runs {
		switch on := s.run("test", "-e", s.side+"/on/"+n).status == 0; {
		case !on:
			cancelled = n
		case first == "":
			first = n
		default:
			second = n
		}
		if r.Status != "running" && r.Status != "queued" {
			t.Errorf("set %s: %+v", n, r)
		}
	}
	s.ok("curi", "cancel", runs[cancelled].Run)
	if left := s.inQueue(array, "all"); slices.Contains(left, runs[cancelled].Job) || len(s.inQueue(array, "pending,running")) != 3 {
		t.Errorf("after one of four was cancelled: %v", left)
	}
	attached := s.begin("curi", "attach", runs[second].Run)
	s.ok("scontrol", "requeue", runs[first].Job)
	s.eventually(j, "the third to run meanwhile", func() bool { return s.starts() >= 3 })
	s.touch("go" + second)
	if o := s.finish(attached); o.status != 0 || !strings.Contains(o.stdout, "set "+second+" try") || strings.Contains(o.stdout, "set "+first+" try") {
		t.Errorf("attached to set %s: %s", second, o)
	}
	s.eventually(j, "what needs it to run while others of the array still do", func() bool { return slices.Contains(s.lines("evals"), second) })
	s.touch("go")
	if o := s.finish(j); o.status != 143 || strings.Count(o.stdout, `"event":"array"`) != 1 || strings.Count(o.stdout, `"event":"skipped"`) != 1 {
		t.Errorf("an array of which one task was cancelled: %s", o)
	}
	for _, n := range s.lines("most") {
		if n > "2" {
			t.Errorf("%s ran at once", n)
		}
	}
	_, runs = s.tasks()
	for n, r := range runs {
		want := map[string]string{cancelled: "interrupted"}[n]
		if want == "" {
			want = "succeeded"
			tries := map[string]string{first: "2"}[n]
			if text := s.ok("curi", "cat", r.Run+".m"); text != "saved by "+n+"\ntry "+cmp.Or(tries, "1")+"\n" {
				t.Errorf("the model of set %s: %q", n, text)
			}
		}
		if r.Status != want {
			t.Errorf("set %s: %+v", n, r)
		}
	}
	if left := s.ok("find", s.store+"/refs/job", "-type", "f"); left != "" {
		t.Errorf("jobs are left: %s", left)
	}
}

// A task that fails keeps those from beginning that wait, but for --keep-going.
func TestSlurmArrayFails(t *testing.T) {
	s := arraySite(t, "13, 1, 2", "slurm")
	s.touch("go")
	o := s.run(s.execArgv("train", "--set", "sweep", "--jobs", "1")...)
	if o.status != 13 || strings.Count(o.stdout, `"event":"skipped"`) != 2 || strings.Count(o.stdout, `"event":"failed"`) != 1 {
		t.Errorf("without --keep-going: %s", o)
	}
	s.wantRan("13")
	array, _ := s.tasks()
	if left := s.inQueue(array, "pending,running"); len(left) != 0 {
		t.Errorf("left in the queue: %v", left)
	}
	if o := s.run(s.execArgv("train", "--set", "sweep", "--jobs", "1", "--keep-going")...); o.status != 13 || !strings.Contains(o.stdout, `"ran":2`) {
		t.Errorf("with --keep-going: %s", o)
	}
	s.wantRan("13", "1", "2")
}

// Ctrl-C ends all of an array; --detach leaves it alone, and options of sbatch
// that depend on parameters make several.
func TestSlurmArrayInterruptAndDetach(t *testing.T) {
	s := arraySite(t, "1, 2, 3", `{slurm: {comment: "of {param.n}"}}`)
	s.write("curi.yaml", strings.Replace(s.read(s.dir+"/curi.yaml"), "of {param.n}", "all", 1))
	j := s.begin(s.execArgv("train", "--set", "sweep", "--jobs", "2")...)
	s.eventually(j, "two tasks to run", func() bool { return s.starts() == 2 })
	if err := j.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if o := s.finish(j); o.status != 130 {
		t.Errorf("an interrupted array: %s", o)
	}
	array, runs := s.tasks()
	s.eventually(nil, "the array to leave the queue", func() bool { return len(s.inQueue(array, "pending,running,completing")) == 0 })
	for n, r := range runs {
		if r.Status != "interrupted" {
			t.Errorf("set %s: %+v", n, r)
		}
	}
	s.wantStarts(2)

	s.write("curi.yaml", strings.Replace(s.read(s.dir+"/curi.yaml"), "comment: \"all\"", `comment: "{param.n}x"`, 1))
	s.write("curi.yaml", strings.Replace(s.read(s.dir+"/curi.yaml"), "n: [1, 2, 3]", `n: [1, 2], k: [a, b]`, 1))
	s.write("curi.yaml", strings.Replace(s.read(s.dir+"/curi.yaml"), "params: {n: 0}\n    out", "params: {n: 0, k: c}\n    via: env\n    out", 1))
	o := s.run(s.execArgv("train", "--set", "sweep", "--detach")...)
	if o.status != 0 || strings.Count(o.stdout, `"event":"array"`) != 2 || !strings.Contains(o.stdout, `"ran":0,"seconds"`) || !strings.Contains(o.stdout, `"submitted":4`) {
		t.Errorf("detached: %s", o)
	}
	arrays := map[string][]string{}
	for _, r := range s.runs()[:4] {
		base, _, _ := strings.Cut(r.Job, "_")
		arrays[base] = append(arrays[base], r.Run)
	}
	if len(arrays) != 2 {
		t.Errorf("the arrays are %v", arrays)
	}
	s.touch("go")
	for base, runs := range arrays {
		if text := s.ok("scontrol", "show", "job", base); len(runs) != 2 || strings.Count(text, "Comment=1x")+strings.Count(text, "Comment=2x") != strings.Count(text, "JobId=")/2 {
			t.Errorf("array %s of %v:\n%s", base, runs, text)
		}
		for _, run := range runs {
			if o := s.run("curi", "attach", run); o.status != 0 && !strings.Contains(o.stderr, "is over (succeeded") {
				t.Errorf("attach %s: %s", run, o)
			}
		}
	}
}

// A submitter that dies between the submission of an array and its note of it
// leaves tasks that are found by the array's name.
func TestSlurmArraySubmitterDiesInTheGap(t *testing.T) {
	s := arraySite(t, "1, 2", "{slurm: {hold: true}}")
	argv := s.execArgv("train", "--set", "sweep")
	s.diesInTheGap(argv)
	second := s.begin(argv...)
	array := s.lines("id")[0]
	for _, task := range []string{array + "_0", array + "_1"} {
		s.eventually(second, "the second call to find "+task, func() bool { return strings.Contains(second.stderr.String(), "job "+task+" of Slurm") })
	}
	s.ok("scontrol", "release", array)
	s.touch("go")
	if o := s.finish(second); o.status != 0 {
		t.Errorf("the second call: %s", o)
	}
	s.wantStarts(2)
}
