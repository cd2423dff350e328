package launcher

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/stages"
)

// trainsOnce fails after its first checkpoint, with a hard link and a link to
// it, and ends well in the next try.
const trainsOnce = `echo "attempt $CURI_ATTEMPT resume ${CURI_RESUME:-0} from [{resume}]"
if [ -e {work.ck}/w.npz ]; then cat {work.ck}/w.npz > {out.model}; exit; fi
echo weights > {work.ck}/w.npz
touch -d '2020-01-02 03:04:05.5 UTC' {work.ck}/w.npz
ln {work.ck}/w.npz {work.ck}/hard.npz
ln -s w.npz {work.ck}/last.npz
exit `

func resumable(t *testing.T, exit string) call {
	t.Helper()
	c := shell(t, trainsOnce+exit)
	c.Stage.Resume = &stages.ResumeRule{Work: "ck", Glob: "w.npz"}
	return c
}

// recordOf reads what a run left as its record.
func (c call) recordOf(t *testing.T, r stages.Run) stages.Record {
	t.Helper()
	s := c.open(t)
	e, err := s.Lookup(t.Context(), r.Tree, "record.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.OpenBlob(t.Context(), e.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var rec stages.Record
	if err := json.NewDecoder(b).Decode(&rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestResumeFromAnotherKey(t *testing.T) {
	c := resumable(t, "3")
	if res, out, err := c.run(t); err != nil || res.Exit != 3 {
		t.Fatalf("exec: %v, %+v\n%s", err, res, out)
	}
	source := c.at(t)
	old := c.runs(t)[0]

	// Another key begins empty, and says what could be done.
	c.Stage.Params = []stages.Param{{Name: "epochs", Type: "integer", Raw: "2", Canonical: "2"}}
	empty := c
	empty.Stage.Command = []string{trainsOnce + "4"}
	_, out, _ := empty.run(t)
	wantText(t, out, "attempt 1 resume 0 from []", "--resume-from "+old.ID+" begins with a copy")

	c.Stage.ResumeFrom = "train-nothere"
	if _, _, err := c.run(t); err == nil || !strings.Contains(err.Error(), "train-nothere") {
		t.Errorf("a run that is not there: %v", err)
	}
	c.Stage.ResumeFrom = old.ID
	res, out := c.must(t)
	wantText(t, out, "with a copy of the work directories of "+old.ID, "attempt 1 resume 1 from [", "/work/ck/w.npz]")
	run := c.runs(t)[0]
	rec := c.recordOf(t, run)
	if run.ID != res.Run || !slices.Contains(rec.Preimage.Lines(), `resume-from "`+old.ID+`"`) {
		t.Errorf("the preimage of %s:\n%s", run.ID, rec.Preimage)
	}
	if from := rec.ResumedFrom; from == nil || from.Run != old.ID || from.Record.IsZero() || from.Checkpoint != "ck/w.npz" {
		t.Errorf("the record says that it went on from %+v", from)
	}

	// The copy is one: as it was, and apart.
	dir := filepath.Join(c.open(t).Place(run.Key).Dir(), "work", "ck")
	want := time.Date(2020, 1, 2, 3, 4, 5, 5e8, time.UTC)
	fi, err := os.Stat(filepath.Join(dir, "w.npz"))
	if err != nil || !fi.ModTime().Equal(want) {
		t.Errorf("the copy is of %v (%v), want %v", fi.ModTime(), err, want)
	}
	hard, _ := os.Stat(filepath.Join(dir, "hard.npz"))
	from, _ := os.Stat(filepath.Join(source, "work", "ck", "w.npz"))
	if !os.SameFile(fi, hard) || os.SameFile(fi, from) {
		t.Error("hard links among the copies are not kept, or lead to what was copied")
	}
	if to, _ := os.Readlink(filepath.Join(dir, "last.npz")); to != "w.npz" {
		t.Errorf("the link leads to %q", to)
	}
	// The same again is a hit.
	if again, _ := c.must(t); !again.Cached {
		t.Error("the same call ran again")
	}
}

// What was cut off while it was copied is not taken for what a run left.
func TestCopyOfWorkThatWasCutOff(t *testing.T) {
	c := resumable(t, "3")
	if res, out, err := c.run(t); err != nil || res.Exit != 3 {
		t.Fatalf("exec: %v, %+v\n%s", err, res, out)
	}
	old := c.runs(t)[0]
	c.Stage.Params = []stages.Param{{Name: "epochs", Type: "integer", Raw: "2", Canonical: "2"}}
	c.Stage.ResumeFrom = old.ID
	st := c.open(t)
	c.Stage.Environ = c.Environ
	p, err := stages.Bind(t.Context(), st, stages.Project{Name: "proj", Dir: c.Stage.Dir}, c.Stage)
	if err != nil {
		t.Fatal(err)
	}
	// As a call leaves it that is killed in between.
	place := st.Place(p.Key.String()).Dir()
	if err := os.MkdirAll(filepath.Join(place, copiedWork, "ck"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(place, copiedWork, "ck", "half.npz"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, out := c.must(t)
	wantText(t, out, "attempt 1 resume 1 from [")
	for _, half := range []string{"work/ck/half.npz", copiedWork} {
		if _, err := os.Lstat(filepath.Join(place, half)); err == nil {
			t.Errorf("%s is still there", half)
		}
	}
	wantFile(t, filepath.Join(place, "work", "ck", "w.npz"), "weights\n")
}

func TestRetries(t *testing.T) {
	was := retryPause
	retryPause = time.Millisecond
	t.Cleanup(func() { retryPause = was })
	tries := func(c call) (list []string) {
		rs := c.runs(t)
		slices.Reverse(rs)
		for _, r := range rs {
			list = append(list, string(r.Status))
		}
		return list
	}
	for _, x := range []struct {
		name, text string
		exit       int
		want       []string
	}{
		{"a failure that passes", trainsOnce + "3", 0, []string{"failed", "succeeded"}},
		{"one that does not", "exit 3", 3, []string{"failed", "failed"}},
		{"a usage error", "exit 2", 2, []string{"failed"}},
		{"a command that is not there", "exit 127", 127, []string{"failed"}},
		{"killed", "kill -9 $$", 137, []string{"failed", "failed"}},
	} {
		c := shell(t, x.text)
		c.Stage.Resume = &stages.ResumeRule{Work: "ck", Glob: "w.npz"}
		c.Retries, c.Fresh = 1, true
		res, out, err := c.run(t)
		if err != nil || res.Exit != x.exit {
			t.Errorf("%s: %v, %+v; it said:\n%s", x.name, err, res, out)
			continue
		}
		if got := tries(c); !slices.Equal(got, x.want) {
			t.Errorf("%s: the runs %v, want %v", x.name, got, x.want)
		}
		if x.exit == 0 {
			wantText(t, out, "attempt 1 resume 0", "attempt 2 resume 1 from [", "retry 1 of 1")
		}
	}
}

// A Ctrl-C ends all tries: the one that runs, and the wait for the next.
func TestNoRetryAfterInterrupt(t *testing.T) {
	c := shell(t, "echo started; exec sleep 600")
	c.Retries = 3
	ch := c.start(t)
	ch.stdout.await(t, "started")
	ch.signal(t, syscall.SIGINT)
	if got := ch.wait(t); got != 130 || len(c.runs(t)) != 1 {
		t.Errorf("exit status %d after %d runs; it said:\n%s", got, len(c.runs(t)), ch.stderr.String())
	}

	c = shell(t, "exit 3")
	c.Retries = 30 // in the end it waits for minutes
	ch = c.start(t)
	ch.stderr.await(t, "trying again")
	ch.signal(t, syscall.SIGINT)
	if got := ch.wait(t); got != 130 {
		t.Errorf("exit status %d; it said:\n%s", got, ch.stderr.String())
	}
}

// A stage that calls itself in its second try would wait for its own end, too.
func TestCallInsideOfARetryIsRefused(t *testing.T) {
	was := retryPause
	retryPause = time.Millisecond
	t.Cleanup(func() { retryPause = was })
	c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; [ $CURI_ATTEMPT = 1 ] && exit 3; echo again; while [ ! -e $MARKS/end ]; do sleep 0.05; done; echo x > {out.model}")
	c.Retries = 1
	ch := c.start(t)
	ch.stdout.await(t, "started")
	c.mark(t, "go")
	ch.stdout.await(t, "again")
	inner := c
	inner.Environ = append(inner.Environ, "CURI_RUN="+c.runs(t)[0].ID)
	in := inner.start(t)
	if got := in.wait(t); got != exitRefused {
		t.Errorf("exit status %d, want %d", got, exitRefused)
	}
	c.mark(t, "end")
	if got := ch.wait(t); got != 0 {
		t.Errorf("exit status %d; it said:\n%s", got, ch.stderr.String())
	}
}
