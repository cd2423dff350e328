package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// cookbookChecks are what a reader of a recipe would find after it, as
// scripts that must end with status 0. Recipes without one only must succeed.
//
// That the promises hold with real failures, signals and libraries is tested
// elsewhere: rows of the old recipe in e2e_*_test.go, Lightning and
// checkpoint libraries in e2e_library_test.go.
var cookbookChecks = map[string]string{
	"Run a trainer and cache what it wrote": `
		grep -q 'lr=0.05' "$(curi path model)"
		curi stage exec --json --name train --in dataset=digits --out model=model.ckpt --publish model=model --param lr=0.05 \
		    -- torchrun --standalone --nproc_per_node 2 train.py \
		       --dataset_path '{in.dataset}' --model_path '{out.model}' --lr '{param.lr}' | grep '"cached": *true'
		[ "$(curi ls model --json | grep -c '"version"')" = 1 ]`,
	"Arguments with spaces, braces and quotes": `
		[ "$(curi cat report.text)" = 'Two words 1' ]
		case $(curi path report.text) in */'final report.txt') ;; *) exit 1 ;; esac
		[ "$(curi cat count.n)" = 1 ]
		[ "$(curi cat sizes.o)" = '[64,32]' ]
		[ "$(curi cat list@last/log.txt)" = '--sizes 64 32' ]`,
	"Chain stages": `
		for name in evaluate fit dataset; do curi lineage evaluate.accuracy | grep "$name"; done
		grep 7 "$(curi path 'dataset[seed=7].data')/numbers.txt"
		fails curi path dataset.data 2>differ
		grep 'seed=8' differ`,
	"Know when to run again": `
		curi stage explain --name train --in dataset=digits --out model=model.ckpt --param lr=0.1 \
		    -- torchrun --standalone --nproc_per_node 2 train.py \
		       --dataset_path '{in.dataset}' --model_path '{out.model}' --lr '{param.lr}' | tail -n 2 >shown
		printf -- '- param "lr" float "0.05"\n+ param "lr" float "0.1"\n' | diff - shown
		curi cat keyed@last/record.json | grep '"external/my_model_trainer.py"'`,
	"Many settings, and many calls at once": `
		[ "$(curi log --stage sweep --quiet | wc -l)" = 7 ]
		grep -q 'lr=0.01 ' best/model.ckpt
		for lr in 0.5 0.4 0.3 0.2; do curi cat "sweep[lr=$lr].model" | grep "lr=$lr "; done`,
	"The stages of a project in a file": `
		curi stage status --json | grep -c '"status": "cached"' | grep -x 10
		curi cat compare@last/log.txt | grep '"set": "sweep/lr=0.03,seed=2"'
		curi cat compare.table | grep 'lr=0.001'
		curi lineage compare.table | grep 'models = learn-'
		head -c 5 stages.svg | grep '<svg '
		git ls-files --others | grep -x curi.yaml
		rm curi.yaml stages.svg`,
	"Slurm": `
		grep -q 'model of 1 2 3 4' "$(curi path far.model)"
		curi log far@last | grep '^job'
		curi stage exec --json --name night --in dataset=digits --out model=model.ckpt \
		    -- python train.py --dataset_path '{in.dataset}' --model_path '{out.model}' | grep '"cached": *true'`,
	"Several nodes": `
		[ "$(ls "$(curi path wide.model)" | tr '\n' ' ')" = 'part-0.ckpt part-1.ckpt ' ]`,
	"Secrets": `
		[ "$(curi cat fetch@last/log.txt)" = 'asking with the token {secret.API_TOKEN}' ]
		fails grep -r s3cr3t-t0ken "$CURI_STORE"
		API_TOKEN=other curi stage exec --json --name fetch --out data=data.json \
		    -- python fetch.py --token '{secret.API_TOKEN}' --out '{out.data}' | grep '"cached": *true'`,
	"Checkpoints and resuming": `
		curi cat spot@last/log.txt | grep 'goes on from .*/a.safetensors'
		[ "$(find "$CURI_STORE/refs/work" -type f | wc -l)" = 0 ]
		curi cat resumed@last/log.txt | grep 'resumes from epoch=2.ckpt'
		curi cat resumed@last/record.json | grep '"checkpoint": "checkpoints/epoch=2.ckpt"'
		ls "$(curi path resumed@last.work/checkpoints)" | grep 'epoch=4.ckpt'`,
	"Logs of every rank": `
		curi mount "$HOME/logs"
		logs=$(echo "$HOME"/logs/runs/train-*/logs/*/attempt_0)
		grep 'rank 1 of 2' $logs/1/stdout.log || failed=1
		curi umount "$HOME/logs"
		[ -z "${failed:-}" ]`,
	"Metrics": `
		curi show "$(curi log --stage measured --sort val.loss --quiet | head -n 1)" | grep 'lr=0.1'
		curi metrics measured@last | grep '^val.loss *0.025 *3 *0.025 *0.1 *4$'`,
	"Notebooks": `
		curi cat report.report | grep 'the sum is 10'
		curi cat report@last/record.json | tr -d ' \n' | grep '"path":"digits_sum.py"'
		curi stage exec --json --force --name report --in data=digits --out report=report.ipynb \
		    -- jupyter nbconvert --to notebook --execute report.ipynb --output '{out.report}' --ExecutePreprocessor.record_timing=False >again
		grep -q "$(curi show report.report --json | sed -n 's/.*"digest": *"\([0-9a-f]*\)".*/\1/p')" again`,
	"Load a model without knowing its class": `
		curi cat evaluate-typed.accuracy | grep '"DigitsNet"'
		curi show typed-model --json | grep '"owner": *"ana"'
		curi show typed-model --json | grep '"version": *2'`,
	"A program that insists on its own paths": `
		[ "$(curi cat legacy.table)" = a,b ]
		[ ! -e results/table.csv ]`,
	"A program that writes into its input": `
		[ "$(curi cat in-place.n)" = 5 ]
		[ "$(curi cat digits/numbers.txt)" = '1 2 3 4' ]
		fails curi stage exec --name refused --in data=digits --out n=n.txt --shell \
		    -- 'echo 5 >> {in.data}/numbers.txt && wc -w < {in.data}/numbers.txt > {out.n}' 2>said
		grep -- '--in-rw data=digits' said`,
	"Take a result over without running": `
		curi log --stage train | grep accepted
		curi cat train@last/record.json | grep 'only a comment changed'`,
	"Reproduce an old run": `
		[ "$(curi cat again)" = "$(curi cat model)" ]`,
	"Containers, CI and machines without FUSE": `
		grep -q 'model of 1 2 3 4' "$(curi path plain.model)"`,
	"Large data that must stay where it is": `
		[ ! -e "$CURI_STORE/blobs/$(b3sum --no-names imagenet/n01440764.txt | cut -c 1-2)/$(b3sum --no-names imagenet/n01440764.txt)" ]
		echo changed > imagenet/n01440764.txt
		fails curi cat imagenet/n01440764.txt`,
	"Share a store with a group": `
		curi store init "$SIDE/shared" --group "$(id -gn)"
		[ "$(stat -c %a "$SIDE/shared/refs")" = 2770 ]`,
	"A mount at login, at boot, or while you look": `
		curi mount "$HOME/curi" --foreground & server=$!
		until [ -d "$HOME/curi/artifacts" ]; do kill -0 $server; sleep 0.05; done
		curi umount "$HOME/curi"
		wait $server
		ln -s "$(command -v curifs)" "$SIDE/mount.curi"
		"$SIDE/mount.curi" "$CURI_STORE" "$HOME/curi" -o rw,allow_other
		ls "$HOME/curi/artifacts/digits"
		curi umount "$HOME/curi"`,
	"See and free space": `
		mkdir -p .curi
		sed -n '/^keep: 60d$/,/^min_free/p' "$COOKBOOK" > .curi/config.yaml
		[ "$(curi config keep_work --json | grep -c '"7d"')" = 1 ]
		curi gc
		rm -r .curi`,
	"Move a store": `
		export CURI_STORE=$SIDE/before
		curi add ./digits --name digits
		curi stage exec --name count --in d=digits --out n=count.txt --shell -- 'ls {in.d} | wc -l > {out.n}'
		for ((i = 0; i < 600; i++)); do curi status --json | tr -d ' \n' | grep '"mounts":\[\]' && break; sleep 0.1; done
		mv "$SIDE/before" "$SIDE/after"
		export CURI_STORE=$SIDE/after
		curi fsck --sample 5%
		[ "$(curi cat count.n)" = 1 ]
		curi stage exec --json --name count --in d=digits --out n=count.txt --shell -- 'ls {in.d} | wc -l > {out.n}' | grep '"cached": *true'`,
	"Share artifacts between machines": `
		[ "$(curi show team/digits --json | grep -c '"version": *1,')" = 1 ]
		export CURI_STORE=$SIDE/other
		curi remote add team "file://$HOME/shared"
		curi pull
		[ "$(curi cat team/digits/numbers.txt)" = '1 2 3 4' ]
		curi add ./digits --name digits
		curi stage exec --json --name lines --in d=digits --out n=n.txt --shell -- 'cat {in.d}/* | wc -l > {out.n}' | grep '"cached": *true'`,
	// Of README.md.
	"A single command": `
		again() {
		    curi stage exec --dry-run --json --name train \
		        --in dataset=digits --out model=model.ckpt --meta model:type=DigitsNet --publish model=model \
		        --work checkpoints --param lr=$1 --param epochs=3 --op-param num_gpus=$2 --code 'external/**/*.py' \
		        -- torchrun --standalone --nproc_per_node '{param.num_gpus}' --module external.my_model_trainer \
		           --dataset_path '{in.dataset}' --model_path '{out.model}' --checkpoint_dir '{work.checkpoints}' \
		           --lr '{param.lr}' --epochs '{param.epochs}' --num_gpus '{param.num_gpus}'
		}
		again 0.05 2 | grep '"cached": *true'
		again 0.05 8 | grep '"cached": *true'
		again 0.06 2 | grep '"cached": *false'
		echo '# another line' >> external/my_model_trainer.py
		again 0.05 2 | grep '"cached": *false'`,
}

const cookbookPage = "../../docs/cookbook.md"

// TestCookbook runs every recipe of docs/cookbook.md and the commands of
// README.md as they stand there, one after the other in one project. A recipe
// that cannot run here has a comment that says why: <!-- not run: … -->.
// Torchrun is the fake one, and so are the trainers. Recipes that bring files
// along run in [TestCookbookLibraries] and [TestExample].
func TestCookbook(t *testing.T) {
	s := bareSite(t, byMount).withSlurm()
	if err := os.CopyFS(s.dir, os.DirFS("testdata/cookbook")); err != nil {
		t.Fatal(err)
	}
	trainer, err := os.ReadFile("../../testdata/trainers/plain_trainer.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"train.py", "external/my_model_trainer.py", "external/lightning_trainer.py"} {
		s.write(name, string(trainer))
	}
	abs, err := filepath.Abs(cookbookPage)
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "COOKBOOK="+abs)

	found := map[string]bool{}
	for _, r := range append(sections(t, cookbookPage), sections(t, "../../README.md")...) {
		found[r.title] = true
		if len(r.files) > 0 || r.script == "" && cookbookChecks[r.title] == "" {
			continue
		}
		t.Run(r.title, func(t *testing.T) {
			in := *s
			in.t = t
			script := "set -euo pipefail\n" + r.script
			if o := in.run("bash", "-c", script); o.status != 0 {
				t.Fatalf("the recipe\n%s\nends with %s", r.script, o)
			}
			if check := cookbookChecks[r.title]; check != "" {
				if o := in.run("bash", "-xc", "set -euo pipefail\nfails() { if \"$@\"; then exit 1; fi; }"+check); o.status != 0 {
					t.Errorf("after the recipe %s", o)
				}
			}
		})
	}
	for title := range cookbookChecks {
		if !found[title] {
			t.Errorf("there is no recipe %q", title)
		}
	}
}

// A section of a page with all its commands: a recipe.
type section struct {
	title, script string
	files         map[string]string // that it shows whole, by name
}

var (
	fence    = regexp.MustCompile("^```(\\w*)$")
	notRun   = regexp.MustCompile(`^<!-- not run: \S.* -->$`)
	fileName = regexp.MustCompile(`^<!-- file: (\S+) -->$`)
)

// sections reads the sections of a page that have shell commands, or files.
func sections(t *testing.T, page string) []section {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var list []section
	title, before, kind, inside, skip := "", "", "", false, false
	script, file := "", ""
	var files map[string]string
	flush := func() {
		if title != "" {
			list = append(list, section{title, script, files})
		}
		script, files = "", map[string]string{}
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && !inside:
			inside, kind, skip, file = true, m[1], notRun.MatchString(before), ""
			if m := fileName.FindStringSubmatch(before); m != nil {
				file = m[1]
			}
		case m != nil:
			inside = false
		case inside && file != "":
			files[file] += line + "\n"
		case inside && kind == "sh" && !skip:
			if strings.Contains(line, "…") {
				t.Errorf("%s, %s: a command with an ellipsis cannot be run: %s", page, title, line)
			}
			script += line + "\n"
		case !inside && strings.HasPrefix(line, "## "):
			flush()
			title = strings.TrimPrefix(line, "## ")
		}
		before = line
	}
	flush()
	return list
}
