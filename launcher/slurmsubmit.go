package launcher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// jobOptions are the options of Exec that a job needs where it runs.
type jobOptions struct {
	Force    bool          `json:"force"`
	Fresh    bool          `json:"fresh"`
	Retries  int           `json:"retries"`
	NoMount  bool          `json:"no_mount"`
	Places   string        `json:"places"`
	Timeout  time.Duration `json:"timeout"`
	Grace    time.Duration `json:"grace"`
	Snapshot time.Duration `json:"snapshot"`
	PerNode  bool          `json:"per_node"`
	Requeue  bool          `json:"requeue"` // at the time limit it goes on in the same job
	Stop     bool          `json:"stop"`    // if it fails, others of its array that wait are cancelled
}

// jobDir is where a job's output grows, in the place of its key.
func jobDir(s *cas.Store, key string) string { return filepath.Join(s.Place(key).Dir(), "job") }

// jobOutput and jobErrors are what a job writes to its stdout and stderr, what
// Curi says in it included.
func jobOutput(s *cas.Store, j stages.Job) string {
	return filepath.Join(jobDir(s, j.Key), j.Name+".out")
}

func jobErrors(s *cas.Store, j stages.Job) string {
	return filepath.Join(jobDir(s, j.Key), j.Name+".err")
}

// submit makes a job of the stage, which is to be followed once the key's lock,
// which the caller holds, is given back; with Detach the result is all there is.
func (e *execution) submit(ctx context.Context) (*Result, *stages.Job, error) {
	if err := e.checkSlurmNodes(); err != nil {
		return nil, nil, err
	}
	if err := e.bringAll(ctx); err != nil {
		return nil, nil, err
	}
	host, _ := os.Hostname()
	job := stages.Job{Key: e.p.Key.String(), Stage: e.p.Name, Project: e.p.Project.Name, Run: e.id, Name: "curi-" + e.id,
		System: "slurm", User: userName(), Host: host, Submitted: time.Now().UTC()}
	task := e.o.Slurm.task
	defer task.leave()
	if task.late() {
		task = nil
	} else {
		job.Array, job.Task = task.name, task.index
	}
	tree, err := stages.StorePlan(ctx, e.s, e.p, jobOptions{
		Force: e.o.Force, Fresh: e.o.Fresh, Retries: e.o.Retries, Snapshot: e.o.Snapshot, NoMount: e.o.NoMount, Places: e.o.Places, Timeout: e.o.Timeout, Grace: e.o.Grace, PerNode: e.o.Slurm.PerNode, Requeue: e.requeues(), Stop: e.o.Slurm.stop})
	if err != nil {
		return nil, nil, err
	}
	defer tree.Release()
	job.Tree = tree.Tree
	// Not in the job: what it writes grows in the place.
	if err := (&run{execution: e, place: e.s.Place(job.Key)}).movePlace(ctx); err != nil {
		return nil, nil, err
	}
	if err := e.prepareJobDir(); err != nil {
		return nil, nil, err
	}
	// From here on no signal cuts it off: a job must never be there unknown.
	ctx = context.WithoutCancel(ctx)
	if err := stages.PutRun(ctx, e.s, e.queuedRun(), cas.Digest{}); err != nil {
		return nil, nil, err
	}
	if err := stages.CreateJob(ctx, e.s, job); err != nil {
		return nil, nil, err
	}
	var id string
	if task != nil {
		id, err = task.join(e, job)
	} else {
		id, err = e.sbatch(ctx, []stages.Job{job}, 0)
	}
	if err != nil {
		return nil, nil, e.unsubmit(ctx, job, err)
	}
	job.ID = id
	if err := e.noteJobID(ctx, job); err != nil {
		return nil, nil, err
	}
	e.submitted = job.Name
	e.say("%s is job %s of Slurm", e.id, id)
	if e.o.Slurm.Detach {
		e.say("curi attach %s shows it, curi cancel %s ends it", e.id, e.id)
		res := e.result(0)
		res.Job = id
		return res, nil, nil
	}
	return nil, &job, nil
}

// bringAll brings what the store lacks of the inputs: nodes may reach no remote.
func (e *execution) bringAll(ctx context.Context) error {
	bare := *e.o
	bare.NoMount = true
	all := *e
	all.o = &bare
	if err := (&run{execution: &all}).bringInputs(ctx); err != nil {
		return err
	}
	e.p.Lacks = nil
	return nil
}

// requeues reports whether a job that meets its time limit goes on.
func (e *execution) requeues() bool {
	_, no := e.o.Slurm.Options["no-requeue"]
	return !no
}

// checkSlurmNodes refuses what could not work: in a job of several nodes a
// mount is seen by one of them only.
func (e *execution) checkSlurmNodes() error {
	if e.o.Slurm.PerNode {
		if err := checkNodeStage(e.p); err != nil || e.o.Places == "" {
			return err
		}
	}
	if e.o.Places != "" {
		return e.checkPlaces("")
	}
	if n := e.o.Slurm.nodes(); n > 1 {
		return fmt.Errorf("%w: a job of %d nodes, of which the first alone sees the places of the run: --places DIR puts them where all do, --per-node runs the command on each", ErrRefused, n)
	}
	return nil
}

// oneNode reports whether a job must have one node, and does not say so.
func (e *execution) oneNode() bool {
	_, said := e.o.Slurm.Options["nodes"]
	return !said && e.o.Places == "" && !e.o.Slurm.PerNode
}

// queuedRun is the run that the job is to make.
func (e *execution) queuedRun() stages.Run {
	r := stages.NewRun(e.p, e.id, 1)
	r.Status = stages.Queued
	return r
}

// endQueued says how a run ended that never began.
func (e *execution) endQueued(ctx context.Context, id string, status stages.Status, exit int) {
	r, err := stages.FindRun(ctx, e.s, id)
	if err != nil || r.Status != stages.Queued {
		return
	}
	r.Status, r.Exit, r.Ended = status, exit, time.Now().UTC()
	if err := stages.PutRun(ctx, e.s, r, r.Tree); err != nil {
		e.warn("%s", oneLine(err))
	}
}

// noteJobID makes the number of a job known with it and its run.
func (e *execution) noteJobID(ctx context.Context, job stages.Job) error {
	if err := stages.PutJob(ctx, e.s, job); err != nil {
		return err
	}
	r, err := stages.FindRun(ctx, e.s, job.Run)
	if err != nil {
		return err
	}
	r.Job = job.ID
	return stages.PutRun(ctx, e.s, r, r.Tree)
}

// prepareJobDir makes the directory for the job's output, without what an
// earlier job wrote.
func (e *execution) prepareJobDir() error {
	dir := jobDir(e.s, e.p.Key.String())
	if err := removeAll(dir); err != nil {
		return err
	}
	return makeDir(dir)
}

// sbatch submits a job, or several as one array of which at most limit run at
// once (0: as Slurm likes), and returns its number.
func (e *execution) sbatch(ctx context.Context, jobs []stages.Job, limit int) (string, error) {
	argv := []string{"sbatch", "--parsable", "--job-name=" + slurmName(jobs[0]), "--chdir=" + e.p.Dir, "--open-mode=append",
		fmt.Sprintf("--signal=B:USR1@%d", e.o.Slurm.warning(e.o.Grace)), "--export=ALL"}
	script := "#!/bin/sh\n"
	if jobs[0].Array == "" {
		argv = append(argv, "--output="+slurmFile(jobOutput(e.s, jobs[0])), "--error="+slurmFile(jobErrors(e.s, jobs[0])))
		script += "exec " + stages.ShellQuote(e.jobCommand(jobs[0])) + "\n"
	} else {
		argv = append(argv, "--array="+arrayTasks(jobs, limit), "--output=/dev/null", "--error=/dev/null")
		script += e.arrayScript(jobs)
	}
	if e.requeues() {
		argv = append(argv, "--requeue")
	}
	if e.oneNode() { // tasks that do not fit on one would be spread
		argv = append(argv, "--nodes=1")
	}
	for _, name := range slices.Sorted(maps.Keys(e.o.Slurm.Options)) {
		value := e.o.Slurm.Options[name]
		switch {
		case name == "signal":
		case value == "":
			argv = append(argv, "--"+name)
		default:
			argv = append(argv, "--"+name+"="+value)
		}
	}
	out, err := slurmctl(ctx, slurmEnv(e.env), script, argv...)
	switch {
	case errors.Is(err, errNoSlurm):
		return "", fmt.Errorf("%w: %w: submit from a machine that has Slurm, or leave the launcher out to run it here", ErrRefused, err)
	case err != nil && len(jobs) > 1 && strings.Contains(err.Error(), "Invalid job array specification"):
		return "", fmt.Errorf("%w: the array of %d jobs was not taken: %w: see how large one may be here (scontrol show config, MaxArraySize), and choose fewer sets (--set)", ErrRefused, len(jobs), err)
	case err != nil && e.oneNode() && strings.Contains(err.Error(), "node configuration is not available"):
		return "", fmt.Errorf("%w: the job was not taken: %w: it has to fit on one node, which alone sees the places of the run, unless --places DIR puts them where all do, or --per-node runs the command on each", ErrRefused, err)
	case err != nil:
		return "", fmt.Errorf("%w: the job was not taken: %w", ErrRefused, err)
	}
	id, _, _ := strings.Cut(strings.TrimSpace(out), ";") // ";CLUSTER" may follow
	if id == "" {
		return "", fmt.Errorf("%w: sbatch named no job", ErrRefused)
	}
	return id, nil
}

// jobCommand is what runs a job where it starts.
func (e *execution) jobCommand(job stages.Job) []string {
	command := append(slices.Clone(e.o.Slurm.Command), job.Key, job.Name)
	if e.o.Slurm.PerNode {
		// What Slurm sends to the job reaches all of its tasks, at once.
		command = append([]string{"srun", "--disable-status", "--kill-on-bad-exit=0"}, command...)
	}
	return command
}

// arrayTasks are the tasks of an array for sbatch. Their numbers may have gaps.
func arrayTasks(jobs []stages.Job, limit int) string {
	var tasks []string
	for _, j := range jobs {
		tasks = append(tasks, strconv.Itoa(j.Task))
	}
	text := strings.Join(tasks, ",")
	if limit > 0 {
		text += "%" + strconv.Itoa(limit)
	}
	return text
}

// arrayScript runs the job of whatever task it is started for. Slurm itself
// names the outputs of all tasks by one pattern, which could not lead to each
// key's own place.
func (e *execution) arrayScript(jobs []stages.Job) string {
	var b strings.Builder
	b.WriteString("case $SLURM_ARRAY_TASK_ID in\n")
	for _, j := range jobs {
		fmt.Fprintf(&b, "%d) exec %s >>%s 2>>%s;;\n", j.Task, stages.ShellQuote(e.jobCommand(j)),
			stages.ShellQuote([]string{jobOutput(e.s, j)}), stages.ShellQuote([]string{jobErrors(e.s, j)}))
	}
	b.WriteString("esac\n")
	return b.String()
}

// slurmFile is a path as a file name pattern of Slurm that means nothing else.
func slurmFile(path string) string { return strings.ReplaceAll(path, "%", "%%") }
