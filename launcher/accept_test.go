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

func TestAcceptAResult(t *testing.T) {
	c := shell(t, "echo m > {out.model} # one")
	c.Stage.Outputs[0].Meta = map[string]string{"type": "T"}
	first, _ := c.must(t)
	c.Stage.Command = []string{"echo m > {out.model} # another comment"}
	c.Stage.Outputs[0].Meta = map[string]string{"type": "T2"}
	c.Stage.Outputs[0].Publish = []string{"named"}
	c.Accept, c.Message = first.Run, "only a comment changed"
	res, out := c.must(t)
	wantText(t, out, "accepted the outputs of "+first.Run, "published model as named@1")
	wantFile(t, res.Outputs["model"].Path, "m\n")
	s := c.open(t)
	v, err := s.Version(t.Context(), "named", "")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.Tree(t.Context(), v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := tree.Attrs.Get(cas.MetaPrefix + "type"); got != "T2" {
		t.Errorf("type=%q, want what is declared now", got)
	}
	c.Accept = ""
	hit, _ := c.must(t)
	if !hit.Cached || hit.Run != res.Run {
		t.Errorf("%+v, want the accepted %+v", hit, res)
	}
	r, err := stages.FindRun(t.Context(), s, res.Run)
	if err != nil || r.Status != stages.Accepted {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAcceptAFailedRun(t *testing.T) {
	c := shell(t, "echo saved > {out.model}; exit 1")
	failed, _, err := c.run(t)
	if err != nil || failed.Exit != 1 {
		t.Fatalf("%+v, %v", failed, err)
	}
	c.Accept, c.Message = failed.Run, "it failed after saving"
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "saved\n")
	c.Accept = ""
	if hit, _ := c.must(t); !hit.Cached {
		t.Errorf("%+v", hit)
	}
}

func TestAcceptAnEarlierFailedRun(t *testing.T) {
	c := shell(t, "[ -e $MARKS/go ] || echo saved > {out.model}; exit 1")
	first, _, _ := c.run(t)
	c.mark(t, "go")
	c.run(t)
	c.Accept = first.Run
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "saved\n")
}

// What is accepted may be large, and take longer to seal than another host
// waits for a sign of life.
func TestAcceptShowsThatItLives(t *testing.T) {
	was := beatEvery
	beatEvery = 20 * time.Millisecond
	t.Cleanup(func() { beatEvery = was })
	c := shell(t, "echo saved > {out.model}; exit 1")
	failed, _, _ := c.run(t)
	oldKey := c.runs(t)[0].Key
	// The call waits as long as a collection sweeps.
	sweep, err := os.OpenFile(filepath.Join(c.Store, "locks", "collect"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sweep.Close()
	if err := syscall.Flock(int(sweep.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c.Stage.Params = []stages.Param{{Name: "lr", Type: "int", Raw: "1", Canonical: "1"}}
	c.Accept = failed.Run
	done := make(chan error)
	go func() { _, _, err := c.run(t); done <- err }()
	s := c.open(t)
	held := map[string]time.Time{}
	waitFor(t, "signs of life on both keys' locks", func() bool {
		names, _ := filepath.Glob(filepath.Join(s.Dir(), "locks", "key", "*"))
		beats := 0
		for _, name := range names {
			b, err := os.ReadFile(name)
			fi, serr := os.Stat(name)
			if err != nil || serr != nil || !strings.Contains(string(b), holderPrefix) {
				continue
			}
			if first, ok := held[name]; !ok {
				held[name] = fi.ModTime()
			} else if fi.ModTime().After(first) {
				beats++
			}
		}
		return beats == 2
	})
	if _, ok := held[filepath.Join(s.Dir(), "locks", "key", oldKey)]; !ok {
		t.Errorf("locked were %v", held)
	}
	sweep.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAcceptRefuses(t *testing.T) {
	c := shell(t, "exit 1")
	failed, _, _ := c.run(t)
	c.Accept = failed.Run
	if _, _, err := c.run(t); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want it refused: there is no output", err)
	}
	c.Accept = "train-000zzz"
	if _, _, err := c.run(t); !errors.Is(err, cas.ErrNotFound) {
		t.Errorf("got %v, want not found", err)
	}

	// Nothing is lost of a run that has one of two outputs.
	two := shell(t, "echo a > {out.model}; exit 1")
	two.Stage.Outputs = append(two.Stage.Outputs, stages.Output{Name: "z", Path: "z"})
	failed, _, _ = two.run(t)
	two.Accept = failed.Run
	if _, _, err := two.run(t); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want it refused", err)
	}
	wantFile(t, filepath.Join(two.at(t), "out", "model", "model.bin"), "a\n")

	running := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; exit 1")
	ch := running.start(t)
	ch.stdout.await(t, "started")
	running.Accept = running.runs(t)[0].ID
	if _, _, err := running.run(t); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want it refused: it runs", err)
	}
	running.mark(t, "go")
	ch.wait(t)
	if _, err := os.Stat(filepath.Join(running.Store, "at")); err != nil {
		t.Fatal(err)
	}
}
