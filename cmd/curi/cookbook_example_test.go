package main_test

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestExample runs what README.md does with docs/example, as it stands there,
// with the real torchrun. The pages show the file of the example as it is.
func TestExample(t *testing.T) {
	const file = "docs/example/curi.yaml"
	text, err := os.ReadFile("../../" + file)
	if err != nil {
		t.Fatal(err)
	}
	var script string
	for page, title := range map[string]string{"../../README.md": "A project", "../../docs/curi-yaml.md": "A whole file"} {
		list := sections(t, page)
		i := slices.IndexFunc(list, func(s section) bool { return s.title == title })
		if i < 0 || list[i].files[file] != string(text) {
			t.Fatalf("%s does not show %s as it is, under %q", page, file, title)
		}
		script += list[i].script
	}
	t.Parallel()
	s := bareSite(t, byMount).real()
	if err := os.CopyFS(s.dir+"/docs/example", os.DirFS("../../docs/example")); err != nil {
		t.Fatal(err)
	}
	o := s.run("bash", "-c", "set -euo pipefail\n"+script+`
		curi log --stage train --quiet | wc -l | grep -x 2
		curi metrics 'train[lr=0.01]@last' | grep '^accuracy .* 19 .* 20$'
		curi show 'train[lr=0.01].model' --json | grep '"type": *"ModelType1"'`)
	for _, want := range []string{"8 parameter sets, no problem found", "base,0.01,", "small-lr,0.001,", "8 stage runs to do"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if o.status != 0 || t.Failed() {
		t.Errorf("the commands\n%s\nend with %s", script, o)
	}
}
