package stages

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// What changes the key, and what does not.
func TestKey(t *testing.T) {
	s := newStore(t)
	addText(t, s, "digits", "digits.csv", "1,2")
	addText(t, s, "digits2", "digits.csv", "1,2,3")
	addText(t, s, "same", "digits.csv", "1,2")
	files := map[string]string{"train.py": "import lib.net\n", "lib/net.py": "x = 1\n", "b/train.py": "import lib.net\n", "notes.txt": "n"}
	dir := writeFiles(t, files)
	p := Project{Name: "p", Dir: dir}
	base := func() Stage {
		return Stage{
			Name: "train", Dir: dir, Environ: []string{"HOME=/root", "SEED=1"},
			Command: []string{"python", "train.py", "--data", "{in.data}", "--out={out.model}", "--gpus", "{param.gpus}", "{work.ckpt}"},
			Inputs:  []Input{{Name: "data", Ref: "digits"}},
			Outputs: []Output{{Name: "model", Path: "model.ckpt", Meta: map[string]string{"type": "Net"}, Publish: []string{"model"}}},
			Work:    []string{"ckpt", "more"},
			Params:  append(params(t, "lr=0.05", "epochs=3"), Param{Name: "gpus", Type: "int", Raw: "2", Canonical: "2", Operational: true}),
			Env:     []EnvVar{{Name: "SEED"}},
			Tools:   []string{"echo tool 1.2"},
		}
	}
	want := bind(t, s, p, base()).Key

	for name, change := range map[string]func(*Stage){
		"an operational parameter":        func(st *Stage) { st.Params[2].Raw, st.Params[2].Canonical = "8", "8" },
		"how a number is written":         func(st *Stage) { st.Params[0] = params(t, "lr=5e-2")[0] },
		"the order of parameters":         func(st *Stage) { slices.Reverse(st.Params) },
		"the order of work directories":   func(st *Stage) { slices.Reverse(st.Work) },
		"the name it is published under":  func(st *Stage) { st.Outputs[0].Publish = []string{"other"} },
		"the stage's name":                func(st *Stage) { st.Name = "fit" },
		"another name of the same input":  func(st *Stage) { st.Inputs[0].Ref = "same" },
		"a variable that is not named":    func(st *Stage) { st.Environ = append(st.Environ, "X=1") },
		"a variable given as inherited":   func(st *Stage) { v := "1"; st.Env[0].Value = &v },
		"rank variables":                  func(st *Stage) { st.Environ = append(st.Environ, "RANK=1", "SLURM_PROCID=3") },
		"a file that is keyed twice over": func(st *Stage) { st.Code = []string{"train.py"} },
		"a tool that is said twice":       func(st *Stage) { st.Tools = append(st.Tools, st.Tools[0]) },
	} {
		st := base()
		change(&st)
		if plan := bind(t, s, p, st); plan.Key != want {
			t.Errorf("%s changes the key:\n%v", name, Diff(bind(t, s, p, base()).Preimage, plan.Preimage))
		}
	}
	for name, change := range map[string]func(*Stage){
		"an argument":                 func(st *Stage) { st.Command = append(st.Command, "-v") },
		"a parameter":                 func(st *Stage) { st.Params[0] = params(t, "lr=0.06")[0] },
		"a parameter's type":          func(st *Stage) { st.Params[1] = params(t, "epochs:str=3")[0] },
		"a parameter's name":          func(st *Stage) { st.Params[1].Name = "epoch" },
		"the content of an input":     func(st *Stage) { st.Inputs[0].Ref = "digits2" },
		"a writable input":            func(st *Stage) { st.Inputs[0].Writable = true },
		"metadata of an output":       func(st *Stage) { st.Outputs[0].Meta = map[string]string{"type": "Other"} },
		"the path of an output":       func(st *Stage) { st.Outputs[0].Path = "m.ckpt" },
		"an optional output":          func(st *Stage) { st.Outputs[0].Optional = true },
		"where an output comes from":  func(st *Stage) { st.Outputs[0].From = "runs/m.ckpt" },
		"a directory output":          func(st *Stage) { st.Outputs[0].Dir = true },
		"a work directory":            func(st *Stage) { st.Work = []string{"ckpt"} },
		"a keyed variable":            func(st *Stage) { st.Environ = []string{"SEED=2"} },
		"a keyed variable that lacks": func(st *Stage) { st.Environ = []string{"A=b"} },
		"a keyed variable, empty":     func(st *Stage) { st.Environ = []string{"SEED="} },
		"a tool's output":             func(st *Stage) { st.Tools = []string{"echo tool 1.3"} },
		"a tool's error output":       func(st *Stage) { st.Tools = []string{"echo tool 1.2 >&2; echo"} },
		"more code":                   func(st *Stage) { st.Code = []string{"*.txt"} },
		"a clean environment":         func(st *Stage) { st.CleanEnv = true },
		"standard input":              func(st *Stage) { st.Stdin = "digits" },
		"standard input as it is":     func(st *Stage) { st.Stdin = "-"; st.StdinReader = strings.NewReader("x") },
		"the directory":               func(st *Stage) { st.Dir = filepath.Join(dir, "b") },
	} {
		st := base()
		change(&st)
		if plan := bind(t, s, p, st); plan.Key == want {
			t.Errorf("%s does not change the key:\n%s", name, plan.Preimage)
		}
	}

	// The project elsewhere: the same key. Then an import of an import changes.
	moved := writeFiles(t, files)
	st := base()
	st.Dir = moved
	plan := bind(t, s, Project{Name: "elsewhere", Dir: moved}, st)
	if plan.Key != want {
		t.Errorf("the place of the project changes the key:\n%s", plan.Preimage)
	}
	if err := os.WriteFile(filepath.Join(moved, "lib/net.py"), []byte("x = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	st = base()
	st.Dir = moved
	changed := bind(t, s, Project{Name: "elsewhere", Dir: moved}, st)
	diff := Diff(plan.Preimage, changed.Preimage)
	if len(diff) != 1 || !strings.HasPrefix(diff[0].New, `code "lib/net.py" `) || !strings.HasPrefix(diff[0].Old, `code "lib/net.py" `) {
		t.Errorf("an edited import shows as %v", diff)
	}
}

func TestBindErrors(t *testing.T) {
	s := newStore(t)
	addText(t, s, "digits", "digits.csv", "1,2")
	dir := writeFiles(t, map[string]string{"train.py": "", "pkg/run.py": "", "data/x": ""})
	base := func() Stage {
		return Stage{Name: "train", Dir: dir, Environ: []string{}, Command: []string{"python", "train.py"}}
	}
	usage := func(change func(*Stage), want string) {
		t.Helper()
		st := base()
		change(&st)
		_, err := Bind(t.Context(), s, Project{Name: "p", Dir: dir}, st)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error %v, want one line about %q", err, want)
		}
	}
	usage(func(st *Stage) { st.Name = "a/b" }, "a/b")
	usage(func(st *Stage) { st.Name = strings.Repeat("x", 94) }, "longer than")
	usage(func(st *Stage) { st.Command = nil }, "there is no command")
	usage(func(st *Stage) { st.Shell = true }, "--shell takes one argument")
	usage(func(st *Stage) { st.Inputs = []Input{{Name: "a", Ref: "digits"}, {Name: "a", Ref: "digits"}} }, "input a is declared twice")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "../m"}} }, "leads out")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "/m"}} }, "not relative")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "a/.."}} }, "leads out")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "work", Path: "m"}} }, "the name is taken")
	// What no run could store is refused before one is spent on it.
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "a/" + strings.Repeat("m", 256)}} }, "a part of 256 bytes")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: strings.Repeat("m/", 2000)}} }, "has 3999 bytes")
	usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "m", From: strings.Repeat("m", 300)}} }, "a part of 300 bytes")
	for long, want := range map[string]map[string]string{
		"longer than 255 bytes": {strings.Repeat("k", 250): "v"},
		"hold 70011 bytes":      {"k": strings.Repeat("v", 70000)},
	} {
		usage(func(st *Stage) { st.Outputs = []Output{{Name: "m", Path: "m", Meta: want}} }, long)
	}
	usage(func(st *Stage) { st.Params = params(t, "a=1", "a=2") }, "given twice")
	usage(func(st *Stage) { st.Params = params(t, "a-b=1", "a_b=2") }, "CURI_PARAM_a_b")
	for _, v := range []string{"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "PET_NNODES", "NODE_RANK", "GROUP_RANK"} {
		usage(func(st *Stage) { st.Env = []EnvVar{{Name: v}} }, "never keyed")
	}
	usage(func(st *Stage) { st.Env = []EnvVar{{Name: "CURI_RUN"}} }, "curi itself sets")
	usage(func(st *Stage) { st.Env = []EnvVar{{Name: "TMPDIR"}} }, "curi itself sets TMPDIR")
	usage(func(st *Stage) { st.Env = []EnvVar{{Name: "A=B"}} }, "not the name")
	usage(func(st *Stage) { st.Tools = []string{"echo broken >&2; exit 3"} }, "exit status 3): broken")
	usage(func(st *Stage) { st.Code = []string{"*.rs"} }, `"*.rs" matches no file`)
	usage(func(st *Stage) { st.Code = []string{"pkg"} }, `write "pkg/**"`)
	usage(func(st *Stage) { st.Code = []string{"[z-"} }, "not a valid glob")
	usage(func(st *Stage) { st.Code = []string{"/etc/host*"} }, "not in the project")
	usage(func(st *Stage) { st.Command = []string{"python", "-m", "train.py"} }, "write -m train")
	usage(func(st *Stage) { st.Command = []string{"torchrun", "--module", "pkg/run.py"} }, "write -m pkg.run")

	st := base()
	st.Inputs = []Input{{Name: "a", Ref: "digist"}}
	_, err := Bind(t.Context(), s, Project{Name: "p", Dir: dir}, st)
	if !errors.Is(err, cas.ErrNotFound) || !strings.Contains(err.Error(), "did you mean digits?") {
		t.Errorf("an unknown input: %v", err)
	}
}

func TestBoundInputs(t *testing.T) {
	s := newStore(t)
	single := addText(t, s, "digits", "digits.csv", "1,2")
	dir := writeFiles(t, map[string]string{"a/b.txt": "b", "c.txt": "c"})
	tree, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Release()
	if _, _, err := s.Publish(t.Context(), "files", tree.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	plan := bind(t, s, Project{Name: "p", Dir: dir}, Stage{Name: "s", Dir: dir, Command: []string{"true"}, Inputs: []Input{
		{Name: "one", Ref: "digits"}, {Name: "all", Ref: "files@1"}, {Name: "sub", Ref: "files/a"},
		{Name: "leaf", Ref: "files/a/b.txt"}, {Name: "blob", Ref: single.Digest.String()},
	}})
	got := map[string]BoundInput{}
	for _, in := range plan.In {
		got[in.Name] = in
	}
	if in := got["one"]; in.Single != "digits.csv" || in.Tree != single.Tree || in.Meta["type"] != "Text" || in.From != "digits@1" {
		t.Errorf("a single file is bound as %+v", in)
	}
	if in := got["all"]; in.Single != "" || in.Tree != tree.Tree || in.From != "files@1" {
		t.Errorf("a directory is bound as %+v", in)
	}
	if in := got["leaf"]; in.Single != "b.txt" || in.From != "files@1/a/b.txt" {
		t.Errorf("a file inside a directory is bound as %+v", in)
	}
	if in := got["sub"]; in.Single != "" || in.Tree.IsZero() || in.Tree == tree.Tree {
		t.Errorf("a directory inside another is bound as %+v", in)
	}
	if in := got["blob"]; in.Single != single.Digest.String() {
		t.Errorf("a bare blob is bound as %+v", in)
	}
	if names := slices.Sorted(maps.Keys(got)); len(names) != 5 {
		t.Errorf("bound %v", names)
	}
}

// A collection between the look-up and the run must not take the tree that was
// made for a file inside another one, nor what was read from standard input.
func TestWhatBindStoredIsKept(t *testing.T) {
	s := newStore(t)
	addText(t, s, "digits", "digits.csv", "1,2")
	dir := t.TempDir()
	plan := bind(t, s, Project{Name: "p", Dir: dir}, Stage{Name: "train", Dir: dir, Command: []string{"cat"},
		Inputs: []Input{{Name: "file", Ref: "digits/digits.csv"}}, Stdin: "digits/digits.csv"})
	whole, err := s.Version(t.Context(), "digits", "")
	if err != nil {
		t.Fatal(err)
	}
	made := plan.In[0].Tree
	if _, err := s.Collect(t.Context(), cas.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if !s.HasTree(made) || !s.HasTree(plan.StdinTree) {
		t.Errorf("collected: the input %v, the standard input %v", !s.HasTree(made), !s.HasTree(plan.StdinTree))
	}
	plan.Release()
	if _, err := s.Collect(t.Context(), cas.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if s.HasTree(made) || !s.HasTree(whole.Tree) {
		t.Errorf("after Release: the input is there: %v; the artifact: %v", s.HasTree(made), s.HasTree(whole.Tree))
	}
}

// A tool that prints without end is keyed, or given up, without holding it all.
func TestToolThatPrintsMuch(t *testing.T) {
	s := newStore(t)
	dir := t.TempDir()
	const n = 200_000_000
	h := cas.NewHasher()
	for range n / 1_000_000 {
		h.Write(make([]byte, 1_000_000))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	plan := bind(t, s, Project{Name: "p", Dir: dir}, Stage{Name: "x", Dir: dir, Command: []string{"x"},
		Environ: os.Environ(), Tools: []string{"head -c 200000000 /dev/zero"}})
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d bytes were held of %d", used, n)
	}
	if plan.Tool[0].Digest != h.Digest() {
		t.Error("not all of it was keyed")
	}
}
