package stages

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func testPlan(command ...string) *Plan {
	list, _ := ParseParam(`layers=[64, 1e-2, "a b"]`, false)
	lr, _ := ParseParam("lr=5e-2", false)
	minus, _ := ParseParam("minus=-1", false)
	words, _ := ParseParam("words=it's \"so\" $HOME", false)
	p := &Plan{Stage: Stage{
		Name: "train", Command: command, Dir: "/work",
		Inputs:  []Input{{Name: "data", Ref: "digits"}},
		Outputs: []Output{{Name: "model", Path: "model.ckpt"}},
		Work:    []string{"ckpt"},
		Params:  []Param{list, lr, words, minus},
	}}
	p.In = []BoundInput{{Input: p.Inputs[0], Meta: map[string]string{"type": "Digits"}, From: "digits@1"}}
	return p
}

var testPlaces = Places{
	Root: "/m/at/k", Logs: "/m/at/k/logs", Run: "train-7f3k2m",
	In: map[string]string{"data": "/m/at/k/in/data"}, Out: map[string]string{"model": "/m/at/k/out/model/model.ckpt"},
	Work: map[string]string{"ckpt": "/m/at/k/work/ckpt"},
}

func testSecret(name string) (string, bool) { return "hunter2", name == "TOKEN" }

func TestArgv(t *testing.T) {
	for _, c := range []struct {
		command []string
		resume  string
		want    []string
	}{
		{[]string{"t", "{in.data}"}, "", []string{"t", "/m/at/k/in/data"}},
		{[]string{"t", "--out={out.model}", "{work.ckpt}"}, "", []string{"t", "--out=/m/at/k/out/model/model.ckpt", "/m/at/k/work/ckpt"}},
		{[]string{"t", "{root} {logs} {run}"}, "", []string{"t", "/m/at/k /m/at/k/logs train-7f3k2m"}},
		{[]string{"t", "{param.lr}"}, "", []string{"t", "5e-2"}},
		{[]string{"t", "{param.lr:json}"}, "", []string{"t", "5e-2"}},
		{[]string{"t", "{param.words:json}"}, "", []string{"t", `"it's \"so\" $HOME"`}},
		{[]string{"t", "--layers", "{param.layers}"}, "", []string{"t", "--layers", "64", "1e-2", "a b"}},
		{[]string{"t", "{param.layers:json}"}, "", []string{"t", `[64, 1e-2, "a b"]`}},
		{[]string{"t", "{meta.data.type}"}, "", []string{"t", "Digits"}},
		// {resume} drops itself and its option.
		{[]string{"t", "--ckpt_path", "{resume}", "--x"}, "", []string{"t", "--x"}},
		{[]string{"t", "--ckpt_path", "{resume}", "--x"}, "/c/last.ckpt", []string{"t", "--ckpt_path", "/c/last.ckpt", "--x"}},
		{[]string{"t", "--ckpt_path={resume}", "y"}, "", []string{"t", "y"}},
		{[]string{"t", "ckpt={resume}", "y"}, "", []string{"t", "y"}},
		{[]string{"t", "--ckpt_path={resume}"}, "/c", []string{"t", "--ckpt_path=/c"}},
		{[]string{"t", "fit", "{resume}"}, "", []string{"t", "fit"}},
		{[]string{"t", "--x", "{param.minus}", "{resume}"}, "", []string{"t", "--x", "-1"}},
		{[]string{"t", "--x={resume}", "{resume}"}, "", []string{"t"}},
		{[]string{"t", "--x", "{resume}", "{resume}"}, "", []string{"t"}},
		{[]string{"t", "--", "{resume}"}, "", []string{"t", "--"}},
		// Braces that are text.
		{[]string{"t", `{"a":1}`, `{"a":{"b":1}}`, "{}", "{1..3}", "{a,b}", "{ print $1 }", "a}b", "}}"}, "",
			[]string{"t", `{"a":1}`, `{"a":{"b":1}}`, "{}", "{1..3}", "{a,b}", "{ print $1 }", "a}b", "}}"}},
		{[]string{"t", `{"a":{"lr":{param.lr}}}`}, "", []string{"t", `{"a":{"lr":5e-2}}`}},
		{[]string{"t", "${HOME} ${run}"}, "", []string{"t", "${HOME} ${run}"}},
		{[]string{"t", "{{epoch}}-{{val_loss:.2f}}"}, "", []string{"t", "{epoch}-{val_loss:.2f}"}},
		{[]string{"t", "{{in.data}"}, "", []string{"t", "{in.data}"}},
		{[]string{"t", "{{{{.Names}}}}"}, "", []string{"t", "{{.Names}}"}},
		{[]string{"t", "{{{param.lr}}}"}, "", []string{"t", "{5e-2}"}},
		{[]string{"t", ""}, "", []string{"t", ""}},
	} {
		p := testPlan(c.command...)
		if err := p.check(); err != nil {
			t.Errorf("%q: %v", c.command, err)
			continue
		}
		places := testPlaces
		places.Resume = c.resume
		got, _, err := p.Argv(places, testSecret)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q (resume %q):\n is   %q\n want %q\n %v", c.command, c.resume, got, c.want, err)
		}
	}
}

func TestArgvErrors(t *testing.T) {
	for element, want := range map[string]string{
		"{in.dat}":              "did you mean {in.data}?",
		"{inn.data}":            "did you mean {in.data}?",
		"{parm.lr}":             "did you mean {param.lr}?",
		"{param.epochs}":        "declare it with --param epochs",
		"{epoch}":               "write {{epoch}} for the text",
		"{val_loss:.2f}":        "write {{val_loss:.2f}} for the text",
		"{resum}":               "did you mean {resume}?",
		"{root.x}":              "{root} takes no name",
		"{in}":                  "write {in.NAME}",
		"{meta.data}":           "write {meta.IN.KEY}",
		"{in.data":              "no whole placeholder",
		"{in. data}":            "no whole placeholder",
		"${in.data}":            "neither a placeholder nor a shell variable",
		"x{param.layers}":       "{param.layers:json}",
		"{param.lr:jsn}":        "incomplete placeholder",
		"{secret.A-B}":          "not the name of an environment variable",
		"a\x00b":                "NUL",
		`{"k":"{param.lrr}"}`:   "did you mean {param.lr}?",
		"{work.ckpts}/{in.data": "no whole placeholder",
	} {
		err := testPlan("t", element).check()
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one about %q", element, err, want)
		}
	}
	p := testPlan("t", "{meta.data.kind}")
	if err := p.checkMeta(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "it has type") {
		t.Errorf("unknown metadata: %v", err)
	}
}

func TestSecretsAreShownByName(t *testing.T) {
	p := testPlan("t", "--token={secret.TOKEN}")
	argv, shown, err := p.Argv(testPlaces, testSecret)
	if err != nil || argv[1] != "--token=hunter2" || shown[1] != "--token={secret.TOKEN}" {
		t.Errorf("argv %q, shown %q, %v", argv, shown, err)
	}
	p = testPlan("t", "{secret.OTHER}")
	if _, _, err := p.Argv(testPlaces, testSecret); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "OTHER is not set") {
		t.Errorf("a secret that is not set: %v", err)
	}
	p = testPlan("t", "{secret.TOKEN}")
	p.Env = []EnvVar{{Name: "TOKEN"}}
	if err := p.check(); !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "would record the secret") {
		t.Errorf("a secret that is keyed too: %v", err)
	}
}

func FuzzPlaceholders(f *testing.F) {
	for _, s := range []string{"{in.data}", "{{x}}", "${A}", `{"a":{"b":{param.lr}}}`, "{resume}", "}}{{", "{in."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, element string) {
		segs, err := parseElement(element)
		if err != nil {
			if !errors.Is(err, ErrUsage) {
				t.Fatal(err)
			}
			return
		}
		placeholders := 0
		for _, s := range segs {
			if s.kind != "" {
				placeholders++
				if !strings.Contains(element, s.text) {
					t.Fatalf("%q: placeholder %q is not in it", element, s.text)
				}
			}
		}
		// Text without "{{" and without placeholders stays as it is.
		if placeholders == 0 && !strings.Contains(element, "{{") && element != "" && (len(segs) != 1 || segs[0].text != element) {
			t.Fatalf("%q became %+v", element, segs)
		}
		// Text with every brace doubled means itself.
		doubled := strings.NewReplacer("{", "{{", "}", "}}").Replace(element)
		if strings.Count(element, "{") == strings.Count(element, "}") && nested(element) {
			segs, err := parseElement(doubled)
			var text strings.Builder
			for _, s := range segs {
				text.WriteString(s.text)
			}
			if err != nil || text.String() != element {
				t.Fatalf("%q doubled became %q (%v)", element, text.String(), err)
			}
		}
	})
}

// nested reports whether every '}' closes a '{'.
func nested(s string) bool {
	depth := 0
	for _, c := range s {
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth < 0 {
			return false
		}
	}
	return depth == 0
}
