package stages

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

func newStore(t *testing.T) *cas.Store {
	t.Helper()
	s, err := cas.Open(t.Context(), filepath.Join(t.TempDir(), "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// addText stores a single file and publishes it.
func addText(t *testing.T, s *cas.Store, name, file, text string) *cas.Added {
	t.Helper()
	a, err := s.AddReader(t.Context(), strings.NewReader(text), file, cas.AddOptions{Attrs: cas.MetaAttrs(map[string]string{"type": "Text"})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Release)
	if name != "" {
		if _, _, err := s.Publish(t.Context(), name, a.Tree, cas.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// writeFiles makes a project of files by path.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func params(t *testing.T, texts ...string) []Param {
	t.Helper()
	var list []Param
	for _, text := range texts {
		p, err := ParseParam(text, false)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func bind(t *testing.T, s *cas.Store, p Project, st Stage) *Plan {
	t.Helper()
	plan, err := Bind(t.Context(), s, p, st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plan.Release)
	return plan
}

// finish stores what a run of the plan would have left: outputs by name, each
// a single file, under the stage's key.
func finish(t *testing.T, s *cas.Store, plan *Plan, status Status, outputs map[string]string) Run {
	t.Helper()
	ctx := t.Context()
	id, err := NewRunID(ctx, s, plan.Name)
	if err != nil {
		t.Fatal(err)
	}
	run := NewRun(plan, id, 1)
	rec := NewRecord(plan)
	rec.Run, rec.Status, rec.Started = id, status, run.Started
	root := &cas.Tree{}
	if len(outputs) > 0 {
		out := &cas.Tree{}
		for _, o := range plan.Outputs {
			text, ok := outputs[o.Name]
			if !ok {
				continue
			}
			a := addText(t, s, "", o.Path, text)
			out.Entries = append(out.Entries, cas.Entry{Name: o.Name, Kind: cas.KindDir, Size: a.Bytes, Digest: a.Tree})
			w := rec.Output(o.Name)
			w.Tree, w.Digest, w.Bytes, w.Files = a.Tree, a.Digest, a.Bytes, a.Files
		}
		d, err := s.PutTree(ctx, out)
		if err != nil {
			t.Fatal(err)
		}
		root.Entries = append(root.Entries, cas.Entry{Name: "out", Kind: cas.KindDir, Size: out.Bytes(), Digest: d})
	}
	text, err := rec.Encode()
	if err != nil {
		t.Fatal(err)
	}
	a := addText(t, s, "", "record.json", string(text))
	root.Entries = append(root.Entries, cas.Entry{Name: "record.json", Kind: cas.KindFile, Size: a.Bytes, Digest: a.Digest})
	tree, err := s.PutTree(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	run.Status, run.Ended = status, time.Now()
	if err := PutRun(ctx, s, run, tree); err != nil {
		t.Fatal(err)
	}
	if status.HasResult() {
		if err := PutResult(ctx, s, plan.Key, Result{Run: id, Tree: tree}); err != nil {
			t.Fatal(err)
		}
	}
	run.Tree = tree
	return run
}

func hit(t *testing.T, s *cas.Store, plan *Plan) {
	t.Helper()
	time.Sleep(20 * time.Millisecond) // a file's time has the grain of the kernel's clock
	res, err := FindResult(context.Background(), s, plan.Key)
	if err != nil {
		t.Fatalf("no result for a key that has one: %v", err)
	}
	if _, err := NoteHit(t.Context(), s, plan, res); err != nil {
		t.Fatal(err)
	}
}
