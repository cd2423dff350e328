package launcher

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/curi-store/curi/stages"
)

// slurmJob is a job as Slurm tells of it.
type slurmJob struct {
	id     string
	state  string // "" if Slurm knows no such job any more
	reason string // why it is pending, or how it ended
	nodes  string
	limit  string // its time limit
	exit   int    // as a shell counts
}

var slurmField = map[string]*regexp.Regexp{}

func init() {
	for _, f := range []string{"JobState", "Reason", "NodeList", "TimeLimit", "ExitCode", "JobName", "ArrayTaskId"} {
		slurmField[f] = regexp.MustCompile(`(?m)(?:^|\s)` + f + `=(\S*)`)
	}
}

// parseSlurmJob reads what `scontrol -o show job` prints of one job.
func parseSlurmJob(text string) (j slurmJob, name string) {
	field := func(f string) string {
		if m := slurmField[f].FindStringSubmatch(text); m != nil && m[1] != "(null)" {
			return m[1]
		}
		return ""
	}
	j = slurmJob{state: field("JobState"), reason: field("Reason"), nodes: field("NodeList"), limit: field("TimeLimit")}
	code, sig, _ := strings.Cut(field("ExitCode"), ":")
	j.exit, _ = strconv.Atoi(code)
	if n, _ := strconv.Atoi(sig); n > 0 {
		j.exit = 128 + n
	}
	if j.reason == "None" {
		j.reason = ""
	}
	return j, field("JobName")
}

// slurmRecord is the line of `scontrol -o show job` that tells of a job; "" if
// none does. Of an array those tasks have lines of their own that have begun, or
// were touched; one line tells of all others.
func slurmRecord(text string, job stages.Job) string {
	if job.Array == "" {
		return text
	}
	for line := range strings.Lines(text) {
		m := slurmField["ArrayTaskId"].FindStringSubmatch(line)
		if m != nil && hasTask(m[1], job.Task) {
			return line
		}
	}
	return ""
}

// hasTask reports whether a list of tasks as Slurm writes it, such as
// 0,3-5,8-20:4%2, has one.
func hasTask(list string, task int) bool {
	list, _, _ = strings.Cut(list, "%")
	for item := range strings.SplitSeq(list, ",") {
		span, by, _ := strings.Cut(item, ":")
		first, last, ranged := strings.Cut(span, "-")
		if !ranged {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, lerr := strconv.Atoi(last)
		if err != nil || lerr != nil || task < from || task > to {
			continue
		}
		if step, err := strconv.Atoi(by); err != nil || step < 1 || (task-from)%step == 0 {
			return true
		}
	}
	return false
}

// slurmName is what Slurm calls a job.
func slurmName(job stages.Job) string {
	if job.Array != "" {
		return job.Array
	}
	return job.Name
}

// taskID is how Slurm's programs are told of one task of an array.
func taskID(array string, task int) string { return array + "_" + strconv.Itoa(task) }

// ownSlurmID is the number of the job that this process is part of; "" if it is none.
func ownSlurmID(env environment) string {
	if array, ok := env.get("SLURM_ARRAY_JOB_ID"); ok {
		if task, ok := env.get("SLURM_ARRAY_TASK_ID"); ok {
			return array + "_" + task
		}
	}
	id, _ := env.get("SLURM_JOB_ID")
	return id
}

// askSlurm asks for a job. One whose number is not known yet is looked for by
// its name. The error wraps errNoSlurm where nobody can tell.
func askSlurm(ctx context.Context, env environment, job stages.Job) (slurmJob, error) {
	env = slurmEnv(env)
	id := job.ID
	if id == "" {
		out, err := slurmctl(ctx, env, "", "squeue", "--noheader", "--states=all", "--name="+slurmName(job), "--format=%F")
		if err != nil {
			return slurmJob{}, fmt.Errorf("%w: %w", errNoSlurm, err)
		}
		if id, _, _ = strings.Cut(strings.TrimSpace(out), "\n"); id == "" {
			return slurmJob{}, nil
		}
		if job.Array != "" {
			id = taskID(id, job.Task)
		}
	}
	out, err := slurmctl(ctx, env, "", "scontrol", "--oneliner", "show", "job", id)
	var failed *slurmError
	switch {
	case errors.As(err, &failed) && (strings.Contains(failed.says, "Invalid job id") || job.Array != ""):
		if takenFromArray(ctx, env, job, id) {
			return slurmJob{id: id, state: "CANCELLED"}, nil
		}
		return pastSlurmJob(ctx, env, slurmName(job), id), nil
	case err != nil && !errors.Is(err, errNoSlurm):
		return slurmJob{}, fmt.Errorf("%w: %w", errNoSlurm, err)
	case err != nil:
		return slurmJob{}, err
	}
	j, name := parseSlurmJob(slurmRecord(out, job))
	if name != slurmName(job) {
		return slurmJob{id: id}, nil // numbers begin anew after a reset
	}
	j.id = id
	return j, nil
}

// takenFromArray reports whether Slurm knows a task's array, but not the task:
// what is cancelled before it began leaves nothing.
func takenFromArray(ctx context.Context, env environment, job stages.Job, id string) bool {
	if job.Array == "" {
		return false
	}
	base, _, _ := strings.Cut(id, "_")
	out, err := slurmctl(ctx, env, "", "scontrol", "--oneliner", "show", "job", base)
	_, name := parseSlurmJob(out)
	return err == nil && name == job.Array && slurmRecord(out, job) == ""
}
