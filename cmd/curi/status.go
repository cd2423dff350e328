package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// statusJSON is what `curi status --json` prints.
type statusJSON struct {
	Store      string        `json:"store"`
	StoreFrom  string        `json:"store_from"`
	ID         string        `json:"id"`
	Filesystem string        `json:"filesystem"`
	Reflinks   bool          `json:"reflinks"`
	FreeBytes  int64         `json:"free_bytes"`
	Mounts     []mountJSON   `json:"mounts"`
	Stale      []string      `json:"stale"` // directories whose server died
	Running    []runningJSON `json:"running"`
	Queued     []runningJSON `json:"queued"` // jobs that wait to run
	Owed       []owedJSON    `json:"owed"`
}

type owedJSON struct {
	Remote  string `json:"remote"`
	Results int    `json:"results"`
	Failed  string `json:"failed"` // why the last attempt did, or ""
}

type mountJSON struct {
	Dir         string `json:"dir"`
	Passthrough bool   `json:"passthrough"`
	Reason      string `json:"reason"` // why passthrough is off; "" when on
	Auto        bool   `json:"auto"`   // made for a run, leaves with it
	PID         int    `json:"pid"`
	AllowOther  bool   `json:"allow_other"`
	Metrics     string `json:"metrics"` // HOST:PORT of -o metrics=, or ""

	Stats *cas.MountStats `json:"stats"` // null where the mount cannot be asked
}

type runningJSON struct {
	Run     string    `json:"run"`
	Stage   string    `json:"stage"`
	Project string    `json:"project"`
	Key     string    `json:"key"`
	Attempt int       `json:"attempt"`
	Started time.Time `json:"started"` // of a queued one: when it was submitted
	Job     string    `json:"job"`     // of Slurm, its number; else ""
	State   string    `json:"state"`   // what Slurm says of the job; "" where it cannot be asked
}

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the store, its mounts, running stages and space",
		Long: `Show which store is used, its mounts, the stages that run, how much space is free, and
results that are to go to a remote and are not there yet.

Of each mount it tells whether the kernel serves the reads and writes of large files
itself (passthrough) and what its server counted since it began to serve: files
opened, by passthrough and open now; bytes that went through the server (those by
passthrough nobody counts); cache hits, which are opens of stored files during which
the kernel asked for no byte, of all opens of stored files without passthrough; and
requests answered with an error. "curi help json" has the fields.`,
		Example: `  curi status
  curi status --json`,
		Args:              nargs(0, 0, "no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return a.status(c.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	a.leaveOwed = true
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	out := statusJSON{Store: s.Dir(), ID: s.ID(), Mounts: []mountJSON{}, Stale: []string{}, Owed: []owedJSON{}}
	_, out.StoreFrom = a.cfg.get("store")
	if f, err := s.Facts(ctx); err == nil {
		out.Filesystem, out.FreeBytes, out.Reflinks = f.Filesystem, f.Free, f.Reflinks
	}
	live, stale, err := s.Mounts(ctx)
	if err != nil {
		return err
	}
	for _, m := range live {
		out.Mounts = append(out.Mounts, mountJSON{m.Dir, m.Passthrough, m.Reason, m.Auto, m.PID, m.AllowOther, m.Metrics, nil})
	}
	a.askMounts(ctx, live, out.Mounts)
	for _, m := range stale {
		out.Stale = append(out.Stale, m.Dir)
	}
	if out.Running, out.Queued, err = a.running(ctx, s); err != nil {
		return err
	}
	remotes, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	for _, c := range remotes {
		owed, err := remote.AllOwed(ctx, s, c.Name)
		if err != nil {
			return err
		}
		if len(owed) > 0 {
			why, _ := remote.Failed(s, c.Name)
			out.Owed = append(out.Owed, owedJSON{c.Name, len(owed), why})
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	return a.write(wordStatus(out))
}

// jobPatience is how long Slurm may take to say what its jobs do.
const jobPatience = 5 * time.Second

// running lists the runs that run and those that wait to.
func (a *app) running(ctx context.Context, s *cas.Store) (running, queued []runningJSON, err error) {
	opts, err := a.jobOptions()
	if err != nil {
		return nil, nil, err
	}
	asking, cancel := context.WithTimeout(ctx, jobPatience)
	defer cancel()
	states, err := launcher.LookAfterJobs(asking, s, opts)
	if err != nil {
		a.warn("%s", oneLine(err.Error()))
	}
	running, queued = []runningJSON{}, []runningJSON{}
	for r, err := range stages.Runs(ctx, s) {
		if err != nil {
			a.warn("%s", oneLine(err.Error()))
			continue
		}
		r = a.asItIs(ctx, s, r)
		l := runningJSON{r.ID, r.Stage, r.Project, r.Key, r.Attempt, r.Started, r.Job, states[r.ID]}
		switch r.Status {
		case stages.Running:
			running = append(running, l)
		case stages.Queued:
			queued = append(queued, l)
		}
	}
	return running, queued, nil
}

// wordJob tells which job a run is; "" if it is none.
func wordJob(r runningJSON) string {
	switch {
	case r.Job == "":
		return ""
	case r.State == "":
		return ", job " + r.Job + " of Slurm"
	}
	return ", job " + r.Job + " of Slurm: " + r.State
}

func wordStatus(st statusJSON) string {
	var b strings.Builder
	line := func(k, format string, args ...any) {
		fmt.Fprintf(&b, "%-8s %s\n", k, fmt.Sprintf(format, args...))
	}
	line("store", "%s (%s)", st.Store, st.StoreFrom)
	reflinks := "no reflinks"
	if st.Reflinks {
		reflinks = "reflinks"
	}
	line("space", "%s free on %s, %s", size(st.FreeBytes), st.Filesystem, reflinks)
	for _, m := range st.Mounts {
		pass := "passthrough on"
		if !m.Passthrough {
			pass = "passthrough off: " + orDash(m.Reason)
		}
		if m.Auto {
			pass += "; made for a run"
		}
		line("mount", "%s (%s)", m.Dir, pass)
		for _, l := range wordMountStats(m) {
			line("", "%s", l)
		}
	}
	for _, d := range st.Stale {
		line("mount", "%s (its server died; curi umount --stale clears it away)", d)
	}
	if len(st.Mounts)+len(st.Stale) == 0 {
		line("mount", "none; curi mount DIR makes one")
	}
	for _, r := range st.Running {
		line("running", "%s of %s, for %s%s", r.Run, r.Project, span(time.Since(r.Started)), wordJob(r))
	}
	for _, r := range st.Queued {
		line("queued", "%s of %s, for %s%s", r.Run, r.Project, span(time.Since(r.Started)), wordJob(r))
	}
	if len(st.Running)+len(st.Queued) == 0 {
		line("running", "nothing")
	}
	for _, o := range st.Owed {
		line("owed", "%s to remote %s; the next command, or curi push --wait, brings what can be brought", count(int64(o.Results), "result"), o.Remote)
		if o.Failed != "" {
			line("", "the last attempt failed: %s", oneLine(o.Failed))
		}
	}
	return b.String()
}
