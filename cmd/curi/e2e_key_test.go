package main_test

import (
	"testing"
)

// Row 10: a changed upstream left training cached.
func TestRow10ChangedUpstreamIsAMiss(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		data := func(text string) result {
			return s.stage("--name", "data", "--out", "numbers=numbers.txt", "--param", "text="+text, "--op-param", "note=x", "--",
				"sh", "-c", "echo {param.text} | tr a-z A-Z > {out.numbers}")
		}
		train := func(ref string) result {
			return s.stage("--name", "train", "--in", "numbers="+ref, "--out", "model=model", "--",
				"cp", "{in.numbers}", "{out.model}")
		}
		data("one")
		if train("data[text=one].numbers").Cached {
			t.Fatal("the first run was a hit")
		}
		data("two")
		r := train("data[text=two].numbers")
		if r.Cached || s.read(r.Outputs["model"].Path) != "TWO\n" {
			t.Errorf("after a change upstream: %+v", r)
		}
		// An upstream that ran again and made the same bytes stops the ripple.
		if data("ONE").Cached {
			t.Error("another parameter, yet a hit")
		}
		if !train("data[text=ONE].numbers").Cached {
			t.Error("the same input, yet a miss")
		}
		// So does an artifact that is renamed; one that changed does not.
		s.write("digits/numbers.txt", "5 6\n")
		s.stage(recipe{}.argv()...)
		if s.ok("curi", "add", "./digits", "--name", "digits"); s.stage(recipe{}.argv()...).Cached {
			t.Error("a new version of the data set, yet a hit")
		}
		if !s.stage(recipe{}.argv()...).Cached {
			t.Error("nothing changed, yet a miss")
		}
	})
}

// Row 11: edits to the external script were not noticed.
func TestRow11EditedCodeIsAMiss(t *testing.T) {
	s := newSite(t, byCopy)
	s.write("job/main.py", "import sys\nfrom job.layers import NAME\nopen(sys.argv[1], 'w').write(NAME)\n")
	s.write("job/layers.py", "from . import depth\nNAME = f'net{depth.N}'\n")
	s.write("job/depth.py", "N = 1\n")
	s.write("job/unrelated.py", "N = 1\n")
	s.write("tool.sh", "echo script 1 > \"$1\"\n")
	byModule := []string{"--name", "module", "--out", "net=net.txt", "--", "python3", "-m", "job.main", "{out.net}"}
	byFile := []string{"--name", "file", "--out", "net=net.txt", "--", "sh", "tool.sh", "{out.net}"}
	both := func() (string, bool, string, bool) {
		a, b := s.stage(byModule...), s.stage(byFile...)
		return s.read(a.Outputs["net"].Path), a.Cached, s.read(b.Outputs["net"].Path), b.Cached
	}
	type row = struct {
		net      string
		netHit   bool
		tool     string
		toolHit  bool
		file, to string // the edit before
	}
	for _, want := range []row{
		{"net1", false, "script 1\n", false, "job/unrelated.py", "N = 2\n"},
		{"net1", true, "script 1\n", true, "job/unrelated.py", "N = 3\n"},
		{"net2", false, "script 1\n", true, "job/depth.py", "N = 2\n"}, // imported by what is imported
		{"net2", true, "script 2\n", false, "tool.sh", "echo script 2 > \"$1\"\n"},
		{"net2", false, "script 2\n", true, "job/main.py", "# a comment\nimport sys\nfrom job.layers import NAME\nopen(sys.argv[1], 'w').write(NAME)\n"},
	} {
		s.write(want.file, want.to)
		net, netHit, tool, toolHit := both()
		if got := (row{net, netHit, tool, toolHit, want.file, want.to}); got != want {
			t.Errorf("after an edit of %s:\ngot  %+v\nwant %+v", want.file, got, want)
		}
	}
	// A glob keys what no import names.
	globbed := append([]string{"--code", "job/**/*.py"}, byModule...)
	s.stage(globbed...)
	s.write("job/unrelated.py", "N = 4\n")
	if s.stage(globbed...).Cached {
		t.Error("a file that --code names was edited, yet a hit")
	}
	s.stageFails(120, "nothing/*.py", append([]string{"--code", "nothing/*.py"}, byModule...)...)
}

// Row 12: num_gpus changed the cache key.
func TestRow12OperationalParametersAreNotKeyed(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		ran := []string{"--ran", s.side + "/ran"}
		one := s.stage(recipe{gpus: "1", args: ran}.argv()...)
		two := s.stage(recipe{gpus: "2", args: ran}.argv()...)
		if !two.Cached || two.Key != one.Key || two.Outputs["model"].Digest != one.Outputs["model"].Digest {
			t.Errorf("with 2 GPUs: %+v, with one: %+v", two, one)
		}
		s.wantStarts(1)
		s.env = append(s.env, "RANK=0", "WORLD_SIZE=8", "MASTER_PORT=1234", "SLURM_PROCID=0")
		if !s.stage(recipe{args: ran}.argv()...).Cached {
			t.Error("what launchers of ranks set changed the key")
		}
		// The same value written otherwise is the same key.
		if !s.stage(recipe{lr: "5e-2", args: ran}.argv()...).Cached {
			t.Error("5e-2 is not 0.05")
		}
	})
}
