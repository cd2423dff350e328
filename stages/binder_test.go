package stages

import (
	"slices"
	"testing"
)

// What a Binder remembers of one stage is right for the next.
func TestBinderIsBind(t *testing.T) {
	s := newStore(t)
	addText(t, s, "digits", "digits.csv", "1,2")
	addText(t, s, "letters", "letters.csv", "a,b")
	dir := writeFiles(t, map[string]string{
		"train.py": "import lib.net\n", "lib/net.py": "x = 1\n", "lib/__init__.py": "", "test.py": "import train\n", "run": "#!/usr/bin/env python\nimport lib.net\n",
		"run.txt": "not code\n", "other/train.py": "import net\n", "other/net.py": "y = 1\n", "notes/a.md": "a", "notes/b.md": "b",
	})
	p := Project{Name: "p", Dir: dir}
	environ := []string{"PATH=/usr/bin:/bin"}
	shared := NewBinder(s, p)
	data := []Input{{Name: "d", Ref: "digits"}}
	pythonpath := dir + "/other"
	for i, st := range []Stage{
		{Command: []string{"python", "train.py", "{in.d}"}, Inputs: data},
		{Command: []string{"python", "test.py", "{in.d}"}, Inputs: data},
		{Command: []string{"python", "train.py", "{in.d}"}, Inputs: []Input{{Name: "d", Ref: "letters"}}},
		{Command: []string{"python", "-m", "net"}},
		{Command: []string{"python", "-m", "net"}, Env: []EnvVar{{Name: "PYTHONPATH", Value: &pythonpath}}},
		{Command: []string{"python", "train.py"}, Code: []string{"notes/**"}},
		{Command: []string{"python", "train.py"}, Code: []string{"notes/a*", "notes/b.md"}},
		{Command: []string{"python", "train.py"}, Outputs: []Output{{Name: "o", Path: "o", From: "lib"}}},
		{Command: []string{"sh", "run.txt", "lib/net.py"}}, {Command: []string{"sh", "run.txt", "lib/net.py"}, Outputs: []Output{{Name: "o", Path: "o", From: "lib"}}},
		{Command: []string{"cat run.txt train.py"}},
		{Command: []string{"./run"}}, {Command: []string{"python", "run.txt"}}, {Command: []string{"cat run.txt train.py"}, Shell: true},
		{Command: []string{"python", "train.py"}, Tools: []string{"echo 1", "pwd"}},
		{Command: []string{"python", "train.py"}, Stdin: "digits"}, {Command: []string{"python", "train.py"}, Stdin: "letters"},
	} {
		st.Name, st.Dir, st.Environ = "s", dir, environ
		want := bind(t, s, p, st)
		for range 2 {
			got, err := shared.Bind(t.Context(), st)
			if err != nil {
				t.Fatalf("stage %d: %v", i, err)
			}
			if got.Preimage != want.Preimage || !slices.Equal(got.Warnings, want.Warnings) {
				t.Errorf("stage %d: %q, alone\n%q", i, Diff(want.Preimage, got.Preimage), want.Warnings)
			}
			got.Release()
		}
	}
}
