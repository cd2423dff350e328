package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// loggedJSON is an element of what `curi log --json` prints.
type loggedJSON struct {
	Run      string             `json:"run"`
	Stage    string             `json:"stage"`
	Project  string             `json:"project"`
	Key      string             `json:"key"`
	Status   stages.Status      `json:"status"`
	Exit     int                `json:"exit_status"`
	Attempt  int                `json:"attempt"`
	Started  time.Time          `json:"started"`
	Ended    *time.Time         `json:"ended"`   // null while it runs
	Seconds  float64            `json:"seconds"` // so far, while it runs
	Params   map[string]string  `json:"params"`
	OpParams map[string]string  `json:"op_params"`
	Outputs  []string           `json:"outputs"`
	Work     []string           `json:"work"`
	Job      string             `json:"job"`     // the number of the batch system's job, or ""
	SameAs   string             `json:"same_as"` // nothing ran: the result is this run's
	Differs  []stages.Differing `json:"differs"` // results elsewhere of the same key with other outputs
	Record   json.RawMessage    `json:"record,omitempty"`
	Log      *string            `json:"log,omitempty"`
	// Metrics are the newest values of those that were asked for; null where
	// the run has none.
	Metrics map[string]*number `json:"metrics,omitempty"`
}

func newLog(a *app) *cobra.Command {
	var f stages.Filter
	var params []string
	var since string
	var most int
	var columns metricColumns
	c := &cobra.Command{
		Use:   "log [RUN]",
		Short: "List runs, or show one with its log",
		Long: `List the runs of the store, newest first, however they ended; or show one RUN: its
command, parameters, inputs and outputs, and what it printed.`,
		Example: `  curi log
  curi log train@last
  curi log --stage train --param lr=0.05 --failed --since 2d
  curi log --stage train --metric val_loss --sort val_loss
  curi log --json | jq -r '.[] | select(.status == "failed") | .run'`,
		Args:              nargs(0, 1, "at most one RUN"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			for _, t := range params {
				p, err := stages.ParseParam(t, false)
				if err != nil {
					return usagef("--param: %v", err)
				}
				f.Params = append(f.Params, p)
			}
			if since != "" {
				var err error
				if f.Since, err = stages.ParseSince(since, time.Now()); err != nil {
					return usagef("--since: %v", err)
				}
			}
			if most < 0 {
				return usagef("-n %d: say how many runs, or leave it out for all", most)
			}
			if len(args) == 0 {
				return a.listRuns(c.Context(), f, most, columns)
			}
			for _, n := range []string{"stage", "param", "failed", "since", "number", "metric", "sort"} {
				if c.Flags().Changed(n) {
					return usagef("curi log %s shows one run: leave --%s out", args[0], n)
				}
			}
			return a.logRun(c.Context(), args[0])
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.Stage, "stage", "", "only runs of stage `S`")
	fl.StringArrayVar(&params, "param", nil, "only runs with this parameter, `k=v` (repeatable)")
	fl.BoolVar(&f.Failed, "failed", false, "only runs that ended without a result")
	fl.StringVar(&since, "since", "", "only runs since `T`: 2d ago, or 2026-03-01")
	fl.StringArrayVar(&columns.names, "metric", nil, "show the newest value of the metric `M` (repeatable)")
	fl.StringVar(&columns.sort, "sort", "", "by the newest value of the metric `M`, the smallest first; -M the largest")
	fl.IntVarP(&most, "number", "n", 0, "only the newest `N`")
	_ = c.RegisterFlagCompletionFunc("stage", a.completeStages)
	_ = c.RegisterFlagCompletionFunc("param", cobra.NoFileCompletions)
	for _, name := range []string{"since", "metric", "sort"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return c
}

func (a *app) listRuns(ctx context.Context, f stages.Filter, most int, columns metricColumns) error {
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	list := []loggedJSON{}
	projects := map[string]bool{}
	for r, err := range stages.Runs(ctx, s) {
		if err != nil {
			a.warn("%s", oneLine(err.Error()))
			continue
		}
		if most > 0 && len(list) >= most {
			break
		}
		if r = a.asItIs(ctx, s, r); f.Match(r) {
			projects[r.Project] = true
			l := logged(r)
			columns.fill(ctx, a, s, r, &l)
			list = append(list, l)
		}
	}
	columns.order(list)
	if a.json {
		return a.printJSON(list)
	}
	if len(list) == 0 {
		a.say("no such run in %s", s.Dir())
		return nil
	}
	header := []string{"RUN", "STATUS", "STARTED", ">TOOK", "PARAMETERS"}
	if len(projects) > 1 {
		header = slices.Insert(header, 1, "PROJECT")
	}
	header = slices.Insert(header, len(header)-1, columns.header()...)
	var rows [][]string
	for _, l := range list {
		row := []string{l.Run, wordStatusOf(l), l.Started.Local().Format("2006-01-02 15:04"), span(time.Duration(l.Seconds * float64(time.Second))), pairs(l.Params)}
		if len(projects) > 1 {
			row = slices.Insert(row, 1, l.Project)
		}
		row = slices.Insert(row, len(row)-1, columns.cells(l)...)
		rows = append(rows, row)
	}
	return a.table(header, rows)
}

// asItIs is a run as it is now: one whose curi was killed says that it runs
// until somebody looks.
func (a *app) asItIs(ctx context.Context, s *cas.Store, r stages.Run) stages.Run {
	now, err := launcher.MarkLost(ctx, s, r)
	if err != nil {
		a.logger().Debug("look whether a run goes on", "run", r.ID, "error", err)
		return r
	}
	return now
}

func wordStatusOf(l loggedJSON) string {
	switch {
	case l.SameAs != "":
		return "cached: " + l.SameAs
	case l.Exit != 0:
		return fmt.Sprintf("%s (%d)", l.Status, l.Exit)
	case len(l.Differs) > 0:
		return fmt.Sprintf("%s, differs", l.Status)
	}
	return string(l.Status)
}

func logged(r stages.Run) loggedJSON {
	l := loggedJSON{
		Run: r.ID, Stage: r.Stage, Project: r.Project, Key: r.Key, Status: r.Status, Exit: r.Exit, Attempt: r.Attempt,
		Started: r.Started, Params: r.Params, OpParams: r.OpParams, Outputs: r.Outputs, Work: r.Work, Job: r.Job, SameAs: r.SameAs, Differs: r.Differs,
	}
	if l.Differs == nil {
		l.Differs = []stages.Differing{}
	}
	if l.Params == nil {
		l.Params = map[string]string{}
	}
	if l.OpParams == nil {
		l.OpParams = map[string]string{}
	}
	if l.Outputs == nil {
		l.Outputs = []string{}
	}
	if l.Work == nil {
		l.Work = []string{}
	}
	end := time.Now()
	if !r.Ended.IsZero() {
		end = r.Ended
		l.Ended = &r.Ended
	}
	l.Seconds = max(end.Sub(r.Started).Seconds(), 0)
	return l
}

// logRun shows one run, its log last.
func (a *app) logRun(ctx context.Context, ref string) error {
	s, t, err := a.resolve(ctx, ref)
	if err != nil {
		return err
	}
	if t.Run == nil {
		return usagef("%s is no run; curi log lists them", t.Name)
	}
	r := a.asItIs(ctx, s, *t.Run)
	l := logged(r)
	var rec *stages.Record
	if b, err := runFile(ctx, s, r, "record.json"); err == nil {
		l.Record = b
		if rec, err = stages.ParseRecord(b); err != nil {
			a.warn("%s: %s", r.ID, oneLine(err.Error()))
		}
	} else if !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	text, err := openRunFile(ctx, s, r, "log.txt")
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if text != nil {
		defer text.Close()
	}
	if a.json {
		str := ""
		if text != nil {
			b, err := io.ReadAll(text)
			if err != nil {
				return fmt.Errorf("reading the log of %s: %w", r.ID, err)
			}
			str = string(b)
		}
		l.Log = &str
		return a.printJSON(l)
	}
	var b strings.Builder
	line := func(k, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", k, visible(fmt.Sprintf(format, args...)))
	}
	line("run", "%s", r.ID)
	if r.SameAs != "" {
		line("same as", "%s: nothing ran", r.SameAs)
	}
	if r.Job != "" {
		line("job", "%s of Slurm", r.Job)
	}
	line("started", "%s, %s", r.Started.Local().Format(time.DateTime), age(r.Started))
	showRun(line, r)
	if rec != nil {
		showRecord(line, rec)
	}
	if a.quiet {
		return a.write(b.String())
	}
	b.WriteString("\n")
	if err := a.write(b.String()); err != nil || text == nil {
		return err
	}
	if _, err := io.Copy(a.out, text); err != nil {
		return fmt.Errorf("copying the log of %s to stdout: %w", r.ID, err)
	}
	return nil
}

// showRecord prints what a record tells beyond the run's ref.
func showRecord(line func(k, format string, args ...any), rec *stages.Record) {
	for _, in := range rec.Inputs {
		line("input", "%s = %s (%s)", in.Name, in.From, in.Tree.Short())
	}
	for _, out := range rec.Outputs {
		if !out.Tree.IsZero() {
			line("output", "%s = %s (%s)", out.Name, out.Digest.Short(), contents(out.Bytes, out.Files))
		}
	}
	if rec.Accepted != nil {
		line("accepted", "the outputs of %s: %s", rec.Accepted.Run, orDash(rec.Accepted.Message))
	}
	if rec.ResumedFrom != nil {
		from := rec.ResumedFrom.Run
		if !rec.ResumedFrom.Snapshot.IsZero() {
			from += ", a snapshot with " + rec.ResumedFrom.Checkpoint
		}
		line("resumed", "from %s", from)
	}
	if rec.Git != nil && rec.Git.Commit != "" {
		dirty := ""
		if rec.Git.Dirty {
			dirty = ", with changes"
		}
		line("commit", "%s%s", rec.Git.Commit, dirty)
	}
	line("command", "%s", stages.ShellQuote(rec.Argv))
	for rank, n := range rec.Nodes {
		switch {
		case rank == 0:
		case n.Log == "":
			line("node", "%d on %s, exit status %d", rank, n.Host, n.Exit)
		default:
			line("node", "%d on %s, exit status %d, log: curi cat %s/%s", rank, n.Host, n.Exit, rec.Run, n.Log)
		}
	}
}

// runFile reads a file that a run left.
func runFile(ctx context.Context, s *cas.Store, r stages.Run, name string) ([]byte, error) {
	f, err := openRunFile(ctx, s, r, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// openRunFile opens a file that a run left: in its tree, or while it runs in
// its place.
func openRunFile(ctx context.Context, s *cas.Store, r stages.Run, name string) (io.ReadCloser, error) {
	if !r.Tree.IsZero() {
		e, err := s.Lookup(ctx, r.Tree, name)
		if err == nil {
			b, err := s.OpenBlob(ctx, e.Digest)
			if err != nil {
				return nil, err
			}
			return b, nil
		}
		// While its outputs are sealed, a run's tree has these alone.
		if !errors.Is(err, cas.ErrNotFound) || r.Status != stages.Running && r.Status != stages.Queued && r.Status != stages.Lost {
			return nil, err
		}
	}
	missing := fmt.Errorf("%s of %s: %w", name, r.ID, cas.ErrNotFound)
	p := s.Place(r.Key)
	if st, err := p.State(ctx); err != nil || st.Run != r.ID {
		return nil, missing
	}
	f, err := os.Open(filepath.Join(p.Dir(), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}
