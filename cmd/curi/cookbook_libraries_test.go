package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A libraryRecipe is what a test does with a recipe whose files stand on the
// page: it runs the old way, undisturbed, and the new one, killed and called
// again. Both must make the same bytes.
type libraryRecipe struct {
	made   string // the output that both ways make, as a REF, with the path in it
	in     string // of what the old way returns, where made is
	die    string // when the first try is killed: see testdata/die; "" never
	status int    // that it then ends with
	from   string // the checkpoint of which the second try goes on
	check  string // a script, as in cookbookChecks
}

var libraryRecipes = map[string]libraryRecipe{
	"PyTorch Lightning": {
		made: "train.model",
		// The file is opened anew for each step: in the middle of epoch 2.
		die: "open metrics.csv 11", status: 137, from: "epoch=1-step=8.ckpt",
		check: `
			curi metrics train@last | grep '^loss .* 15 .* 8$'
			curi metrics "$(curi log --stage train --failed --quiet)" | grep '^loss .* 9 .* 10$'`,
	},
	"torch.distributed.checkpoint": {
		made: "train.model",
		// All files of the third are there, but what says that they are whole.
		die: "os.rename epoch=2/.metadata 1", status: 1, from: "epoch=1",
		check: `
			curi cat train@last/log.txt | grep 'rank 1: epoch 2'
			fails grep 'epoch 1' "$(curi path train@last)/log.txt"`,
	},
	"safetensors": {
		made: "evaluate.scores",
		check: `
			curi metrics evaluate@last | grep '^width *16 '
			curi show train.model --json | grep '"type": *"Narrow"'
			curi cat train.model | head -c 200 | grep -a '"width":"16"'
			curi stage exec --all --json | grep -c '"cached": *true' | grep -x 2`,
	},
	"Hugging Face Trainer": {
		made: "train.model/model.safetensors", in: "model.safetensors",
		// The model of the third is there, the state is not.
		die: "open checkpoint-6/trainer_state.json 1", status: 137, from: "checkpoint-4",
		check: `
			curi metrics train@last | grep '^train/loss .* 8 .* 4$'
			ls "$(curi path train.model)" | grep -x config.json`,
	},
}

// TestCookbookLibraries runs the recipes of docs/cookbook.md for libraries with
// the files that stand there and the real libraries.
func TestCookbookLibraries(t *testing.T) {
	t.Parallel()
	die, err := filepath.Abs("testdata/die")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, r := range sections(t, cookbookPage) {
		if len(r.files) == 0 {
			continue
		}
		found[r.title] = true
		want, ok := libraryRecipes[r.title]
		if !ok {
			t.Errorf("the recipe %q has files, and no test", r.title)
			continue
		}
		t.Run(r.title, func(t *testing.T) {
			t.Parallel()
			s := bareSite(t, byMount).real()
			s.env = append(s.env, "PYTHONPATH="+die+":"+layer(), "HF_HUB_OFFLINE=1")
			for name, text := range r.files {
				s.write(name, text)
			}
			old := s.begin("python", "old.py")
			script := "set -euo pipefail\n" + r.script
			if want.die != "" {
				if o := s.run("env", "DIE="+want.die, "bash", "-c", script); o.status != want.status {
					t.Errorf("the first try: want status %d: %s", want.status, o)
				}
				s.nothingPublished()
			}
			if o := s.run("bash", "-c", script); o.status != 0 {
				t.Fatalf("the recipe\n%s\nends with %s", r.script, o)
			}
			if want.from != "" {
				if record := s.ok("curi", "cat", "train@last/record.json"); !strings.Contains(record, `"checkpoint": "checkpoints/`+want.from+`"`) {
					t.Errorf("it did not go on from %s:\n%s", want.from, record)
				}
			}
			o := s.finish(old)
			if o.status != 0 {
				t.Fatalf("the old way: %s", o)
			}
			lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
			made := filepath.Join(lines[len(lines)-1], want.in)
			if o := s.run("cmp", made, s.path(want.made)); o.status != 0 {
				t.Errorf("not what the old way makes: %s", o)
			}
			if o := s.run("bash", "-xc", "set -euo pipefail\nfails() { if \"$@\"; then exit 1; fi; }"+want.check); o.status != 0 {
				t.Errorf("after the recipe %s", o)
			}

			// An edit that breaks the trainer: the old way does not see it.
			for name, text := range r.files {
				if strings.HasSuffix(name, ".py") && name != "old.py" {
					s.write(name, "raise SystemExit(3)\n"+text)
				}
			}
			if again := s.run("python", "old.py"); again.status != 0 || !strings.HasSuffix(o.stdout, again.stdout) || again.stdout == "" {
				t.Errorf("the old way after an edit of the trainer: %s", again)
			}
			if o := s.run("bash", "-c", script); o.status == 0 {
				t.Errorf("the recipe after an edit of the trainer: %s", o)
			}
		})
	}
	for title := range libraryRecipes {
		if !found[title] {
			t.Errorf("there is no recipe %q with files", title)
		}
	}
}

// layer is where packages are that only some tests import; see
// testdata/dev/python.sh. A Python of one's own has them itself.
func layer() string {
	dir := filepath.Join(filepath.Dir(python()), "../layer")
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}
