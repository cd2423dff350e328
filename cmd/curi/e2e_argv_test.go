package main_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// printArgv writes its arguments as JSON to its first.
const printArgv = "import json, sys; json.dump(sys.argv[2:], open(sys.argv[1], 'w'))"

// Row 5: shell quoting, one argv item with two words in it.
func TestRow05ArgvStaysAList(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		words := []string{"two words", "$HOME", "`id`", "a;b", "*", `"'\`, "", "-x", "日本", "{braces}"}
		given := slices.Clone(words)
		given[len(given)-1] = "{{braces}"
		r := s.stage(slices.Concat([]string{"--name", "words", "--in", "dataset=digits", "--out", "argv=argv.json",
			"--param", "text:str=a b; rm -rf '$HOME'", "--",
			"python3", "-c", printArgv, "{out.argv}", "{param.text}", "--text={param.text}!", "{in.dataset}/numbers.txt"}, given)...)
		got := decode[[]string](s, s.read(r.Outputs["argv"].Path))
		want := append([]string{"a b; rm -rf '$HOME'", "--text=a b; rm -rf '$HOME'!"}, words...)
		if file := got[2]; !filepath.IsAbs(file) || filepath.Base(file) != "numbers.txt" {
			t.Errorf("an input inside an element became %q", file)
		}
		if got = slices.Delete(got, 2, 3); !slices.Equal(got, want) {
			t.Errorf("the command got\n%q, want\n%q", got, want)
		}

		// A shell only where one is asked for.
		r = s.stage("--name", "shell", "--out", "text=text", "--shell", "--", "echo one two | tr a-z A-Z > {out.text}")
		if text := s.read(r.Outputs["text"].Path); text != "ONE TWO\n" {
			t.Errorf("--shell wrote %q", text)
		}
		s.stageFails(120, "in.data", "--name", "typo", "--in", "dataset=digits", "--out", "text=text", "--", "cp", "{in.data}", "{out.text}")
	})
}

// Row 6: the wrong parameter set's dataset was handed over.
func TestRow06InputsBelongToTheirParameters(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		dataset := func(size string) result {
			return s.stage("--name", "dataset", "--out", "data=data.txt", "--param", "size="+size, "--",
				"sh", "-c", "seq {param.size} > {out.data}")
		}
		use := func(ref string) string {
			r := s.stage("--name", "use", "--in", "data="+ref, "--out", "copy=copy.txt", "--", "cp", "{in.data}", "{out.copy}")
			return strings.Join(strings.Fields(s.read(r.Outputs["copy"].Path)), " ")
		}
		dataset("2")
		dataset("3")
		if got := use("dataset[size=2].data"); got != "1 2" {
			t.Errorf("size=2 got the data %q", got)
		}
		if got := use("dataset[size=3].data"); got != "1 2 3" {
			t.Errorf("size=3 got the data %q", got)
		}
		// A later run of the other parameters changes nothing.
		if !dataset("2").Cached {
			t.Error("the same parameters ran again")
		}
		if got := use("dataset[size=3].data"); got != "1 2 3" {
			t.Errorf("size=3 got the data %q", got)
		}
		// Without parameters it is not clear which is meant: both are named.
		o := s.stageFails(120, "size=2", "--name", "use", "--in", "data=dataset.data", "--out", "copy=copy.txt", "--",
			"cp", "{in.data}", "{out.copy}")
		if !strings.Contains(o.stderr, "size=3") {
			t.Errorf("the error names one of two: %s", o)
		}
	})
}

// Row 17: relative paths broke when the command changed directory.
func TestRow17PathsAreAbsolute(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		s.write("sub/.keep", "")
		s.write("elsewhere.sh", `cd / && cat "$1/numbers.txt" > "$2" && echo "$@" > "$3/args" && env > "$3/env"`)
		r := s.stage("--name", "walk", "--in", "dataset=digits", "--out", "copy=deep/er/copy.txt", "--work", "notes", "--",
			"sh", "elsewhere.sh", "{in.dataset}", "{out.copy}", "{work.notes}", "{root}", "{logs}")
		if text := s.read(r.Outputs["copy"].Path); text != "1 2 3 4\n" {
			t.Errorf("the copy is %q", text)
		}
		for _, path := range strings.Fields(s.ok("curi", "cat", r.Run+".work/notes/args")) {
			if !filepath.IsAbs(path) {
				t.Errorf("a placeholder became %q", path)
			}
		}
		for _, line := range strings.Split(s.ok("curi", "cat", r.Run+".work/notes/env"), "\n") {
			name, value, _ := strings.Cut(line, "=")
			for _, prefix := range []string{"CURI_ROOT", "CURI_IN_", "CURI_OUT_", "CURI_WORK_", "TMPDIR"} {
				if strings.HasPrefix(name, prefix) && !filepath.IsAbs(value) {
					t.Errorf("%s is %q", name, value)
				}
			}
			if name == "TMPDIR" && len(value) > 60 {
				t.Errorf("TMPDIR has %d bytes: %s", len(value), value)
			}
		}
	})
}
