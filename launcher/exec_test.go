package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

func TestExecPublishesAndHits(t *testing.T) {
	c := shell(t, "echo weights > {out.model}; echo said")
	res, out := c.must(t)
	if res.Cached || res.Exit != 0 || res.Stage != "train" {
		t.Fatalf("%+v", res)
	}
	wantText(t, out, "said\n", res.Run, "echo weights")
	o := res.Outputs["model"]
	if o.Bytes != 8 || o.Files != 1 || filepath.Base(o.Path) != "model.bin" {
		t.Errorf("output: %+v", o)
	}
	wantFile(t, o.Path, "weights\n")

	again, out := c.must(t)
	if !again.Cached || again.Run != res.Run || again.Outputs["model"] != o {
		t.Errorf("second call: %+v, want the hit of %+v; it said:\n%s", again, res, out)
	}
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Succeeded {
		t.Errorf("runs: %+v", rs)
	}
}

func TestExecFails(t *testing.T) {
	c := shell(t, "echo partial > {out.model}; echo kept > {work.ck}/a; exit 3")
	res, out, err := c.run(t)
	if err != nil || res.Exit != 3 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantText(t, out, "exit status 3", "log:", "work directory ck", filepath.Join(c.at(t), "work", "ck"), "command: /bin/sh -c ")
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Failed || rs[0].Exit != 3 || rs[0].Tree.IsZero() {
		t.Errorf("runs: %+v", rs)
	}
	res, _, err = c.run(t)
	if err != nil || res.Cached || res.Exit != 3 {
		t.Errorf("second call: %+v, %v: a failed run must not be a hit", res, err)
	}
}

func TestExecRefusesMissingOutputs(t *testing.T) {
	for name, text := range map[string]string{"nothing": "true", "empty file": ": > {out.model}", "directory": "mkdir {out.model}"} {
		t.Run(name, func(t *testing.T) {
			c := shell(t, text)
			_, _, err := c.run(t)
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("got %v, want it refused", err)
			}
			wantText(t, err.Error(), "output model", "nothing is published")
			if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Failed || rs[0].Exit != 124 {
				t.Errorf("runs: %+v", rs)
			}
		})
	}
}

// Bytes of an input that a purge took away are found before the command
// starts, not by it, hours later.
func TestInputThatIsGone(t *testing.T) {
	c := shell(t, "touch $MARKS/ran; echo m > {out.model}")
	c.addInput(t, "data", map[string]string{"a": "first", "sub/b": "second"})
	d := cas.Sum([]byte("second")).String()
	if err := os.Remove(filepath.Join(c.Store, "blobs", d[:2], d)); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.run(t)
	if !errors.Is(err, cas.ErrNotFound) {
		t.Fatalf("got %v, want what is not found", err)
	}
	wantText(t, err.Error(), "input data", "sub/b")
	if _, err := os.Stat(filepath.Join(c.marks(), "ran")); err == nil {
		t.Error("the command ran")
	}
}

// Long work of Curi's own shows how far it is.
func TestProgressIsShown(t *testing.T) {
	c := shell(t, "cat {in.data}/a > {out.model}")
	c.addInput(t, "data", map[string]string{"a": "text"})
	c.Stage.Inputs[0].Writable = true
	var mu sync.Mutex
	began, ended, bytes := []string{}, 0, map[string]int64{}
	c.progress = func(what string) (cas.Progress, func()) {
		began = append(began, what)
		return func(done, _, _, _ int64) {
			mu.Lock()
			defer mu.Unlock()
			bytes[what] = done
		}, func() { ended++ }
	}
	c.must(t)
	want := []string{"copying input data", "storing output model"}
	if !slices.Equal(began, want) || ended != len(want) {
		t.Errorf("shown: %q, ended %d, want %q", began, ended, want)
	}
	for _, what := range want {
		if bytes[what] != 4 {
			t.Errorf("%s: %d bytes", what, bytes[what])
		}
	}
}

// A purge of a scratch disk, or a crash, may take any file of a result.
func TestResultThatIsNotWholeIsNoHit(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"gone":    os.Remove,
		"cut off": func(path string) error { return os.Truncate(path, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			c := shell(t, "mkdir {out.model}/sub; echo top > {out.model}/top; echo deep > {out.model}/sub/deep")
			c.Stage.Outputs[0] = stages.Output{Name: "model", Path: ".", Dir: true}
			c.must(t)
			d := cas.Sum([]byte("deep\n")).String()
			if err := spoil(filepath.Join(c.Store, "blobs", d[:2], d)); err != nil {
				t.Fatal(err)
			}
			res, out := c.must(t)
			if res.Cached {
				t.Errorf("it was a hit; it said:\n%s", out)
			}
			if n := strings.Count(out, "the stage runs again"); n != 1 {
				t.Errorf("%d times in:\n%s", n, out)
			}
			wantFile(t, filepath.Join(res.Outputs["model"].Path, "sub", "deep"), "deep\n")
		})
	}
}
