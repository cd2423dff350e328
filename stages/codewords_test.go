package stages

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What a command runs without naming it as an element of its own is code too.
func TestCodeBehindWords(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"train.py":             "import lib.data\n",
		"lib/__init__.py":      "",
		"lib/data.py":          "",
		"bom.py":               "\ufeffimport lib.data\n",
		"sub/go.py":            "import near\n",
		"sub/near.py":          "",
		"app/__main__.py":      "import beside\n",
		"app/beside.py":        "",
		"real/script.py":       "import mate\n",
		"real/mate.py":         "",
		"star.py":              "from plugins import *\n",
		"plugins/__init__.py":  "__all__ = ['one', \"two\"]\n",
		"plugins/one.py":       "",
		"plugins/two.py":       "",
		"plugins/three.py":     "",
		"bin/trainer":          "#!/usr/bin/env python3\nimport lib.data\n",
		"env/pyvenv.cfg":       "",
		"env/bin/torchrun":     "#!/usr/bin/env python3\n",
		"linked/conf/deep.yml": "",
		"bin/plain":            "import lib.data\n",
		"window.pyw":           "import lib.data\n",
		"alone.py":             "import sub.near\n",
		"vendor/own/mod.py":    "",
		"conf.yml":             "",
		"env/bin/python":       "",
	})
	for _, f := range []string{"bin/trainer", "env/bin/torchrun", "env/bin/python"} {
		if err := os.Chmod(filepath.Join(dir, f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"link.py": "real/script.py", "conf": "linked/conf"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	path := []string{"PATH=" + filepath.Join(dir, "env/bin") + ":" + filepath.Join(dir, "bin") + ":/usr/bin:/bin"}
	lib := []string{"lib/__init__.py", "lib/data.py"}
	for name, c := range map[string]struct {
		stage Stage
		want  []string
	}{
		"python -c":            {Stage{Command: []string{"python3", "-c", "import os; from lib import data"}}, lib},
		"python -uc":           {Stage{Command: []string{"/opt/bin/python3.12", "-uc", "import lib.data"}}, lib},
		"bash -c":              {Stage{Command: []string{"bash", "-c", "set -e; python train.py --lr 1"}}, append(slices.Clone(lib), "train.py")},
		"env bash -lc":         {Stage{Command: []string{"env", "A=1", "bash", "-lc", "python 'train.py'"}}, append(slices.Clone(lib), "train.py")},
		"shell, cd":            {Stage{Shell: true, Command: []string{"cd sub && python go.py"}}, []string{"sub/go.py", "sub/near.py"}},
		"shell, cd, module":    {Stage{Shell: true, Command: []string{"cd sub; python -m go"}}, []string{"sub/go.py", "sub/near.py"}},
		"shell, python -c":     {Stage{Shell: true, Command: []string{`x=$(python -c 'from lib import data') python -`}}, lib},
		"shell, here document": {Stage{Shell: true, Command: []string{"python - <<EOF\nfrom lib import (data)\nEOF\n"}}, lib},
		"byte order mark":      {Stage{Command: []string{"python", "bom.py"}}, append([]string{"bom.py"}, lib...)},
		"python DIR":           {Stage{Command: []string{"python", "app"}}, []string{"app/__main__.py", "app/beside.py"}},
		"a link to a script":   {Stage{Command: []string{"python", "link.py"}}, []string{"link.py", "real/mate.py"}},
		"import *":             {Stage{Command: []string{"python", "star.py"}}, []string{"plugins/__init__.py", "plugins/one.py", "plugins/two.py", "star.py"}},
		"found by PATH":        {Stage{Command: []string{"trainer"}, Environ: path}, append([]string{"bin/trainer"}, lib...)},
		"given PATH":           {Stage{Command: []string{"trainer"}, Env: []EnvVar{{"PATH", new(filepath.Join(dir, "bin"))}}}, append([]string{"bin/trainer"}, lib...)},
		"of an environment":    {Stage{Command: []string{"torchrun", "train.py"}, Environ: path}, append(slices.Clone(lib), "train.py")},
		"a glob at a link":     {Stage{Command: []string{"true"}, Code: []string{"conf/**"}}, []string{"conf/deep.yml"}},
		"by its path":          {Stage{Command: []string{"env/bin/python", "train.py"}}, append(slices.Clone(lib), "train.py")},
		"-m joined":            {Stage{Command: []string{"python", "-mlib.data"}}, lib},
		"-um":                  {Stage{Command: []string{"python3", "-um", "lib.data"}}, lib},
		"-m of no Python":      {Stage{Command: []string{"tar", "-xm", "alone", "-mlib.data"}}, nil},
		"a module at the top, behind torchrun's options": {Stage{Command: []string{"torchrun", "-m", "--nproc_per_node", "2", "alone", "-m", "resnet"}},
			[]string{"alone.py", "sub/near.py"}},
		"a script without .py":           {Stage{Command: []string{"python", "-u", "bin/plain", "--mode", "fast"}}, append([]string{"bin/plain"}, lib...)},
		"torchrun of one":                {Stage{Command: []string{"torchrun", "--nproc_per_node=2", "bin/plain"}}, append([]string{"bin/plain"}, lib...)},
		".pyw":                           {Stage{Command: []string{"python", "window.pyw"}}, append(slices.Clone(lib), "window.pyw")},
		"behind a second '='":            {Stage{Command: []string{"x", "--set=conf=conf.yml"}}, []string{"conf.yml"}},
		"env PYTHONPATH":                 {Stage{Command: []string{"env", "PYTHONPATH=/nowhere:vendor", "python", "-m", "own.mod"}}, []string{"vendor/own/mod.py"}},
		"shell, PYTHONPATH":              {Stage{Shell: true, Command: []string{`export PYTHONPATH="$PWD/vendor:$PYTHONPATH"; python -m own.mod`}}, []string{"vendor/own/mod.py"}},
		"shell, two modules":             {Stage{Shell: true, Command: []string{"python alone.py && python -m lib.data"}}, append([]string{"alone.py"}, append(slices.Clone(lib), "sub/near.py")...)},
		"shell, options behind 2>&1":     {Stage{Shell: true, Command: []string{"python alone.py 2>&1 -m lib.data"}}, []string{"alone.py", "sub/near.py"}},
		"shell, a program found by PATH": {Stage{Shell: true, Command: []string{"cd sub && A=1 trainer"}, Environ: path}, append([]string{"bin/trainer"}, lib...)},
	} {
		t.Run(name, func(t *testing.T) {
			got, warnings, err := findCode(t, dir, c.stage)
			slices.Sort(c.want)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("code: %v (%v)\n want %v", got, err, c.want)
			}
			if len(warnings) > 0 && !c.stage.Shell { // a shell's words are taken for paths
				t.Errorf("warnings: %v", warnings)
			}
		})
	}
}
