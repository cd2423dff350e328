package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curi-store/curi/stages"
)

func TestExtrasBesideAFileOutput(t *testing.T) {
	c := shell(t, "mkdir -p {root}/out/model/extra; echo m > {out.model}; echo e > {root}/out/model/extra/f; echo g > {root}/out/model/g")
	c.Stage.Outputs[0].Path = "a/model.bin"
	res, out := c.must(t)
	if o := res.Outputs["model"]; o.Files != 1 || o.Bytes != 2 {
		t.Errorf("output: %+v", o)
	}
	wantText(t, out, "leftover", "model/extra", "model/g")
	wantFile(t, filepath.Join(c.at(t), "leftover", "model", "extra", "f"), "e\n")
	wantFile(t, filepath.Join(c.at(t), "leftover", "model", "g"), "g\n")
}

func TestOptionalAndDirectoryOutputs(t *testing.T) {
	c := shell(t, "echo m > {out.model}; mkdir {out.dir}/sub; echo s > {out.dir}/sub/f; ln -s f {out.dir}/sub/l")
	c.Stage.Outputs = append(c.Stage.Outputs, stages.Output{Name: "dir", Path: ".", Dir: true},
		stages.Output{Name: "maybe", Path: "m.txt", Optional: true})
	res, out := c.must(t)
	if _, ok := res.Outputs["maybe"]; ok || len(res.Outputs) != 2 {
		t.Errorf("outputs: %+v", res.Outputs)
	}
	wantText(t, out, "optional output maybe was not written")
	wantFile(t, filepath.Join(res.Outputs["dir"].Path, "sub", "l"), "s\n")
}

func TestEmptyDirectoryOutputIsMissing(t *testing.T) {
	c := shell(t, "mkdir -p {out.model}/a/b")
	c.Stage.Outputs[0] = stages.Output{Name: "model", Path: ".", Dir: true}
	if _, _, err := c.run(t); !errors.Is(err, ErrRefused) {
		t.Fatalf("got %v, want it refused", err)
	}
}

// What the store cannot take is refused like an output that is missing: it is
// no mistake of the command line.
func TestWhatCannotBeStoredIsRefused(t *testing.T) {
	for script, want := range map[string]string{
		"mkfifo {out.model}/f; echo g > {out.model}/g":            "FIFO",
		"ln -s /etc/passwd {out.model}/l; echo g > {out.model}/g": "leads out",
	} {
		c := shell(t, script)
		c.Stage.Outputs[0] = stages.Output{Name: "model", Path: ".", Dir: true}
		res, _, err := c.run(t)
		if !errors.Is(err, ErrRefused) || res.Exit != exitRefused || len(res.Outputs) > 0 {
			t.Fatalf("%s: %+v, %v, want it refused", script, res, err)
		}
		wantText(t, err.Error(), want, "nothing is published")
	}
}

func TestLinkAsOutput(t *testing.T) {
	for _, mode := range []string{"no-mount", "mount"} {
		t.Run(mode, func(t *testing.T) {
			c := shell(t, "echo best > {work.ck}/best; ln -s {work.ck}/best {out.model}")
			if mode == "mount" {
				c = c.mounted(t)
			}
			res, _ := c.must(t)
			wantFile(t, res.Outputs["model"].Path, "best\n")
			wantFile(t, filepath.Join(c.at(t), "work", "ck", "best"), "best\n")
		})
	}
}

func TestOutFrom(t *testing.T) {
	c := shell(t, "mkdir -p results; echo r > results/final.txt")
	c.Stage.Outputs[0].From = "results/final.txt"
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "r\n")
	path := filepath.Join(c.Stage.Dir, "results", "final.txt")
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is still where the program wrote it")
	}
	if err := os.WriteFile(path, []byte("mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Force = true
	_, _, err := c.run(t)
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("got %v, want it refused while the path is there", err)
	}
	wantText(t, err.Error(), path)
	wantFile(t, path, "mine\n")
}

func TestOutFromOfAFailedRun(t *testing.T) {
	c := shell(t, "echo r > final.txt; [ -e $MARKS/go ]")
	c.Stage.Outputs[0].From = "final.txt"
	if res, _, err := c.run(t); err != nil || res.Exit != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantFile(t, filepath.Join(c.at(t), "out", "model", "model.bin"), "r\n")
	c.mark(t, "go")
	c.must(t)
}

// best.ckpt → epoch-3.ckpt: the output is what the link leads to, which stays.
func TestOutFromThatIsALink(t *testing.T) {
	c := shell(t, "mkdir -p results/3; echo r > results/epoch-3.txt; echo d > results/3/f; ln -s epoch-3.txt results/best.txt; ln -s 3 results/last")
	c.Stage.Outputs[0].From = "results/best.txt"
	c.Stage.Outputs = append(c.Stage.Outputs, stages.Output{Name: "last", Path: "last", Dir: true, From: "results/last"})
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "r\n")
	wantFile(t, filepath.Join(res.Outputs["last"].Path, "f"), "d\n")
	wantFile(t, filepath.Join(c.Stage.Dir, "results", "epoch-3.txt"), "r\n")
	for _, link := range []string{"best.txt", "last"} {
		if _, err := os.Lstat(filepath.Join(c.Stage.Dir, "results", link)); err == nil {
			t.Errorf("the link %s is still there: the next run would be refused", link)
		}
	}
}

// What is wrong with an output is told by the path that the person gave.
func TestOutFromIsNamed(t *testing.T) {
	for script, want := range map[string]string{
		"true": "output model (results/best) was not written",
		"mkdir -p results/best; echo r > results/best/f": "--out-from model=results/best/",
		"mkdir -p results; : > results/best":             "output model (results/best) has zero bytes",
		"mkdir -p results; ln -s nowhere results/best":   "leads nowhere",
		"mkdir -p results; mkfifo results/best; true":    "output model (results/best) is no regular file",
	} {
		c := shell(t, script)
		c.Stage.Outputs[0].From = "results/best"
		_, _, err := c.run(t)
		if !errors.Is(err, ErrRefused) {
			t.Fatalf("%s: %v, want it refused", script, err)
		}
		wantText(t, err.Error(), want)
	}
}

func TestMetadata(t *testing.T) {
	c := shell(t, `echo m > {out.model}
echo model:classes=10 >> $CURI_META; echo model:type=Written >> $CURI_META; echo what >> $CURI_META; echo model:classes=11 >> $CURI_META`)
	c.Stage.Outputs[0].Meta = map[string]string{"type": "Declared", "lr": "0.1"}
	c.Stage.Outputs[0].Publish = []string{"digits"}
	_, out := c.must(t)
	wantText(t, out, `"what" is not OUT:KEY=VALUE`, "published model as digits@1")
	use := shell(t, "echo $CURI_META_m_type $CURI_META_m_classes $CURI_META_m_lr {meta.m.type} > {out.model}")
	use.Store = c.Store
	use.Stage.Inputs = []stages.Input{{Name: "m", Ref: "digits"}}
	res, _ := use.must(t)
	wantFile(t, res.Outputs["model"].Path, "Written 11 0.1 Written\n")
}

func TestPublishOnAHit(t *testing.T) {
	c := shell(t, "echo m > {out.model}")
	c.must(t)
	c.Stage.Outputs[0].Publish = []string{"named"}
	res, out := c.must(t)
	if !res.Cached {
		t.Errorf("%+v", res)
	}
	wantText(t, out, "published model as named@1")
	if _, out = c.must(t); len(c.runs(t)) != 1 {
		t.Errorf("runs: %+v; it said:\n%s", c.runs(t), out)
	}
	vs, err := c.open(t).Versions(t.Context(), "named")
	if err != nil || len(vs) != 1 {
		t.Errorf("versions: %v, %v", vs, err)
	}
}

// Programs link by absolute paths below {root}, and to their checkpoints.
func TestLinksInADirectoryOutput(t *testing.T) {
	const script = `echo 1 > {work.ck}/one; mkdir {work.ck}/d; echo 2 > {work.ck}/d/two; echo 3 > {out.model}/three
ln -s {out.model}/three {out.model}/own; ln -s {work.ck}/one {out.model}/best; ln -s ../../work/ck/d {out.model}/dir; exit $(cat $MARKS/status)`
	for _, mode := range []string{"no-mount", "mount", "accepted"} {
		t.Run(mode, func(t *testing.T) {
			c := shell(t, script)
			c.Stage.Outputs[0] = stages.Output{Name: "model", Path: ".", Dir: true}
			if mode == "mount" {
				c = c.mounted(t)
			}
			status := map[bool]string{false: "0", true: "1"}[mode == "accepted"]
			if err := os.WriteFile(filepath.Join(c.marks(), "status"), []byte(status), 0o644); err != nil {
				t.Fatal(err)
			}
			if mode == "accepted" {
				failed, _, err := c.run(t)
				if err != nil || failed.Exit != 1 {
					t.Fatalf("%+v, %v", failed, err)
				}
				c.Accept = failed.Run
			}
			res, _ := c.must(t)
			dir := res.Outputs["model"].Path
			for name, want := range map[string]string{"three": "3\n", "own": "3\n", "best": "1\n", "dir/two": "2\n"} {
				wantFile(t, filepath.Join(dir, name), want)
			}
			wantFile(t, filepath.Join(c.at(t), "work", "ck", "one"), "1\n")
		})
	}
}

// Metadata that cannot be kept costs itself, not the output.
func TestMetadataThatCannotBeKept(t *testing.T) {
	c := shell(t, `echo m > {out.model}
long=$(printf %0300d 0); echo model:$long=x >> $CURI_META
i=0; while [ $i -lt 300 ]; do echo model:k$i=v >> $CURI_META; i=$((i+1)); done; echo model:k0=last >> $CURI_META`)
	c.Stage.Outputs[0].Meta = map[string]string{"type": "Declared"}
	c.Stage.Outputs[0].Publish = []string{"digits"}
	_, out := c.must(t)
	wantText(t, out, "passed over in $CURI_META", "longer than 255 bytes", "at most 256 are kept", "lines more")
	use := shell(t, "echo {meta.m.type} {meta.m.k0} > {out.model}")
	use.Store = c.Store
	use.Stage.Inputs = []stages.Input{{Name: "m", Ref: "digits"}}
	res, _ := use.must(t)
	wantFile(t, res.Outputs["model"].Path, "Declared last\n")
}

// Whatever a command makes of its own TMPDIR, Curi neither waits for it nor
// writes where a link leads.
func TestLinksAndFIFOsInTheWay(t *testing.T) {
	for what, spoil := range map[string]string{
		"$CURI_META is a FIFO":      "rm $CURI_META; mkfifo $CURI_META",
		"$CURI_META is a link":      "ln -sf $MARKS/mine $CURI_META",
		"$CURI_META is a directory": "rm $CURI_META; mkdir $CURI_META",
		"$CURI_META is huge":        "truncate -s 2T $CURI_META",
		"the reserve is a link":     "ln -s $MARKS/mine $TMPDIR/curi-reserve",
		"a masked log is a link":    "echo secret-123 > {logs}/a; ln -s $MARKS/mine {logs}/a.masked",
	} {
		t.Run(what, func(t *testing.T) {
			c := shell(t, "echo m > {out.model}; : {secret.KEY}; "+spoil)
			c.Secrets = map[string]string{"KEY": "secret-123"}
			mine := filepath.Join(c.marks(), "mine")
			if err := os.WriteFile(mine, []byte("precious\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			ch := c.start(t)
			if got := ch.wait(t); got != 0 {
				t.Errorf("exit status %d:\n%s", got, ch.stderr.String())
			}
			wantFile(t, mine, "precious\n")
			if strings.Contains(what, "META") {
				wantText(t, ch.stderr.String(), "passed over $CURI_META")
			}
			if logs, err := os.ReadFile(filepath.Join(c.at(t), "logs", "a")); err == nil && string(logs) != "{secret.KEY}\n" {
				t.Errorf("the log of a rank holds %q", logs)
			}
		})
	}
}

// A link to where Curi itself copies what links lead to would be copied into
// itself without end.
func TestLinkToTMPDIRInAnOutput(t *testing.T) {
	c := shell(t, "echo g > {out.model}/g; echo t > $TMPDIR/t; ln -s $TMPDIR {out.model}/l")
	c.Stage.Outputs[0] = stages.Output{Name: "model", Path: ".", Dir: true}
	_, _, err := c.run(t)
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("got %v, want it refused", err)
	}
	wantText(t, err.Error(), "leads out")
}
