package stages

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	s := newStore(t)
	p := Project{Name: "p", Dir: t.TempDir()}
	if _, ok, err := Explain(t.Context(), s, bind(t, s, p, trainStage(t, "lr=0.05"))); ok || err != nil {
		t.Fatalf("a stage that never ran: %v %v", ok, err)
	}
	near := finish(t, s, bind(t, s, p, trainStage(t, "lr=0.05", "epochs=3")), Failed, nil)
	st := trainStage(t, "lr=0.7", "epochs=90")
	st.Command = append(st.Command, "--fast")
	finish(t, s, bind(t, s, p, st), Succeeded, map[string]string{"model": "x"})

	got, ok, err := Explain(t.Context(), s, bind(t, s, p, trainStage(t, "lr=0.06", "epochs=3")))
	want := []Change{{`param "lr" float "0.05"`, `param "lr" float "0.06"`}}
	if err != nil || !ok || got.Run.ID != near.ID || !slices.Equal(got.Changes, want) {
		t.Errorf("nearest is %s with %q (%v), want %s with %q", got.Run.ID, got.Changes, err, near.ID, want)
	}
}

func TestDiff(t *testing.T) {
	from := Preimage("v1\nargv \"a\"\nargv \"b\"\ncode \"x.py\" 1\nmeta \"m\" \"k\" \"1\"\nparam \"a b\" str \"1\"\n")
	to := Preimage("v1\nargv \"a\"\nargv \"c\"\nargv \"d\"\ncode \"x.py\" 2\nmeta \"m\" \"j\" \"1\"\nparam \"a b\" str \"2\"\n")
	want := []Change{
		{`argv "b"`, `argv "c"`}, {`code "x.py" 1`, `code "x.py" 2`}, {`meta "m" "k" "1"`, ""}, {`param "a b" str "1"`, `param "a b" str "2"`},
		{"", `argv "d"`}, {"", `meta "m" "j" "1"`},
	}
	if got := Diff(from, to); !slices.Equal(got, want) {
		t.Errorf("differs in\n%q, want\n%q", got, want)
	}
	swapped := Preimage("v1\nargv \"b\"\nargv \"a\"\n")
	if got := Diff("v1\nargv \"a\"\nargv \"b\"\n", swapped); len(got) != 2 {
		t.Errorf("swapped arguments differ in %q", got)
	}
}

// No value can end a line, forge a component or equal another: whatever two
// stages hold, equal texts come from equal stages only.
func TestPreimagesNeverCollide(t *testing.T) {
	pieces := []string{"", "a", "b", "\n", "\"", "\\", "\\n", " ", "\x00", "\x7f", "\xff", "\u0085", "\u2028", "\u202e", "param \"x\" int \"1\"", "\"\nparam \"x\" int \"1", "unset", "=", "ü", "\u00a0"}
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		var b strings.Builder
		for range rnd.IntN(3) {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		return b.String()
	}
	seen := map[Preimage]string{}
	for range 20_000 {
		p := &Plan{Stage: Stage{Command: []string{text(), text()}[:1+rnd.IntN(2)], Shell: rnd.IntN(2) == 0}}
		if rnd.IntN(2) == 0 {
			p.Params = []Param{{Name: text(), Type: paramTypes[rnd.IntN(3)], Canonical: text()}}
		}
		if rnd.IntN(2) == 0 {
			v := text()
			p.EnvBound = []BoundEnv{{Name: text()}}
			if rnd.IntN(2) == 0 {
				p.EnvBound[0].Value = &v
			}
		}
		if rnd.IntN(2) == 0 {
			p.CodeFile = []CodeFile{{Path: text()}}
		}
		if rnd.IntN(2) == 0 {
			p.Outputs = []Output{{Name: text(), Path: text(), From: text(), Dir: rnd.IntN(2) == 0, Meta: map[string]string{text(): text()}}}
		}
		if rnd.IntN(2) == 0 {
			p.Work = []string{text()}
		}
		pre := p.preimage()
		same := identity(p)
		if other, ok := seen[pre]; ok && other != same {
			t.Fatalf("two stages have one preimage:\n%s\n%s\n%s", pre, other, same)
		}
		seen[pre] = same
		for _, line := range pre.Lines() {
			if strings.ContainsAny(line, "\x00\x7f\x1b\u0085\u2028\u202e") || line == "" {
				t.Fatalf("line %q", line)
			}
		}
	}
}

// identity lists every keyed field with its length before it.
func identity(p *Plan) string {
	var b strings.Builder
	field := func(s string) {
		b.WriteString(strings.Repeat("i", len(s)))
		b.WriteString("." + s)
	}
	flag := func(v bool) {
		if v {
			b.WriteString("+")
		} else {
			b.WriteString("-")
		}
	}
	flag(p.Shell)
	for _, a := range p.Command {
		field(a)
	}
	for _, q := range p.Params {
		b.WriteString("P")
		field(q.Name)
		field(q.Type)
		field(q.Canonical)
	}
	for _, v := range p.EnvBound {
		b.WriteString("E")
		field(v.Name)
		flag(v.Value == nil)
		if v.Value != nil {
			field(*v.Value)
		}
	}
	for _, c := range p.CodeFile {
		b.WriteString("C")
		field(c.Path)
	}
	for _, o := range p.Outputs {
		b.WriteString("O")
		field(o.Name)
		field(o.Path)
		field(o.From)
		flag(o.Dir)
		for k, v := range o.Meta {
			field(k)
			field(v)
		}
	}
	for _, w := range p.Work {
		b.WriteString("W")
		field(w)
	}
	return b.String()
}
