package stages

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// A plan that is stored comes back as it was, and brings nothing of the
// environment of who stored it.
func TestStorePlan(t *testing.T) {
	ctx, s := t.Context(), newStore(t)
	added, err := s.AddReader(ctx, strings.NewReader("data"), "data", cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(ctx, "digits", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	lr, _ := ParseParam("lr=0.1", false)
	dir := t.TempDir()
	p, err := Bind(ctx, s, Project{Name: "p", Dir: dir}, Stage{
		Name: "train", Dir: dir, Command: []string{"train", "{in.d}", "{secret.TOKEN}"}, Inputs: []Input{{Name: "d", Ref: "digits"}}, Params: []Param{lr},
		Outputs: []Output{{Name: "m", Path: "m"}}, Work: []string{"w"}, Stdin: "-", StdinReader: strings.NewReader("asked"), Environ: []string{"TOKEN=hush-hush"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	type options struct{ Force bool }
	stored, err := StorePlan(ctx, s, p, options{true})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Release()
	var o options
	q, err := ReadPlan(ctx, s, stored.Tree, &o)
	if err != nil {
		t.Fatal(err)
	}
	if !o.Force || q.Key != p.Key || q.Preimage != p.Preimage || !slices.Equal(q.Command, p.Command) || q.In[0].Tree != added.Tree ||
		q.StdinBlob != p.StdinBlob || q.Params[0] != lr || q.Environ != nil {
		t.Errorf("%+v became %+v", p, q)
	}
	e, err := s.Lookup(ctx, stored.Tree, planFile)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := s.OpenBlob(ctx, e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if b, err := io.ReadAll(blob); err != nil || strings.Contains(string(b), "hush") {
		t.Errorf("the environment is stored (%v): %s", err, b)
	}
	for _, path := range []string{"in/d/data", "in/~stdin/stdin"} { // what a collection is to keep
		if _, err := s.Lookup(ctx, stored.Tree, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Of a key there is one job, until it is dropped.
func TestJobs(t *testing.T) {
	ctx, s := t.Context(), newStore(t)
	j := Job{Key: strings.Repeat("a", 64), Run: "train-1", Name: "curi-train-1"}
	if _, err := FindJob(ctx, s, j.Key); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	if err := CreateJob(ctx, s, j); err != nil {
		t.Fatal(err)
	}
	if err := CreateJob(ctx, s, j); !errors.Is(err, cas.ErrExists) {
		t.Errorf("a second one: %v", err)
	}
	j.ID = "7"
	if err := PutJob(ctx, s, j); err != nil {
		t.Fatal(err)
	}
	var all []Job
	for got, err := range Jobs(ctx, s) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got)
	}
	if len(all) != 1 || all[0] != j {
		t.Errorf("the jobs are %+v", all)
	}
	for range 2 {
		if err := DropJob(ctx, s, j.Key); err != nil {
			t.Error(err)
		}
	}
}
