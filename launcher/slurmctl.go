package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/stages"
)

// slurmPatience bounds one call of a program of Slurm, which themselves try
// for a while where slurmctld does not answer.
const slurmPatience = time.Minute

// errNoSlurm: the programs of Slurm are not here, or get no answer.
var errNoSlurm = errors.New("Slurm cannot be asked")

// slurmctl runs one program of Slurm with what it reads, and returns what it
// prints. What ends curi does not reach it.
func slurmctl(ctx context.Context, env environment, stdin string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, slurmPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(slices.Clone(env), "SLURM_BITSTR_LEN=0") // lists of tasks in full
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("%w: there is no %s in PATH on this machine", errNoSlurm, argv[0])
	case ctx.Err() != nil:
		return "", fmt.Errorf("%w: %s gave no answer within %s", errNoSlurm, argv[0], slurmPatience)
	case err != nil:
		return "", &slurmError{program: argv[0], says: slurmSays(said.String(), argv[0]), err: err}
	}
	return out.String(), nil
}

// slurmError is a program of Slurm that ran and failed.
type slurmError struct {
	program, says string
	err           error
}

func (e *slurmError) Error() string {
	if e.says == "" {
		return fmt.Sprintf("%s: %v", e.program, e.err)
	}
	return e.program + ": " + e.says
}

func (e *slurmError) Unwrap() error { return e.err }

// slurmSays is what a program of Slurm said as one line, without its prefixes.
func slurmSays(text, program string) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		line = strings.TrimPrefix(line, program+": ")
		line = strings.TrimPrefix(line, "error: ")
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// slurmEnv is what programs of Slurm get: what a launcher of ranks set for
// this process says nothing of a job that it submits, and would be taken for
// options.
func slurmEnv(env environment) environment {
	e := slices.Clone(env)
	e.remove(func(name string) bool {
		return name == "CURI_RUN" || stages.IsRankVariable(name) && name != "SLURM_CONF" && name != "SLURM_CLUSTERS"
	})
	return e
}

// pastSlurmJob asks the accounts, which not every site has, for a job that
// slurmctld forgot.
func pastSlurmJob(ctx context.Context, env environment, name, id string) slurmJob {
	j := slurmJob{id: id}
	out, err := slurmctl(ctx, env, "", "sacct", "--noheader", "--parsable2", "--allocations", "--jobs="+id, "--format=JobName,State,ExitCode,NodeList")
	if err != nil {
		return j
	}
	for line := range strings.Lines(out) {
		if f := strings.Split(strings.TrimSpace(line), "|"); len(f) == 4 && f[0] == name {
			j.state, _, _ = strings.Cut(f[1], " ") // "CANCELLED by 1000"
			code, _, _ := strings.Cut(f[2], ":")
			j.exit, _ = strconv.Atoi(code)
			j.nodes = f[3]
		}
	}
	return j
}

// over reports whether the job will not run any more.
func (j slurmJob) over() bool {
	switch j.state {
	case "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING",
		"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD":
		return false
	}
	return true
}

// verdict says how a run ended whose job is over without having said so
// itself, with what to do next.
func (j slurmJob) verdict() (status stages.Status, exit int, why string) {
	where := ""
	if j.nodes != "" {
		where = " on " + j.nodes
	}
	const terminated, killed = 128 + 15, 128 + 9
	switch j.state {
	case "CANCELLED":
		return stages.Interrupted, terminated, "was cancelled"
	case "TIMEOUT":
		return stages.TimedOut, terminated, fmt.Sprintf("reached its time limit (%s): give it more (--slurm time=…), or a work directory to go on from", j.limit)
	case "DEADLINE":
		return stages.TimedOut, terminated, "did not end before its deadline"
	case "PREEMPTED":
		return stages.Interrupted, terminated, "was preempted, and Slurm does not run it again by itself: submit it again, it goes on from its work directories"
	case "OUT_OF_MEMORY":
		return stages.Failed, killed, "ran out of memory" + where + ": ask for more (--slurm mem=…)"
	case "NODE_FAIL":
		return stages.Failed, exitTrouble, "lost its node" + where + ": submit it again"
	case "BOOT_FAIL":
		return stages.Failed, exitTrouble, "ended because its node did not boot" + where + ": submit it again"
	case "FAILED", "COMPLETED":
		why := fmt.Sprintf("ended with exit status %d before the stage began or could be recorded%s: curi, the store and the project must be there at the same paths as here", j.exit, where)
		return stages.Failed, exitTrouble, why
	case "":
		return stages.Lost, exitTrouble, "is not known to Slurm any more, and left no result"
	}
	return stages.Failed, exitTrouble, "ended as " + j.state + where
}
