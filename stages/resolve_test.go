package stages

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

func trainStage(t *testing.T, texts ...string) Stage {
	return Stage{Name: "train", Dir: t.TempDir(), Command: []string{"train", "{param.lr}"}, Environ: []string{},
		Params: params(t, texts...), Outputs: []Output{{Name: "model", Path: "model.ckpt"}, {Name: "extra", Path: "x", Optional: true}},
		Work: []string{"ckpt"}}
}

// resolveStore holds digits (2 versions, one of them tagged best), files (a
// directory) and a run of train.
type resolveStore struct {
	s                  *cas.Store
	p                  Project
	old, newest, files *cas.Added
	run                Run
	model              cas.Digest
	work               string
}

func newResolveStore(t *testing.T) resolveStore {
	t.Helper()
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	old := addText(t, s, "digits", "digits.csv", "1")
	newest := addText(t, s, "digits", "digits.csv", "1,2")
	if err := s.Tag(t.Context(), "digits", 1, "best"); err != nil {
		t.Fatal(err)
	}
	dir := writeFiles(t, map[string]string{"a/b.txt": "b"})
	files, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.Release)
	if _, _, err := s.Publish(t.Context(), "files", files.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	plan := bind(t, s, p, trainStage(t, "lr=0.05"))
	run := finish(t, s, plan, Succeeded, map[string]string{"model": "weights"})
	model := cas.Sum([]byte("weights"))
	work := filepath.Join(s.Place(run.Key).Dir(), "work", "ckpt")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	return resolveStore{s, p, old, newest, files, run, model, work}
}

func TestResolve(t *testing.T) {
	r := newResolveStore(t)
	s, p, old, newest, files, run, model, work := r.s, r.p, r.old, r.newest, r.files, r.run, r.model, r.work
	for ref, want := range map[string]Target{
		"digits":                        {Name: "digits@2", Tree: newest.Tree, Blob: newest.Digest},
		"digits@1":                      {Name: "digits@1", Tree: old.Tree, Blob: old.Digest},
		"digits@best":                   {Name: "digits@1", Tree: old.Tree, Blob: old.Digest},
		"digits/digits.csv":             {Name: "digits@2/digits.csv", Tree: newest.Tree, Path: "digits.csv", Blob: newest.Digest},
		"files":                         {Name: "files@1", Tree: files.Tree},
		"files/a":                       {Name: "files@1/a", Tree: files.Tree, Path: "a"},
		"files/a/":                      {Name: "files@1/a", Tree: files.Tree, Path: "a"},
		"files@1/a/b.txt":               {Name: "files@1/a/b.txt", Tree: files.Tree, Path: "a/b.txt", Blob: cas.Sum([]byte("b"))},
		"train.model":                   {Name: run.ID + ".model", Blob: model},
		"train[lr=5e-2].model":          {Name: run.ID + ".model", Blob: model},
		"train@last":                    {Name: run.ID, Tree: run.Tree},
		"train@last.model":              {Name: run.ID + ".model", Blob: model},
		"train@last/out":                {Name: run.ID + "/out", Tree: run.Tree, Path: "out"},
		run.ID:                          {Name: run.ID, Tree: run.Tree},
		run.ID + ".model":               {Name: run.ID + ".model", Blob: model},
		run.ID + ".model/model.ckpt":    {Name: run.ID + ".model/model.ckpt", Path: "model.ckpt", Blob: model},
		run.ID + ".work/ckpt":           {Name: run.ID + ".work/ckpt", WorkDir: work},
		"train@last.work/ckpt":          {Name: run.ID + ".work/ckpt", WorkDir: work},
		old.Tree.String():               {Name: old.Tree.String(), Tree: old.Tree, Blob: old.Digest},
		old.Tree.String()[:10]:          {Name: old.Tree.String(), Tree: old.Tree, Blob: old.Digest},
		strings.ToUpper(model.String()): {Name: model.String(), Blob: model},
		files.Tree.String() + "/a":      {Name: files.Tree.String() + "/a", Tree: files.Tree, Path: "a"},
	} {
		got, err := Resolve(t.Context(), s, p, ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got.Ref != ref || got.Name != want.Name || got.Path != want.Path || got.Blob != want.Blob || got.WorkDir != want.WorkDir || !want.Tree.IsZero() && got.Tree != want.Tree {
			t.Errorf("%s: is %+v, want %+v", ref, got, want)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	r := newResolveStore(t)
	s, p, run, model := r.s, r.p, r.run, r.model
	for ref, want := range map[string]string{
		"digist":               "did you mean digits?",
		"nothing":              "no artifact, run or stage has that name",
		"digits@3":             "digits has 1, best, 2",
		"digits@worst":         "digits has 1, best, 2",
		"files/a/c.txt":        "files/a/c.txt",
		"files/b":              "not found",
		"digits.model":         "digits is an artifact and no stage",
		"train.modle":          "did you mean model?",
		"train.extra":          "did not write its optional output extra",
		"train[lr=0.1].model":  "the results of train have train[lr=0.05].model",
		"train@3.model":        "there is only train@last",
		"tarin.model":          "did you mean train?",
		run.ID + ".work/x":     "the work directories of " + run.ID + " are ckpt",
		"0123456789abcdef":     "no blob or tree",
		model.String() + "/x":  "nothing lies below it",
		"train@last/out/modle": "did you mean out/model?",
	} {
		_, err := Resolve(t.Context(), s, p, ref)
		if !errors.Is(err, cas.ErrNotFound) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line about %q", ref, err, want)
		}
	}
	for ref, want := range map[string]string{
		"":                   "empty",
		"./data":             "stored first",
		"/data":              "stored first",
		"a b":                "may hold only",
		"1234":               "all digits",
		"digits@":            "follows '@'",
		"digits/../x":        "'..' part",
		"digits//x":          "empty",
		"train":              "train is a stage: name an output (train.extra)",
		"train[lr=0.05":      "']' is missing",
		"train[lr].model":    "NAME=VALUE",
		"train[lr=1]":        "an output follows",
		"train.model.x":      "REF is",
		"train.model@1":      "REF is",
		"digits[a=1]x":       "REF is",
		"0123456789.x":       "only /PATH",
		"abcdef0123@1":       "only /PATH",
		"train.mod/../el":    "'..' part",
		"digits/\x00":        "NUL",
		"a" + model.String(): "64 hex digits",
		"train.":             "the output behind '.'",
	} {
		_, err := Resolve(t.Context(), s, p, ref)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v, want one line about %q", ref, err, want)
		}
	}
}

// STAGE.OUTPUT is what was made or taken last; results of other parameters
// are never handed over for one another.
func TestNewestResult(t *testing.T) {
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	st := trainStage(t, "lr=0.05")
	name := func(ref string) string {
		t.Helper()
		got, err := Resolve(t.Context(), s, p, ref)
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		return got.Name
	}
	planA := bind(t, s, p, st)
	a := finish(t, s, planA, Succeeded, map[string]string{"model": "a"})
	st.Tools = []string{"echo other code"}
	b := finish(t, s, bind(t, s, p, st), Succeeded, map[string]string{"model": "b"})
	if got := name("train.model"); got != b.ID+".model" {
		t.Errorf("train.model is %s, want that of the newest run %s", got, b.ID)
	}
	hit(t, s, planA)
	if got := name("train.model"); got != a.ID+".model" {
		t.Errorf("after a hit of %s train.model is %s", a.ID, got)
	}
	st.Tools = []string{"exit 0", "true"}
	failed := finish(t, s, bind(t, s, p, st), Failed, nil)
	if got := name("train.model"); got != a.ID+".model" {
		t.Errorf("after a failed run train.model is %s", got)
	}
	if got := name("train@last"); got != failed.ID {
		t.Errorf("train@last is %s, want the failed run %s", got, failed.ID)
	}
	if _, err := Resolve(t.Context(), s, p, "train@last.model"); !errors.Is(err, cas.ErrNotFound) || !strings.Contains(err.Error(), "is failed and published no outputs") {
		t.Errorf("an output of a failed run: %v", err)
	}

	c := finish(t, s, bind(t, s, p, trainStage(t, "lr=0.1")), Succeeded, map[string]string{"model": "c"})
	_, err := Resolve(t.Context(), s, p, "train.model")
	if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "train[lr=0.1].model train[lr=0.05].model") && !strings.Contains(err.Error(), "train[lr=0.05].model train[lr=0.1].model") {
		t.Errorf("results of different parameters: %v", err)
	}
	if got := name("train[lr=0.1].model"); got != c.ID+".model" {
		t.Errorf("train[lr=0.1].model is %s", got)
	}
	if got := name("train[lr=0.05].model"); got != a.ID+".model" {
		t.Errorf("train[lr=0.05].model is %s", got)
	}

	// Withdrawn: a miss, and no result of the stage.
	if err := Withdraw(t.Context(), s, c.ID); err != nil {
		t.Fatal(err)
	}
	if got := name("train.model"); got != a.ID+".model" {
		t.Errorf("after withdrawing %s train.model is %s", c.ID, got)
	}
	k, _ := ParseKey(c.Key)
	if _, err := FindResult(t.Context(), s, k); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("the key of a withdrawn run: %v", err)
	}
	if err := Withdraw(t.Context(), s, failed.ID); !errors.Is(err, ErrUsage) {
		t.Errorf("withdrawing a failed run: %v", err)
	}

	// Another project has its own results.
	if _, err := Resolve(t.Context(), s, Project{Name: "q"}, "train.model"); !errors.Is(err, cas.ErrNotFound) || !strings.Contains(err.Error(), "of project p has that stage") {
		t.Errorf("another project's stage: %v", err)
	}
}

// A hit under another name makes STAGE.OUTPUT work there, and once only.
func TestHitUnderAnotherName(t *testing.T) {
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	st := trainStage(t, "lr=0.05")
	made := finish(t, s, bind(t, s, p, st), Succeeded, map[string]string{"model": "a"})
	st.Name = "fit"
	plan := bind(t, s, p, st)
	hit(t, s, plan)
	hit(t, s, plan)
	got, err := Resolve(t.Context(), s, p, "fit.model")
	if err != nil || got.Run.SameAs != made.ID || got.Blob != cas.Sum([]byte("a")) {
		t.Errorf("fit.model is %+v, %v", got, err)
	}
	count := 0
	for run, err := range Runs(t.Context(), s) {
		if err != nil {
			t.Fatal(err)
		}
		if run.Stage == "fit" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("two hits made %d runs", count)
	}
}

func TestFindResult(t *testing.T) {
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	plan := bind(t, s, p, trainStage(t, "lr=0.05"))
	if _, err := FindResult(t.Context(), s, plan.Key); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a key without a result: %v", err)
	}
	run := finish(t, s, plan, Succeeded, map[string]string{"model": "weights"})
	res, err := FindResult(t.Context(), s, plan.Key)
	if err != nil || res.Run != run.ID || res.Tree != run.Tree {
		t.Fatalf("result %+v, %v", res, err)
	}
	// A record of another key is no hit.
	other := bind(t, s, p, trainStage(t, "lr=0.1"))
	if err := PutResult(t.Context(), s, other.Key, res); err != nil {
		t.Fatal(err)
	}
	if _, err := FindResult(t.Context(), s, other.Key); !errors.Is(err, cas.ErrCorrupt) {
		t.Errorf("a record of another key: %v", err)
	}
	// A scratch purge took an output's bytes: a miss with a reason.
	blob := cas.Sum([]byte("weights")).String()
	if err := os.Remove(filepath.Join(s.Dir(), "blobs", blob[:2], blob)); err != nil {
		t.Fatal(err)
	}
	if _, err := FindResult(t.Context(), s, plan.Key); !errors.Is(err, cas.ErrNotFound) || !strings.Contains(err.Error(), "there no more") || !strings.Contains(err.Error(), run.ID) {
		t.Errorf("a result without its bytes: %v", err)
	}
}

func TestRunIDs(t *testing.T) {
	s := newStore(t)
	form := regexp.MustCompile(`^train-[0-9a-hjkmnp-tv-z]{6}$`)
	for range 50 {
		id, err := NewRunID(t.Context(), s, "train")
		if err != nil || !form.MatchString(id) || !strings.ContainsAny(id[6:], "abcdefghjkmnpqrstvwxyz") || cas.CheckName(id) != nil {
			t.Fatalf("id %q, %v", id, err)
		}
	}
	// A stage whose name is hex digits: its runs must not look like digests.
	if id, err := NewRunID(t.Context(), s, "abc"); err != nil || !strings.HasPrefix(id, "abc-") {
		t.Errorf("id %q, %v", id, err)
	}
}

func FuzzParseRef(f *testing.F) {
	for _, ref := range []string{"digits@2/a", "train[lr=0.05,x=[1,2]].model/p", "train@last.work/x", "0123456789abcdef/x", "a.b", "@", "["} {
		f.Add(ref)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		r, err := parseRef(ref)
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatal(err)
			}
			return
		}
		if (r.digest == "") == (r.name == "") {
			t.Fatalf("%q is %+v", ref, r)
		}
		for part := range strings.SplitSeq(r.path, "/") {
			if part == ".." || part == "." || part == "" && r.path != "" {
				t.Fatalf("%q leads to the path %q", ref, r.path)
			}
		}
	})
}

// A collection that was cut off after it gave a run's tree up, and before it
// removed the result.
func TestHitGivesARunItsTreeBack(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	p := Project{Name: "p", Dir: dir}
	plan := bind(t, s, p, Stage{Name: "train", Dir: dir, Command: []string{"x"}, Outputs: []Output{{Name: "model", Path: "m"}}})
	run := finish(t, s, plan, Succeeded, map[string]string{"model": "weights"})
	if err := PutRun(t.Context(), s, run, cas.Digest{}); err != nil {
		t.Fatal(err)
	}
	hit(t, s, plan)
	if target, err := Resolve(t.Context(), s, p, "train.model"); err != nil || target.Blob != cas.Sum([]byte("weights")) {
		t.Errorf("train.model is %+v, %v", target, err)
	}
}

// A path goes through links as it does in a mount.
func TestPathsFollowLinks(t *testing.T) {
	s := newStore(t)
	dir := writeFiles(t, map[string]string{"ck/epoch-3.pt": "three", "ck/sub/x": "x"})
	for link, target := range map[string]string{
		"best.pt": "ck/epoch-3.pt", "last": "ck", "ck/up": "../last/sub", "twice.pt": "best.pt", "nowhere": "gone", "loop": "pool", "pool": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	added, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), "run", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	p := Project{Name: "p", Dir: dir}
	for ref, want := range map[string]Target{
		"run/best.pt":         {Name: "run@1/best.pt", Path: "ck/epoch-3.pt", Link: "ck/epoch-3.pt", Blob: cas.Sum([]byte("three"))},
		"run/twice.pt":        {Name: "run@1/twice.pt", Path: "ck/epoch-3.pt", Link: "best.pt", Blob: cas.Sum([]byte("three"))},
		"run/last/epoch-3.pt": {Name: "run@1/last/epoch-3.pt", Path: "ck/epoch-3.pt", Blob: cas.Sum([]byte("three"))},
		"run/last/up/x":       {Name: "run@1/last/up/x", Path: "ck/sub/x", Blob: cas.Sum([]byte("x"))},
		"run/last":            {Name: "run@1/last", Path: "ck", Link: "ck"},
		"run/nowhere":         {Name: "run@1/nowhere", Path: "nowhere", Link: "gone"},
		"run/loop":            {Name: "run@1/loop", Path: "loop", Link: "pool"},
		"run/ck/epoch-3.pt":   {Name: "run@1/ck/epoch-3.pt", Path: "ck/epoch-3.pt", Blob: cas.Sum([]byte("three"))},
	} {
		got, err := Resolve(t.Context(), s, p, ref)
		if err != nil || got.Name != want.Name || got.Path != want.Path || got.Link != want.Link || got.Blob != want.Blob {
			t.Errorf("%s is %+v (%v), want %+v", ref, got, err, want)
		}
	}
	for _, ref := range []string{"run/nowhere/x", "run/loop/x", "run/last/none"} {
		if _, err := Resolve(t.Context(), s, p, ref); !errors.Is(err, cas.ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	bound := bind(t, s, p, Stage{Name: "s", Dir: dir, Command: []string{"true"}, Inputs: []Input{{Name: "m", Ref: "run/best.pt"}}})
	if in := bound.In[0]; in.Single != "epoch-3.pt" || in.From != "run@1/best.pt" {
		t.Errorf("bound as %+v", in)
	}
}

// A text may hold what separates parameters; the error that lists the results
// names them so that they can be typed.
func TestSelectionOfTexts(t *testing.T) {
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	for _, note := range []string{"a,b", "a,c", `x]"y`} {
		finish(t, s, bind(t, s, p, trainStage(t, "lr=1", "note="+note)), Succeeded, map[string]string{"model": note})
	}
	_, err := Resolve(t.Context(), s, p, "train.model")
	if !errors.Is(err, ErrUsage) {
		t.Fatalf("got %v, want a choice", err)
	}
	_, choice, _ := strings.Cut(err.Error(), "pick one of ")
	found := map[cas.Digest]bool{}
	for ref := range strings.FieldsSeq(choice) {
		if !strings.HasPrefix(ref, "train[") {
			t.Errorf("%s is no choice by parameters", ref)
		}
		got, err := Resolve(t.Context(), s, p, ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		found[got.Blob] = true
	}
	for _, note := range []string{"a,b", "a,c", `x]"y`} {
		if !found[cas.Sum([]byte(note))] {
			t.Errorf("no choice in %q is the result of note=%s", choice, note)
		}
	}
}
