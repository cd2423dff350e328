package launcher

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/curi-store/curi/stages"
)

// newRecord is the record of a run that begins: what the plan knows and what
// this machine is.
func (r *run) newRecord(ctx context.Context, last lastTry) *stages.Record {
	rec := stages.NewRecord(r.p)
	rec.Run, rec.Status, rec.Attempt = r.id, stages.Running, r.attempt.number
	rec.Started, rec.User, rec.Curi = r.info.Started, userName(), r.o.Curi
	rec.Argv = r.shown
	rec.ResumedFrom = r.resumedFrom(ctx, last)
	rec.Nodes = []stages.Node{thisNode()}
	env := commandEnv(r.env, r.p, r.places, r.attempt, r.argv)
	rec.Python = stages.FindPython(r.argv, env, r.p.Dir)
	skip := []string{r.s.Dir()}
	if r.mount != nil {
		skip = append(skip, r.mount.Dir)
	}
	git, err := stages.Capture(ctx, r.p.Project, skip...)
	if err != nil {
		r.warn("the record does not hold the state of git: %s", oneLine(err))
	}
	rec.Git = git
	return rec
}

// fillRecord adds how the run ended.
func (r *run) fillRecord(out *outcome, done []sealed) {
	rec := r.record
	rec.Status, rec.Exit, rec.Ended = out.status, out.exit, r.info.Ended
	rec.Seconds = r.info.Ended.Sub(r.info.Started).Seconds()
	rec.Nodes[0].Exit = out.exit
	if r.lead != nil {
		rec.Nodes[0].Exit = r.ownExit
	}
	for _, p := range r.parts {
		if rec.Nodes = append(rec.Nodes, p.Node); !p.log.IsZero() {
			rec.Nodes[len(rec.Nodes)-1].Log = nodeLogs + "/" + nodeLog(p.rank)
		}
	}
	fillOutputs(rec, done)
}

func fillOutputs(rec *stages.Record, done []sealed) {
	rec.Outputs = slices.Clone(rec.Outputs)
	for _, s := range done {
		if o := rec.Output(s.name); o != nil {
			o.Tree, o.Digest, o.Bytes, o.Files = s.added.Tree, s.added.Digest, s.added.Bytes, s.added.Files
		}
	}
}

func userName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// thisNode describes this machine.
func thisNode() stages.Node {
	host, _ := os.Hostname()
	gpus, driver := nvidia("/proc/driver/nvidia")
	return stages.Node{Host: host, OS: runtime.GOOS, Arch: runtime.GOARCH, Kernel: kernel(), CPUs: runtime.NumCPU(), GPUs: gpus, Driver: driver}
}

// nvidia reads GPU models and driver where the driver shows them, without
// starting nvidia-smi, which takes seconds on a large machine.
func nvidia(dir string) (models []string, driver string) {
	files, _ := filepath.Glob(filepath.Join(dir, "gpus", "*", "information"))
	slices.Sort(files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "Model" {
				models = append(models, strings.TrimSpace(v))
			}
		}
	}
	// NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb …
	b, _ := os.ReadFile(filepath.Join(dir, "version"))
	line, _, _ := strings.Cut(string(b), "\n")
	for _, w := range strings.Fields(line) {
		if w[0] >= '0' && w[0] <= '9' && strings.Contains(w, ".") {
			driver = w
			break
		}
	}
	return models, driver
}
