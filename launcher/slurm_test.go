package launcher

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/stages"
)

func TestSlurmTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Minute, "1:30": 90 * time.Second, "4:00:00": 4 * time.Hour, "2-12": 60 * time.Hour,
		"2-12:30": 60*time.Hour + 30*time.Minute, "1-0:0:1": 24*time.Hour + time.Second, "UNLIMITED": 0, "0": 0,
	} {
		if got, err := slurmTime(text); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "4h", "1:2:3:4", "-1", "1-", "1-2:3:4:5", "1.5"} {
		if got, err := slurmTime(text); !errors.Is(err, stages.ErrUsage) {
			t.Errorf("%q: %v, %v; want a usage error", text, got, err)
		}
	}
}

func TestCheckSlurm(t *testing.T) {
	got, err := CheckSlurm(map[string]string{"partition": "gpu", "nodes": "2-4", "exclusive": "true", "contiguous": "false",
		"time": "4:00:00", "gpus-per-node": "4", "requeue": "false", "signal": "300"})
	want := map[string]string{"partition": "gpu", "nodes": "2-4", "exclusive": "", "time": "4:00:00", "gpus-per-node": "4", "no-requeue": "", "signal": "300"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for name, says := range map[string]string{"N": "write nodes", "--partition": "without dashes", "output": "Curi itself", "nodes=x": "a number", "time=4h": "4:00:00",
		"signal=B:TERM@60": "number of seconds", "array": "--jobs its limit", "comment=a\nb": "one line"} {
		k, v, _ := strings.Cut(name, "=")
		if _, err := CheckSlurm(map[string]string{k: v}); !errors.Is(err, stages.ErrUsage) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want a usage error that says %q", name, err, says)
		}
	}
}

// How long before the time limit a job is told: never so long that nothing of
// a short one is left.
func TestSlurmWarning(t *testing.T) {
	for options, want := range map[string]int{"": 100, "time=4:00:00": 100, "time=2": 30, "time=UNLIMITED": 100, "time=2 signal=7": 7} {
		sl := &Slurm{Options: map[string]string{}}
		for _, o := range strings.Fields(options) {
			k, v, _ := strings.Cut(o, "=")
			sl.Options[k] = v
		}
		if got := sl.warning(40 * time.Second); got != want {
			t.Errorf("%q: %d s, want %d", options, got, want)
		}
	}
}

// Every state in which Slurm leaves a job ends a run, with an exit status and a
// line that says what to do; all others go on.
func TestSlurmStates(t *testing.T) {
	show := func(state, exit string) slurmJob {
		j, name := parseSlurmJob("JobId=7 JobName=curi-x UserId=a(1) JobState=" + state + " Reason=None Dependency=(null) ExitCode=" + exit + " TimeLimit=00:01:00 NodeList=n1 ReqNodeList=(null)\n")
		if name != "curi-x" {
			t.Fatalf("the name is %q", name)
		}
		return j
	}
	for state, want := range map[string]struct {
		status stages.Status
		exit   int
		says   string
	}{
		"FAILED":        {stages.Failed, 123, "ended with exit status 127 before the stage began or could be recorded on n1"},
		"COMPLETED":     {stages.Failed, 123, "before the stage began"},
		"TIMEOUT":       {stages.TimedOut, 143, "its time limit (00:01:00): give it more"},
		"DEADLINE":      {stages.TimedOut, 143, "deadline"},
		"CANCELLED":     {stages.Interrupted, 143, "was cancelled"},
		"PREEMPTED":     {stages.Interrupted, 143, "was preempted"},
		"OUT_OF_MEMORY": {stages.Failed, 137, "ran out of memory on n1: ask for more"},
		"NODE_FAIL":     {stages.Failed, 123, "lost its node on n1"},
		"BOOT_FAIL":     {stages.Failed, 123, "did not boot on n1"},
		"REVOKED":       {stages.Failed, 123, "ended as REVOKED"},
	} {
		j := show(state, "127:0")
		status, exit, why := j.verdict()
		if !j.over() || status != want.status || exit != want.exit || !strings.Contains(why, want.says) {
			t.Errorf("%s: over %v, %s, %d, %q; want %+v", state, j.over(), status, exit, why, want)
		}
	}
	for _, state := range []string{"PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING"} {
		if show(state, "0:0").over() {
			t.Errorf("%s is over", state)
		}
	}
	if status, exit, _ := (slurmJob{}).verdict(); status != stages.Lost || exit != 123 || !(slurmJob{}).over() {
		t.Errorf("a job that nobody knows: %s, %d", status, exit)
	}
	if j := show("FAILED", "0:9"); j.exit != 137 {
		t.Errorf("ended by signal 9: %d", j.exit)
	}
}

// What Slurm says of an array's tasks: lines of their own for some, one for the
// others.
func TestSlurmRecord(t *testing.T) {
	text := `JobId=9 ArrayJobId=7 ArrayTaskId=2 ArrayTaskThrottle=2 JobName=a JobState=RUNNING Reason=None
JobId=7 ArrayJobId=7 ArrayTaskId=4,6-8,10-20:5%2 ArrayTaskThrottle=2 JobName=a JobState=PENDING Reason=JobArrayTaskLimit
`
	for task, want := range map[int]string{2: "RUNNING", 4: "PENDING", 5: "", 6: "PENDING", 8: "PENDING", 9: "", 10: "PENDING", 12: "", 15: "PENDING", 20: "PENDING", 21: ""} {
		if j, _ := parseSlurmJob(slurmRecord(text, stages.Job{Array: "a", Task: task})); j.state != want {
			t.Errorf("task %d is %q, want %q", task, j.state, want)
		}
	}
}
