package stages

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Status of a run.
type Status string

// The states of a run.
const (
	Queued      Status = "queued" // a batch system has it
	Running     Status = "running"
	Succeeded   Status = "succeeded"
	Failed      Status = "failed"
	Interrupted Status = "interrupted" // by a signal to curi
	TimedOut    Status = "timed-out"
	Lost        Status = "lost" // its curi died; set by whoever finds it
	Accepted    Status = "accepted"
	Withdrawn   Status = "withdrawn" // curi rm RUN
)

// HasResult reports whether a run of this status published its outputs.
func (s Status) HasResult() bool { return s == Succeeded || s == Accepted }

// Run is the Info of the ref run/<id>: enough to find, list and filter runs
// without opening records. The ref's tree is the result tree (also of a
// failed run: record and log only).
type Run struct {
	ID       string            `json:"id"` // <stage>-<6 of base32>
	Project  string            `json:"project"`
	Stage    string            `json:"stage"`
	Key      string            `json:"key"`
	Params   map[string]string `json:"params"`              // keyed ones, canonical values
	OpParams map[string]string `json:"op_params,omitempty"` // operational ones, canonical values
	Outputs  []string          `json:"outputs"`
	Status   Status            `json:"status"`
	Exit     int               `json:"exit_status"`
	Attempt  int               `json:"attempt"`
	Started  time.Time         `json:"started"`
	Ended    time.Time         `json:"ended"`
	Work     []string          `json:"work"`              // names of work directories it may have left
	Job      string            `json:"job,omitempty"`     // the batch system's number of the job that it is part of
	SameAs   string            `json:"same_as,omitempty"` // nothing ran: the result is this run's, under another stage's or project's name
	// Differs are results of this very key elsewhere whose outputs are not this
	// run's: the stage does not always make the same.
	Differs []Differing `json:"differs,omitempty"`

	Tree cas.Digest `json:"-"` // the ref's tree; zero while it runs
	Used time.Time  `json:"-"` // when it ended or was last taken as a hit
}

// Differing is a result on a remote that differs from one of the same key here.
type Differing struct {
	Remote string     `json:"remote"`
	Run    string     `json:"run"`
	By     string     `json:"by"` // who published it, as they say
	Tree   cas.Digest `json:"tree"`
}

// NoteDiffering adds to a run that a result elsewhere differs from its own.
func NoteDiffering(ctx context.Context, s *cas.Store, id string, d Differing) error {
	r, err := FindRun(ctx, s, id)
	if err != nil || slices.Contains(r.Differs, d) {
		return err
	}
	r.Differs = append(r.Differs, d)
	return PutRun(ctx, s, r, r.Tree)
}

const runIDLength = 6

// Crockford's base32 has no letters that are mistaken for digits.
const base32Digits = "0123456789abcdefghjkmnpqrstvwxyz"

// NewRunID returns an unused id for a run of a stage: one that no run and no
// artifact has.
func NewRunID(ctx context.Context, s *cas.Store, stage string) (string, error) {
	for {
		id := stage + "-" + randomID()
		if cas.CheckName(id) != nil {
			return "", usagef("no run of a stage called %q can be named: choose another name", stage)
		}
		_, runErr := s.Ref(ctx, "run/"+id)
		_, artifactErr := s.Version(ctx, id, "")
		if errors.Is(runErr, cas.ErrNotFound) && errors.Is(artifactErr, cas.ErrNotFound) {
			return id, nil
		}
		for _, err := range []error{runErr, artifactErr} {
			if err != nil && !errors.Is(err, cas.ErrNotFound) {
				return "", fmt.Errorf("find a name for a run of %s: %w", stage, err)
			}
		}
	}
}

// randomID has a letter at least, so that it never looks like a number.
func randomID() string {
	for {
		var b [runIDLength]byte
		_, _ = rand.Read(b[:]) // never fails
		for i := range b {
			b[i] = base32Digits[b[i]&31]
		}
		if strings.Trim(string(b[:]), "0123456789") != "" {
			return string(b[:])
		}
	}
}

// NewRun is a run of a plan that begins now.
func NewRun(p *Plan, id string, attempt int) Run {
	r := Run{ID: id, Project: p.Project.Name, Stage: p.Name, Key: p.Key.String(),
		Params: map[string]string{}, Outputs: []string{}, Status: Running,
		Attempt: attempt, Started: time.Now().UTC(), Work: slices.Clone(p.Work)}
	for _, q := range p.Params {
		if !q.Operational {
			r.Params[q.Name] = q.Canonical
			continue
		}
		if r.OpParams == nil {
			r.OpParams = map[string]string{}
		}
		r.OpParams[q.Name] = q.Canonical
	}
	for _, o := range p.Outputs {
		r.Outputs = append(r.Outputs, o.Name)
	}
	return r
}

// PutRun creates or replaces the ref of a run.
func PutRun(ctx context.Context, s *cas.Store, r Run, tree cas.Digest) error {
	info, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("run %s: %w", r.ID, err)
	}
	return s.SetRef(ctx, cas.Ref{Name: "run/" + r.ID, Tree: tree, Info: info})
}

// FindRun reads the ref of one run; cas.ErrNotFound.
func FindRun(ctx context.Context, s *cas.Store, id string) (Run, error) {
	ref, err := s.Ref(ctx, "run/"+id)
	if err != nil {
		return Run{}, err
	}
	return parseRun(ctx, s, ref)
}

func parseRun(ctx context.Context, s *cas.Store, ref cas.Ref) (Run, error) {
	var r Run
	if err := json.Unmarshal(ref.Info, &r); err != nil {
		return Run{}, fmt.Errorf("ref %s: %w: %v", ref.Name, cas.ErrCorrupt, err)
	}
	if id := strings.TrimPrefix(ref.Name, "run/"); r.ID != id {
		return Run{}, fmt.Errorf("ref %s: %w: it says it is %q", ref.Name, cas.ErrCorrupt, r.ID)
	}
	r.Tree = ref.Tree
	used, err := s.RefUsed(ctx, ref.Name)
	if err != nil {
		return Run{}, err
	}
	r.Used = used
	return r, nil
}

// Runs yields every run, newest start first. A ref that does not parse is
// yielded as an error, after the others.
func Runs(ctx context.Context, s *cas.Store) iter.Seq2[Run, error] {
	return runsWith(ctx, s, "run/")
}

func runsWith(ctx context.Context, s *cas.Store, prefix string) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		var runs []Run
		var errs []error
		for ref, err := range s.Refs(ctx, prefix) {
			var r Run
			if err == nil {
				r, err = parseRun(ctx, s, ref)
			}
			switch {
			case errors.Is(err, cas.ErrNotFound): // removed since it was listed
			case err != nil:
				errs = append(errs, err)
			default:
				runs = append(runs, r)
			}
		}
		slices.SortStableFunc(runs, func(a, b Run) int {
			if c := b.Started.Compare(a.Started); c != 0 {
				return c
			}
			return strings.Compare(b.ID, a.ID)
		})
		for _, r := range runs {
			if !yield(r, nil) {
				return
			}
		}
		for _, err := range errs {
			if !yield(Run{}, err) {
				return
			}
		}
	}
}
