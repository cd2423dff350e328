package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Row 13: reproducing an old run retrained and wrote into the archive.
func TestRow13PublishedIsReadOnly(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		r := s.stage(recipe{}.argv()...)
		path := r.Outputs["model"].Path
		before := s.read(path)
		paths := []string{path, s.path("model")}
		switch {
		case w == byMount:
			paths = append(paths, s.path(r.Outputs["model"].Digest))
		case w == byCopy && os.Getuid() == 0:
			paths = nil // only permissions protect plain files, and they do not hold root back
		}
		for _, p := range paths {
			for _, attempt := range []string{
				`echo x >> "$1"`, `: > "$1"`, `truncate -s 1 "$1"`, `dd if=/dev/zero of="$1" conv=notrunc count=1`,
				`python3 -c 'import mmap, sys; f = open(sys.argv[1], "r+b"); mmap.mmap(f.fileno(), 0)[0] = 0' "$1"`,
				`rm -f "$1"`, `mv "$1" "$1.old"`, `setfattr -n user.curi.type -v Other "$1"`,
			} {
				if o := s.run("sh", "-c", attempt, "sh", p); o.status == 0 {
					t.Errorf("%s succeeded on %s", attempt, p)
				}
			}
			if got := s.read(p); got != before {
				t.Errorf("%s changed to %q", p, got)
			}
		}

		// Running it again makes something new beside it.
		s.ok("curi", "tag", "model", "first")
		s.stage(recipe{options: []string{"--force", "--fresh"}, args: []string{"--epochs", "4"}}.argv()...)
		if got := s.ok("curi", "cat", "model@first"); got != before {
			t.Errorf("the old model became %q", got)
		}
		if got := s.ok("curi", "cat", "model@2"); !strings.Contains(got, "after 4 epochs") {
			t.Errorf("the new model is %q", got)
		}
		s.ok("curi", "fsck")
	})
}

// Row 13: a stage that writes into its input is told so, and how to get a copy.
func TestRow13InputsAreReadOnly(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		scribble := "echo 5 >> {in.dataset}/numbers.txt && cat {in.dataset}/numbers.txt > {out.copy}"
		if w != byCopy || os.Getuid() != 0 {
			o := s.run(s.execArgv("--name", "scribble", "--in", "dataset=digits", "--out", "copy=copy.txt", "--", "sh", "-c", scribble)...)
			if o.status == 0 || !strings.Contains(o.stderr, "--in-rw") {
				t.Errorf("a write on an input: %s", o)
			}
		}
		r := s.stage("--name", "scribble-rw", "--in-rw", "dataset=digits", "--out", "copy=copy.txt", "--", "sh", "-c", scribble)
		if text := s.read(r.Outputs["copy"].Path); text != "1 2 3 4\n5\n" {
			t.Errorf("the copy is %q", text)
		}
		if text := s.ok("curi", "cat", "digits/numbers.txt"); text != "1 2 3 4\n" {
			t.Errorf("the input became %q", text)
		}
		s.ok("curi", "fsck")
	})
}

// Row 18: loading a model needed the class name, kept by hand.
func TestRow18MetadataTravels(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		s.stage("--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt", "--out", "report=report/", "--publish", "model=model",
			"--meta", "model:type=DigitsNet", "--meta", "report:kind=html", "--",
			"sh", "-c", `cat {in.dataset}/numbers.txt > {out.model}; cp {in.dataset}/numbers.txt {out.report}
				echo model:loss=0.25 >> "$CURI_META"
				if [ "$WAY" != no-mount ]; then setfattr -n user.curi.layers -v 2 {out.model}; fi`)
		shown := decode[struct {
			Meta   map[string]string
			MadeBy string `json:"made_by"`
		}](s, s.ok("curi", "show", "--json", "model"))
		said := map[string]string{"type": "DigitsNet", "loss": "0.25"}
		if w != byCopy {
			said["layers"] = "2" // by the program itself, on the file
		}
		for key, want := range said {
			if got := shown.Meta[key] + shown.Meta["user.curi."+key]; got != want {
				t.Errorf("curi show: %s is %q, want %q: %v", key, got, want, shown.Meta)
			}
		}
		if !strings.HasSuffix(shown.MadeBy, ".model") {
			t.Errorf("made by %q", shown.MadeBy)
		}
		// Downstream it is a placeholder, a variable and an attribute of the file.
		r := s.stage("--name", "evaluate", "--in", "model=train.model", "--out", "seen=seen.txt", "--",
			"sh", "-c", `echo {meta.model.type} "$CURI_META_model_type$CURI_META_MODEL_TYPE" > {out.seen}
				getfattr --only-values -n user.curi.type {in.model} >> {out.seen}`)
		if got := strings.Fields(s.read(r.Outputs["seen"].Path)); len(got) != 3 || got[0] != "DigitsNet" || got[1] != "DigitsNet" || got[2] != "DigitsNet" {
			t.Errorf("downstream saw %q", got)
		}
		path := s.path("model")
		if s.mount != "" {
			if got := s.ok("getfattr", "--only-values", "-n", "user.curi.type", path); got != "DigitsNet" {
				t.Errorf("the attribute of %s is %q", path, got)
			}
		}
		if filepath.Base(path) != "model.ckpt" {
			t.Errorf("curi path model: %s", path)
		}
		// Metadata is part of what a thing is: with another, training's results differ.
		text := s.ok("curi", "lineage", "evaluate.seen")
		for _, want := range []string{"evaluate", "train", "digits"} {
			if !strings.Contains(text, want) {
				t.Errorf("the lineage lacks %s:\n%s", want, text)
			}
		}
	})
}
