package stages

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/curi-store/curi/cas"
)

// Job is the Info of the ref job/<key>: a job of a batch system that is to run
// the stage of the key. The ref stands from before the job is submitted until
// it is over, whatever becomes of who submitted it: whoever wants the key's
// result meanwhile waits for the job. Its tree keeps the inputs and plan.json
// from being collected. Who writes it holds the key's lock.
type Job struct {
	Key       string    `json:"key"`
	Stage     string    `json:"stage"`
	Project   string    `json:"project"`
	Run       string    `json:"run"`             // that it makes, or is to make next
	Name      string    `json:"name"`            // of the job, not used twice
	ID        string    `json:"id"`              // the batch system's number of it; "" while it is being submitted
	Array     string    `json:"array,omitempty"` // what the batch system calls it, where it is one task of an array; else Name
	Task      int       `json:"task,omitempty"`  // of the array
	System    string    `json:"system"`          // "slurm"
	User      string    `json:"user"`
	Host      string    `json:"host"` // on which it was submitted
	Submitted time.Time `json:"submitted"`

	Tree cas.Digest `json:"-"`
}

func jobRef(key string) string { return "job/" + key }

// CreateJob makes the ref of a job; cas.ErrExists if the key has one.
func CreateJob(ctx context.Context, s *cas.Store, j Job) error {
	return writeJob(ctx, j, s.CreateRef)
}

// PutJob replaces the ref of a job.
func PutJob(ctx context.Context, s *cas.Store, j Job) error {
	return writeJob(ctx, j, s.SetRef)
}

func writeJob(ctx context.Context, j Job, write func(context.Context, cas.Ref) error) error {
	info, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("job %s: %w", j.Name, err)
	}
	return write(ctx, cas.Ref{Name: jobRef(j.Key), Tree: j.Tree, Info: info})
}

// FindJob reads the job of a key; cas.ErrNotFound.
func FindJob(ctx context.Context, s *cas.Store, key string) (Job, error) {
	ref, err := s.Ref(ctx, jobRef(key))
	if err != nil {
		return Job{}, err
	}
	return parseJob(ref)
}

func parseJob(ref cas.Ref) (Job, error) {
	var j Job
	if err := json.Unmarshal(ref.Info, &j); err != nil {
		return Job{}, fmt.Errorf("ref %s: %w: %v", ref.Name, cas.ErrCorrupt, err)
	}
	if jobRef(j.Key) != ref.Name || j.Run == "" || j.Name == "" {
		return Job{}, fmt.Errorf("ref %s: %w: key, run or name is missing", ref.Name, cas.ErrCorrupt)
	}
	j.Tree = ref.Tree
	return j, nil
}

// Jobs yields the jobs of all keys.
func Jobs(ctx context.Context, s *cas.Store) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		for ref, err := range s.Refs(ctx, "job/") {
			var j Job
			if err == nil {
				j, err = parseJob(ref)
			}
			if errors.Is(err, cas.ErrNotFound) {
				continue // over since it was listed
			}
			if !yield(j, err) {
				return
			}
		}
	}
}

// DropJob removes the ref of a job that is over; one that is gone is no error.
func DropJob(ctx context.Context, s *cas.Store, key string) error {
	err := s.DeleteRef(ctx, jobRef(key))
	if errors.Is(err, cas.ErrNotFound) {
		return nil
	}
	return err
}

// planFile is the plan in the tree of a job.
const planFile = "plan.json"

// jobPlan is what planFile holds. Options are the launcher's.
type jobPlan struct {
	Plan    *Plan           `json:"plan"`
	Key     string          `json:"key"`
	Options json.RawMessage `json:"options"`
}

// StorePlan stores a plan, with options that ReadPlan returns again, in a tree
// that keeps its inputs too. The caller releases it once a ref names it. The
// environment of this process is no part of it.
func StorePlan(ctx context.Context, s *cas.Store, p *Plan, options any) (*cas.Added, error) {
	fail := func(err error) (*cas.Added, error) { return nil, fmt.Errorf("store the plan of %s: %w", p.Name, err) }
	opts, err := json.Marshal(options)
	if err != nil {
		return fail(err)
	}
	b, err := json.Marshal(jobPlan{p, p.Key.String(), opts})
	if err != nil {
		return fail(err)
	}
	file, err := s.AddReader(ctx, bytes.NewReader(b), planFile, cas.AddOptions{})
	if err != nil {
		return fail(err)
	}
	defer file.Release()
	in := new(cas.Tree)
	add := func(name string, tree cas.Digest) error {
		t, err := s.Tree(ctx, tree)
		if err != nil {
			return err
		}
		in.Entries = append(in.Entries, cas.Entry{Name: name, Kind: cas.KindDir, Size: t.Bytes(), Digest: tree})
		return nil
	}
	for _, i := range p.In { // sorted by name, each once
		if err := add(i.Name, i.Tree); err != nil {
			return fail(err)
		}
	}
	if !p.StdinTree.IsZero() {
		if err := add("~stdin", p.StdinTree); err != nil { // "~" is in no name, and comes after all of them
			return fail(err)
		}
	}
	inputs, err := s.AddTree(ctx, in)
	if err != nil {
		return fail(err)
	}
	defer inputs.Release()
	tree := &cas.Tree{Entries: []cas.Entry{
		{Name: "in", Kind: cas.KindDir, Size: inputs.Bytes, Digest: inputs.Tree},
		{Name: planFile, Kind: cas.KindFile, Size: file.Bytes, Digest: file.Digest},
	}}
	whole, err := s.AddTree(ctx, tree)
	if err != nil {
		return fail(err)
	}
	return whole, nil
}

// ReadPlan reads what StorePlan stored. What a --tool command said, and the
// digests of code, are as they were then.
func ReadPlan(ctx context.Context, s *cas.Store, tree cas.Digest, options any) (*Plan, error) {
	e, err := s.Lookup(ctx, tree, planFile)
	if err != nil {
		return nil, fmt.Errorf("read a plan: %w", err)
	}
	f, err := s.OpenBlob(ctx, e.Digest)
	if err != nil {
		return nil, fmt.Errorf("read a plan: %w", err)
	}
	defer f.Close()
	var jp jobPlan
	b, err := io.ReadAll(f)
	if err == nil {
		err = json.Unmarshal(b, &jp)
	}
	if err == nil && jp.Plan == nil {
		err = errors.New("it is empty")
	}
	if err == nil {
		err = json.Unmarshal(jp.Options, options)
	}
	if err != nil {
		return nil, fmt.Errorf("read the plan %s: %w: %v", tree.Short(), cas.ErrCorrupt, err)
	}
	p := jp.Plan
	if p.Key = p.Preimage.Key(); p.Key.String() != jp.Key {
		return nil, fmt.Errorf("read the plan %s: %w: it was made by another version of curi, which computes keys differently", tree.Short(), cas.ErrCorrupt)
	}
	if p.ResumeRun.ID != "" {
		if p.ResumeRun, err = FindRun(ctx, s, p.ResumeRun.ID); err != nil {
			return nil, fmt.Errorf("the run to resume from: %w", err)
		}
	}
	return p, nil
}
