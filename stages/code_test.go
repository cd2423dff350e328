package stages

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var codeProject = map[string]string{
	"train.py":                   "import os, lib.data as d\nfrom lib import net\nif True:\n    from . import never\n",
	"lib/__init__.py":            "",
	"lib/data.py":                "def f():\n    from .deep import (a,  # one\n        b as c,\n    )\n",
	"lib/net.py":                 "'''import lib.unused\n'''\nx = \"from lib import unused\"  # import lib.unused\nimport sys; import tools.geometry\n",
	"lib/deep/__init__.py":       "from . import a\n",
	"lib/deep/a.py":              "from ..sibling import f\n",
	"lib/deep/b.py":              "try:\n    import lib.lazy\nexcept ImportError: pass\n",
	"lib/sibling.py":             "",
	"lib/lazy.py":                "from tools \\\n    import shapes\n",
	"lib/unused.py":              "",
	"tools/geometry.py":          "", // tools has no __init__: a namespace package
	"tools/shapes.py":            "",
	"src/pkg/__init__.py":        "from pkg.core import run\n",
	"src/pkg/core.py":            "",
	"src/pkg/__main__.py":        "import pkg.core\n",
	"src/pkg/other.py":           "",
	"scripts/run.py":             "import beside\n",
	"scripts/beside.py":          "",
	"vendor/extra/mod.py":        "",
	"external/my_trainer.py":     "from external.parts import model\n",
	"external/parts/model.py":    "",
	"external/parts/README":      "",
	"run.sh":                     "",
	"conf/a.yaml":                "",
	".git/config.py":             "",
	"__pycache__/train.py":       "",
	"venv/pyvenv.cfg":            "",
	"venv/lib/site/torch.py":     "",
	"external/__pycache__/x.py":  "",
	"external/deep/er/module.py": "",
}

func findCode(t *testing.T, dir string, st Stage) ([]string, []string, error) {
	t.Helper()
	st.Name, st.Dir = "train", filepath.Join(dir, st.Dir)
	plan := &Plan{Stage: st, Project: Project{Name: "p", Dir: dir}}
	if err := plan.check(); err != nil {
		t.Fatal(err)
	}
	c := newCode(plan, "/nowhere", newSources())
	err := c.find()
	return slices.Sorted(maps.Keys(c.files)), c.warnings, err
}

func TestCode(t *testing.T) {
	dir := writeFiles(t, codeProject)
	imports := []string{"lib/__init__.py", "lib/data.py", "lib/deep/__init__.py", "lib/deep/a.py", "lib/deep/b.py", "lib/lazy.py", "lib/net.py", "lib/sibling.py", "tools/geometry.py", "tools/shapes.py"}
	trained := append(slices.Clone(imports), "train.py")
	pkg := []string{"src/pkg/__init__.py", "src/pkg/__main__.py", "src/pkg/core.py"}
	for _, c := range []struct {
		name string
		st   Stage
		want []string
	}{
		{"a script and what it imports, to the end", Stage{Command: []string{"python", "train.py"}}, trained},
		{"an absolute path", Stage{Command: []string{"python", filepath.Join(dir, "train.py")}}, trained},
		{"the part behind '='", Stage{Command: []string{"x", "--config=conf/a.yaml", "script=run.sh"}}, []string{"conf/a.yaml", "run.sh"}},
		{"the program itself", Stage{Command: []string{"./run.sh"}}, []string{"run.sh"}},
		{"a module", Stage{Command: []string{"python", "-m", "lib.sibling"}}, []string{"lib/__init__.py", "lib/sibling.py"}},
		{"a package below src", Stage{Command: []string{"python", "-m", "pkg"}}, pkg},
		{"a module behind torchrun", Stage{Command: []string{"torchrun", "--standalone", "--module", "external.my_trainer", "--lr", "1"}}, []string{"external/my_trainer.py", "external/parts/model.py"}},
		{"a module behind torchrun's other options", Stage{Command: []string{"torchrun", "-m", "--nproc_per_node", "2", "external.my_trainer"}}, []string{"external/my_trainer.py", "external/parts/model.py"}},
		{"a module with '='", Stage{Command: []string{"torchrun", "--module=external.my_trainer"}}, []string{"external/my_trainer.py", "external/parts/model.py"}},
		{"python -m torch.distributed.run", Stage{Command: []string{"python", "-m", "torch.distributed.run", "-m", "external.my_trainer"}}, []string{"external/my_trainer.py", "external/parts/model.py"}},
		{"a script behind python -m torch.distributed.run", Stage{Command: []string{"python", "-m", "torch.distributed.run", "run.sh"}}, []string{"run.sh"}},
		{"PYTHONPATH", Stage{Command: []string{"python", "-m", "extra.mod"}, Environ: []string{"PYTHONPATH=/nowhere:vendor"}}, []string{"vendor/extra/mod.py"}},
		{"the script's own directory", Stage{Command: []string{"python", "scripts/run.py"}}, []string{"scripts/beside.py", "scripts/run.py"}},
		{"from a directory below", Stage{Dir: "scripts", Command: []string{"python", "run.py"}}, []string{"scripts/beside.py", "scripts/run.py"}},
		{"words of a shell text", Stage{Shell: true, Command: []string{"cat conf/a.yaml | ./run.sh > {logs}/x"}}, []string{"conf/a.yaml", "run.sh"}},
		{"a glob", Stage{Command: []string{"x"}, Code: []string{"conf/*.yaml"}}, []string{"conf/a.yaml"}},
		{"** is recursive", Stage{Command: []string{"x"}, Code: []string{"external/**/*.py"}}, []string{"external/deep/er/module.py", "external/my_trainer.py", "external/parts/model.py"}},
		{"**.py means **/*.py", Stage{Command: []string{"x"}, Code: []string{"external/**.py"}}, []string{"external/deep/er/module.py", "external/my_trainer.py", "external/parts/model.py"}},
		{"**.py from the top: no .git, no __pycache__, no virtual environment", Stage{Command: []string{"x"}, Code: []string{"**.py"}},
			slices.DeleteFunc(slices.Sorted(maps.Keys(codeProject)), func(f string) bool {
				return filepath.Ext(f) != ".py" || strings.HasPrefix(f, "venv") || strings.HasPrefix(f, ".git") || strings.Contains(f, "__pycache__")
			})},
		{"a glob from a directory below", Stage{Dir: "scripts", Command: []string{"x"}, Code: []string{"../conf/*"}}, []string{"conf/a.yaml"}},
		{"braces", Stage{Command: []string{"x"}, Code: []string{"{run.sh,conf/*}"}}, []string{"conf/a.yaml", "run.sh"}},
		{"a glob's imports", Stage{Command: []string{"x"}, Code: []string{"lib/lazy.py"}}, []string{"lib/lazy.py", "tools/shapes.py"}},
		{"what an earlier try left where an output comes from", Stage{Command: []string{"x", "--to", "run.sh"}, Outputs: []Output{{Name: "o", Path: "o", From: "run.sh"}}}, nil},
		{"placeholders are no files", Stage{Command: []string{"x", "{logs}"}}, nil},
	} {
		got, warnings, err := findCode(t, dir, c.st)
		if err != nil || !slices.Equal(got, c.want) || len(warnings) > 0 {
			t.Errorf("%s: keyed\n %q, want\n %q\n %v %v", c.name, got, c.want, warnings, err)
		}
	}
}

func TestCodeWarnings(t *testing.T) {
	dir := writeFiles(t, codeProject)
	other := writeFiles(t, map[string]string{"data.csv": "1"})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	open := strconv.Itoa(int(r.Fd()))
	for _, c := range []struct {
		name, want string // "" is none
		st         Stage
	}{
		{"a file elsewhere", "data.csv is neither an input, an output nor code", Stage{Command: []string{"x", filepath.Join(other, "data.csv")}}},
		{"a file elsewhere behind '='", "data.csv is neither", Stage{Command: []string{"x", "--data=" + filepath.Join(other, "data.csv")}}},
		{"a directory", "conf is neither", Stage{Command: []string{"x", "--conf", "conf"}}},
		{"a module that is not there", "module no.such was not found", Stage{Command: []string{"python", "-m", "no.such"}}},
		{"a module that is not there, behind torchrun's options", "module no.such was not found", Stage{Command: []string{"torchrun", "--module", "--standalone", "no.such"}}},
		{"another program's -m", "", Stage{Command: []string{"x", "-m", "--fast", "resnet"}}},
		{"the program", "", Stage{Command: []string{"/bin/cat"}}},
		{"a program of the system", "", Stage{Command: []string{"env", "/bin/cat"}}},
		{"a device", "", Stage{Command: []string{"x", "/dev/null"}}},
		{"a pipe of the shell's", "what comes through it goes unseen", Stage{Command: []string{"x", "--config", "/dev/fd/" + open}}},
		{"a pipe of the shell's behind '='", "what comes through it goes unseen", Stage{Command: []string{"x", "--config=/proc/self/fd/" + open}}},
		{"standard input", "", Stage{Command: []string{"x", "/dev/fd/0"}}},
		{"the script's own -m", "", Stage{Command: []string{"python", "train.py", "-m", "resnet"}}},
		{"a message", "", Stage{Command: []string{"git", "commit", "-m", "say what train.py does"}}},
		{"where an output comes from", "", Stage{Command: []string{"x", filepath.Join(dir, "conf")}, Outputs: []Output{{Name: "o", Path: "o", Dir: true, From: "conf"}}}},
		{"a word that is no path", "", Stage{Command: []string{"x", "resnet50", "--mode=fast"}}},
	} {
		_, warnings, err := findCode(t, dir, c.st)
		switch {
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && len(warnings) > 0, c.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.want)):
			t.Errorf("%s: warnings %q, want %q", c.name, warnings, c.want)
		}
	}
}

func TestParseImports(t *testing.T) {
	for source, want := range map[string]string{
		"import a":                                "a",
		"import a.b, c as d":                      "a.b c",
		"from a import b":                         "a:b",
		"from a.b import c as d, e":               "a.b:c,e",
		"from . import x":                         ".:x",
		"from ...a import x":                      "...a:x",
		"from a import (b,\n  c,\n)":              "a:b,c",
		"from a import *":                         "a:*",
		"from a import b # c\nimport d":           "a:b d:",
		"x = 1; import a":                         "a",
		"if x: import a":                          "a",
		"def f(a: int = {1: 2}) -> x: import a":   "a",
		"try:\n\timport a\nexcept E:\n\timport b": "a b",
		"raise E from e":                          "",
		"yield from a":                            "",
		"'''\nimport a\n'''\nimport b":            "b",
		"r'''\\'''\nimport b":                     "",
		"'it\\'s import'\nimport b":               "b",
		"s = 'open\nimport b":                     "b",
		"import \\\n  a":                          "a",
		"import a\r\nimport b\r\n":                "a b",
		"importlib.import_module('a')":            "",
		"from __future__ import annotations":      "__future__:annotations",
		"import ünicode":                          "ünicode",
		"from a import":                           "a:",
		"from":                                    "",
		"import":                                  "",
		"from . x import y":                       ".x:y",
		"f(\nimport_ = 1)\nimport b":              "b",
		// Since Python 3.12 a text in an f-string may have the quotes of the outer one.
		"x = f'{d['(']}'\nimport b\n  from c import d": "b: c:d",
		"(yield\n from a)\nimport b":                   "b:",
	} {
		var got []string
		for _, imp := range parseImports([]byte(source)) {
			text := strings.Repeat(".", imp.level) + imp.module
			if imp.names != nil || strings.Contains(source, "from") {
				text += ":" + strings.Join(imp.names, ",")
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q imports %q, want %q", source, strings.Join(got, " "), want)
		}
	}
}

func FuzzParseImports(f *testing.F) {
	f.Add([]byte("from a import (b,\n'''x'''"))
	f.Fuzz(func(t *testing.T, source []byte) { parseImports(source) })
}

// The imports of a notebook's code cells are followed; what is text, or a
// command of the notebook, is none.
func TestNotebookImports(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"nb/report.ipynb": `{"cells": [
			{"cell_type": "markdown", "source": ["import never\n"]},
			{"cell_type": "code", "source": ["%matplotlib inline\n", "!pip install never\n", "import plots\n"]},
			{"cell_type": "code", "source": "from lib import tables"}], "metadata": {}, "nbformat": 4}`,
		"nb/plots.py":   "",
		"nb/never.py":   "",
		"lib/tables.py": "",
		"broken.ipynb":  "{",
	})
	st := Stage{Command: []string{"jupyter", "nbconvert", "--execute", "nb/report.ipynb", "broken.ipynb"}}
	files, _, err := findCode(t, dir, st)
	if want := []string{"broken.ipynb", "lib/tables.py", "nb/plots.py", "nb/report.ipynb"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v; want %v", files, err, want)
	}
}

func FuzzNotebook(f *testing.F) {
	f.Add([]byte(`{"cells":[{"cell_type":"code","source":["import a\n"]},{"cell_type":"code","source":"%x\nb"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) { parseImports(notebookSource(b)) })
}
