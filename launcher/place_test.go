package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// mark makes the file $MARKS/name.
func (c call) mark(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.marks(), name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

const trainer = `echo attempt=$CURI_ATTEMPT resume=$CURI_RESUME had=$(ls {work.ck} | tr '\n' ' ')
ls {out.model} 2> /dev/null && echo st""ale
touch {work.ck}/ck-$CURI_ATTEMPT; echo x >> {work.ck}/ck-$CURI_ATTEMPT
echo partial > {out.model}
[ -e $MARKS/good ]`

func TestWorkDirectoriesAreOfferedAgain(t *testing.T) {
	for _, mode := range []string{"no-mount", "mount"} {
		t.Run(mode, func(t *testing.T) {
			c := shell(t, trainer)
			if mode == "mount" {
				c = c.mounted(t)
			}
			_, out, _ := c.run(t)
			wantText(t, out, "attempt=1 resume= had=\n")
			_, out, _ = c.run(t)
			wantText(t, out, "attempt=2 resume=1 had=ck-1\n")
			if strings.Contains(out, "stale") {
				t.Error("the output of the failed run was offered as this one's")
			}
			fresh := c
			fresh.Fresh = true
			_, out, _ = fresh.run(t)
			wantText(t, out, "attempt=1 resume= had=\n")
			// What --fresh moved away is kept.
			kept, _ := filepath.Glob(filepath.Join(c.at(t), "old", "*", "work", "ck", "ck-2"))
			if len(kept) != 1 {
				t.Errorf("the work directory that --fresh moved away: %v", kept)
			}
			c.mark(t, "good")
			_, out = c.must(t)
			wantText(t, out, "attempt=2 resume=1 had=ck-1\n")
			wantFile(t, filepath.Join(c.at(t), "work", "ck", "ck-2"), "x\n")
		})
	}
}

func TestResumeRecord(t *testing.T) {
	c := shell(t, trainer)
	first, _, _ := c.run(t)
	c.mark(t, "good")
	second, _ := c.must(t)
	s := c.open(t)
	info, err := stages.FindRun(t.Context(), s, second.Run)
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(t.Context(), info.Tree)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(view, "record.json"))
	if err != nil {
		t.Fatal(err)
	}
	rec, err := stages.ParseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if rec.ResumedFrom == nil || rec.ResumedFrom.Run != first.Run || rec.ResumedFrom.Record.IsZero() {
		t.Errorf("resumed from %+v, want %s", rec.ResumedFrom, first.Run)
	}
	if rec.Attempt != 2 || rec.Status != stages.Succeeded || len(rec.Nodes) != 1 || rec.Nodes[0].Kernel == "" || rec.User == "" {
		t.Errorf("record: %+v", rec)
	}
}

func TestForceReplacesTheResult(t *testing.T) {
	c := shell(t, "date +%N > {out.model}")
	first, _ := c.must(t)
	c.Force = true
	second, _ := c.must(t)
	if second.Cached || second.Run == first.Run {
		t.Errorf("%+v after %+v", second, first)
	}
	c.Force = false
	third, _ := c.must(t)
	if !third.Cached || third.Run != second.Run {
		t.Errorf("%+v, want the hit of %s", third, second.Run)
	}
	if len(c.runs(t)) != 2 {
		t.Errorf("runs: %+v", c.runs(t))
	}
}

func TestDeepStoreHasAShortTMPDIR(t *testing.T) {
	for _, mode := range []string{"no-mount", "mount"} {
		t.Run(mode, func(t *testing.T) {
			c := shell(t, `echo "tmp=$TMPDIR"; [ -w "$TMPDIR" ] && cp {in.data}/a {out.model}`)
			c.Store = filepath.Join(filepath.Dir(c.Store), strings.Repeat("deep/", 20), "s")
			if mode == "mount" {
				c = c.mounted(t)
			} else {
				t.Cleanup(func() { c.awaitUnmounted(t) })
			}
			c.addInput(t, "data", map[string]string{"a": "text\n"})
			res, out := c.must(t)
			_, tmp, _ := strings.Cut(out, "tmp=/")
			tmp, _, _ = strings.Cut(tmp, "\n")
			if n := len("/" + tmp); n > 60 {
				t.Errorf("TMPDIR %q has %d bytes", tmp, n)
			}
			wantFile(t, res.Outputs["model"].Path, "text\n")
		})
	}
}

func TestNoMountInputsAreCopies(t *testing.T) {
	c := shell(t, `rm -f {in.data}/a; echo changed > {in.data}/a; cat {in.data}/a > {out.model}`)
	c.addInput(t, "data", map[string]string{"a": "first\n", "sub/b": "b\n"})
	c.Stage.Inputs[0].Writable = true
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "changed\n")
	s := c.open(t)
	v, err := s.Version(t.Context(), "data", "")
	if err != nil {
		t.Fatal(err)
	}
	view, err := s.View(t.Context(), v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(view, "a"), "first\n")
	if _, err := os.Stat(filepath.Join(c.at(t), "in")); err == nil {
		t.Error("the copies of the inputs are still there")
	}
}

func TestReferenceChangedDuringRun(t *testing.T) {
	for _, use := range []string{"input data", "standard input"} {
		t.Run(use, func(t *testing.T) {
			c := shell(t, `cat {in.data} > {out.model}; echo more >> "$MARKS/ref.txt"`)
			c.Stage.Inputs = []stages.Input{{Name: "data", Ref: "data"}}
			if use == "standard input" {
				c.Stage.Command[0] = `cat > {out.model}; echo more >> "$MARKS/ref.txt"`
				c.Stage.Inputs, c.Stage.Stdin = nil, "data"
			}
			ref := filepath.Join(c.marks(), "ref.txt")
			if err := os.WriteFile(ref, []byte("data\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := cas.Open(t.Context(), c.Store, cas.Options{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			added, err := s.AddPath(t.Context(), ref, cas.AddOptions{Reference: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Publish(t.Context(), "data", added.Tree, cas.PublishOptions{}); err != nil {
				t.Fatal(err)
			}
			res, _, err := c.run(t)
			if !errors.Is(err, cas.ErrChanged) {
				t.Fatalf("got %+v, %v, want the change to be seen", res, err)
			}
			wantText(t, err.Error(), use, "nothing is published")
			if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Failed {
				t.Errorf("runs: %+v", rs)
			}
		})
	}
}

// What the command reads stays while it runs, as its inputs do.
func TestStandardInputIsKept(t *testing.T) {
	c := shell(t, `: > "$MARKS/started"; until [ -e "$MARKS/go" ]; do sleep 0.05; done; cat > {out.model}`)
	s, err := cas.Open(t.Context(), c.Store, cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	added, err := s.AddReader(t.Context(), strings.NewReader("text\n"), "a", cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Publish(t.Context(), "data", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	added.Release()
	c.Stage.Stdin = "data"
	ch := c.start(t)
	waitFor(t, "the command", func() bool { _, err := os.Stat(filepath.Join(c.marks(), "started")); return err == nil })
	if err := s.RemoveVersions(t.Context(), "data", []int{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), cas.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	if !s.HasBlob(cas.Sum([]byte("text\n"))) {
		t.Error("the standard input was collected while the command ran")
	}
	if err := os.WriteFile(filepath.Join(c.marks(), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if code := ch.wait(t); code != 0 {
		t.Errorf("exit status %d:\n%s", code, ch.stderr.String())
	}
}
