package launcher

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// collect takes everything that nothing names.
func (c call) collect(t *testing.T) {
	t.Helper()
	if _, err := c.open(t).Collect(t.Context(), cas.CollectOptions{StagingAge: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
}

// What fails after the outputs were taken must not cost them.
func TestOutputsOutliveAFailureAfterSealing(t *testing.T) {
	for name, c := range map[string]struct{ spoil, mend string }{
		"no log to record":       {"rm {root}/log.txt", ""},
		"no ref of a result":     {"rm -rf {root}/../../refs/stage; echo > {root}/../../refs/stage", "refs/stage"},
		"no space for the names": {"mkdir {root}/tmp/curi-reserve", ""},
	} {
		t.Run(name, func(t *testing.T) {
			call := shell(t, "echo m > {out.model}; "+c.spoil)
			res, out, err := call.run(t)
			if err == nil || res.Exit == 0 {
				t.Fatalf("%+v, %v: want a failure", res, err)
			}
			wantText(t, out, "kept")
			if c.mend != "" {
				if err := os.Remove(filepath.Join(call.Store, c.mend)); err != nil {
					t.Fatal(err)
				}
			}
			call.collect(t)
			call.Accept = res.Run
			accepted, _ := call.must(t)
			wantFile(t, accepted.Outputs["model"].Path, "m\n")
			call.Accept = ""
			if hit, _ := call.must(t); !hit.Cached {
				t.Errorf("%+v, want a hit", hit)
			}
		})
	}
}

func TestAcceptKeepsOutputsWhenItFails(t *testing.T) {
	c := shell(t, "echo m > {out.model}; exit 1")
	failed, _, err := c.run(t)
	if err != nil {
		t.Fatal(err)
	}
	block := filepath.Join(c.Store, "refs", "stage")
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(block, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Accept = failed.Run
	if res, _, err := c.run(t); err == nil {
		t.Fatalf("accepted: %+v", res)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.runs(t) {
		if r.Status == stages.Accepted {
			if err := c.open(t).DeleteRef(t.Context(), "run/"+r.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.collect(t)
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "m\n")
}

// Of two outputs the first is in the store when curi is killed, while it waits
// for a writer of the second.
func TestKilledWhileSealing(t *testing.T) {
	c := shell(t, "echo a > {out.a}; echo b > {out.b}; touch $MARKS/written; until [ -e $MARKS/go ]; do sleep 0.05; done")
	c.Stage.Outputs = []stages.Output{{Name: "a", Path: "a"}, {Name: "b", Path: "b"}}
	ch := c.start(t)
	waitFor(t, "the outputs", func() bool {
		_, err := os.Stat(filepath.Join(c.marks(), "written"))
		return err == nil
	})
	w, err := os.OpenFile(filepath.Join(c.at(t), "out", "b", "b"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c.mark(t, "go")
	waitFor(t, "a name for the first output", func() bool {
		rs := c.runs(t)
		return len(rs) == 1 && !rs[0].Tree.IsZero()
	})
	if rs := c.runs(t); rs[0].Status != stages.Running {
		t.Fatalf("%+v: sealed before it was killed", rs[0])
	}
	if err := ch.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ch.wait(t)
	w.Close()
	c.collect(t)
	c.Accept = c.runs(t)[0].ID
	res, _ := c.must(t)
	for _, name := range []string{"a", "b"} {
		wantFile(t, res.Outputs[name].Path, name+"\n")
	}
	for _, r := range c.runs(t) {
		if r.ID == c.Accept && r.Status != stages.Lost {
			t.Errorf("the killed run is %s", r.Status)
		}
	}
}

// A result must be that of the code in its key: what is edited while a call
// waits for its turn is not run under the key of before.
func TestCodeThatChangesBeforeTheStart(t *testing.T) {
	c := shell(t, "[ -e $MARKS/go ] || { touch $MARKS/began; until [ -e $MARKS/go ]; do sleep 0.05; done; exit 1; }; cat code.txt > {out.model}")
	code := filepath.Join(c.Stage.Dir, "code.txt")
	if err := os.WriteFile(code, []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Stage.Code = []string{"code.txt"}
	first := c.start(t)
	waitFor(t, "the first call", func() bool {
		_, err := os.Stat(filepath.Join(c.marks(), "began"))
		return err == nil
	})
	second := c.start(t)
	second.stderr.await(t, "waiting for")
	if err := os.WriteFile(code, []byte("new\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The first dies without a trace, so that the second runs.
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.mark(t, "go")
	if got := second.wait(t); got != exitRefused {
		t.Errorf("exit status %d, want it refused; it said:\n%s", got, second.stderr.String())
	}
	wantText(t, second.stderr.String(), "code.txt changed")
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "new\n")
}

// Another host took the key over: what lies in the place may be its run's.
func TestLockTakenOverWhileItRan(t *testing.T) {
	c := shell(t, "echo m > {out.model}; rm {root}/../../locks/key/*")
	res, _, err := c.run(t)
	if !errors.Is(err, ErrRefused) {
		t.Fatalf("%+v, %v: want it refused", res, err)
	}
	wantText(t, err.Error(), "nothing is published", "taken over")
	wantFile(t, filepath.Join(c.at(t), "out", "model", "model.bin"), "m\n")
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Failed {
		t.Errorf("runs: %+v", rs)
	}
}

// What the command wrote may take longer to seal than the lock lasts on a file
// server that hangs. The places are another host's then.
func TestKeyIsLostWhileSealing(t *testing.T) {
	c := shell(t, "echo m > {out.model}; echo z > {out.z}; : > $MARKS/ready; until [ -e $MARKS/go ]; do sleep 0.05; done")
	c.Stage.Outputs = append(c.Stage.Outputs, stages.Output{Name: "z", Path: "z.bin"})
	done := make(chan error)
	go func() { _, _, err := c.run(t); done <- err }()
	waitFor(t, "the command", func() bool { _, err := os.Stat(filepath.Join(c.marks(), "ready")); return err == nil })
	sweep, err := os.OpenFile(filepath.Join(c.Store, "locks", "collect"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sweep.Close()
	if err := syscall.Flock(int(sweep.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c.mark(t, "go")
	waitFor(t, "the first output to wait for the collection", func() bool {
		found, _ := filepath.Glob(filepath.Join(c.Store, "staging", "add-*"))
		return len(found) > 0
	})
	// The other host takes the key over and begins its own run.
	lock := filepath.Join(c.Store, "locks", cas.KeyLock(c.runs(t)[0].Key))
	taken := filepath.Join(c.Store, "locks", "taken")
	if err := errors.Join(os.WriteFile(taken, nil, 0o644), os.Rename(taken, lock)); err != nil {
		t.Fatal(err)
	}
	c.rewrite(t, "out/z/z.bin", "half of theirs")
	c.rewrite(t, "tmp/theirs", "in use")
	theirs := `{"key":"` + c.runs(t)[0].Key + `","run":"train-000abc","attempt":1,"active":true,"inputs":{},"result":""}` + "\n"
	c.rewrite(t, "state.json", theirs)
	sweep.Close()
	if err := <-done; !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "taken over") {
		t.Errorf("the run ended with %v", err)
	}
	for name, want := range map[string]string{"out/z/z.bin": "half of theirs", "tmp/theirs": "in use", "state.json": theirs} {
		wantFile(t, filepath.Join(c.at(t), name), want)
	}
	rs := c.runs(t)
	if len(rs) != 1 || rs[0].Status != stages.Failed {
		t.Errorf("runs: %+v", rs)
	}
	if _, err := c.open(t).Ref(t.Context(), "stage/"+rs[0].Key); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("a result was published: %v", err)
	}
	// What was sealed before is not lost.
	c.collect(t)
	if !c.open(t).HasBlob(cas.Sum([]byte("m\n"))) {
		t.Error("the output that was sealed is gone")
	}
}

// rewrite replaces a file in the place of the only run.
func (c call) rewrite(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(c.at(t), name)
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}
