package launcher

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// save makes a complete checkpoint of a name in a work directory, when all is
// done that is to be done with $f before.
func save(name, before string) string {
	return "f={work.ck}/." + name + `; printf '\002\000\000\000\000\000\000\000{}' > $f` + "\n" + before + "\nmv $f {work.ck}/" + name + ".safetensors\n"
}

// withSnapshots makes calls look for checkpoints all the time.
func withSnapshots(t *testing.T, text string) call {
	t.Helper()
	was := snapshotLook
	snapshotLook = 5 * time.Millisecond
	t.Cleanup(func() { snapshotLook = was })
	c := shell(t, "echo \"attempt $CURI_ATTEMPT resume ${CURI_RESUME:-0} from [{resume}]\"\n"+text)
	c.Snapshot = time.Millisecond
	return c
}

// snapshots lists those of the only key.
func (c call) snapshots(t *testing.T) []stages.Snapshot {
	t.Helper()
	s := c.open(t)
	k, err := stages.ParseKey(c.runs(t)[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	list, err := stages.Snapshots(t.Context(), s, k)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func checkpointsOf(list []stages.Snapshot) (names []string) {
	for _, s := range list {
		names = append(names, s.Checkpoint)
	}
	return names
}

// begin starts the call in this process.
func (c call) begin(t *testing.T) (said *output, wait func() *Result) {
	t.Helper()
	said = new(output)
	var res *Result
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err = c.exec(t.Context(), said, said)
	}()
	return said, func() *Result {
		t.Helper()
		<-done
		if err != nil {
			t.Fatalf("exec: %v; it said:\n%s", err, said.String())
		}
		return res
	}
}

// A run whose work directories are gone goes on from the snapshot of its last
// complete checkpoint, and from nothing that was half written.
func TestSnapshotTakesThePlaceOfLostWork(t *testing.T) {
	c := withSnapshots(t, "if [ -e {work.ck}/a.safetensors ]; then ls {work.ck} > {out.model}; exit; fi\n"+
		"echo old > {work.ck}/notes; touch -d '1 hour ago' {work.ck}/notes\n"+
		// Half of one, held open; and one that is cut off and at rest, of later.
		"exec 5> {work.ck}/b.safetensors; printf '\\002\\000' >&5; printf '\\002' > {work.ck}/c.safetensors\n"+
		save("a", "touch -d '1 minute ago' $f; touch -d '2 minutes ago' {work.ck}/b.safetensors; ln $f {work.ck}/last.bin; touch -r $f $MARKS/a")+
		"echo saved; while [ ! -e $MARKS/go ]; do sleep 0.02; done; exit 3")
	said, wait := c.begin(t)
	said.await(t, "saved")
	waitFor(t, "a snapshot while the command runs", func() bool { return len(c.snapshots(t)) > 0 })
	c.mark(t, "go")
	if res := wait(); res.Exit != 3 {
		t.Fatalf("%+v; it said:\n%s", res, said.String())
	}
	wantText(t, said.String(), "the store has a copy of the work directories, with checkpoint ck/a.safetensors")
	if got := checkpointsOf(c.snapshots(t)); !slices.Equal(got, []string{"ck/a.safetensors"}) {
		t.Errorf("snapshots of %v", got)
	}
	first := c.runs(t)[0]
	if err := os.RemoveAll(c.at(t)); err != nil {
		t.Fatal(err)
	}

	_, out := c.must(t)
	wantText(t, out, "with the snapshot of the work directories of "+first.ID, "attempt 2 resume 1 from [", "/work/ck/a.safetensors]")
	run := c.runs(t)[0]
	if from := c.recordOf(t, run).ResumedFrom; from == nil || from.Run != first.ID || from.Checkpoint != "ck/a.safetensors" {
		t.Errorf("the record says that it went on from %+v", from)
	}
	dir := filepath.Join(c.at(t), "work", "ck")
	wantFile(t, filepath.Join(dir, "notes"), "old\n")
	if one, err := os.ReadFile(filepath.Join(dir, "last.bin")); err != nil || len(one) != 10 {
		t.Errorf("the other name of the checkpoint has %q, %v", one, err)
	}
	for _, half := range []string{"b.safetensors", "c.safetensors"} {
		if fi, err := os.Stat(filepath.Join(dir, half)); err == nil {
			t.Errorf("%s, which was half written, is in the snapshot, of %v", half, fi.ModTime())
		}
	}
	got, err := os.Stat(filepath.Join(dir, "a.safetensors"))
	want, werr := os.Stat(filepath.Join(c.marks(), "a"))
	if err != nil || werr != nil || !got.ModTime().Equal(want.ModTime()) {
		t.Errorf("the checkpoint is of %v, was of %v (%v, %v)", got.ModTime(), want.ModTime(), err, werr)
	}
	if left := c.snapshots(t); len(left) > 0 {
		t.Errorf("a run that succeeded leaves snapshots: %+v", left)
	}
}

// The two newest stay, each with what was there then.
func TestTwoSnapshotsStay(t *testing.T) {
	text := ""
	for _, n := range []string{"a", "b", "c"} {
		text += save(n, "") + "while [ ! -e $MARKS/" + n + " ]; do sleep 0.02; done\n"
	}
	c := withSnapshots(t, text+"exit 3")
	said, wait := c.begin(t)
	said.await(t, "attempt 1")
	for _, n := range []string{"a", "b", "c"} {
		waitFor(t, "the snapshot of "+n, func() bool {
			return slices.Contains(checkpointsOf(c.snapshots(t)), "ck/"+n+".safetensors")
		})
		c.mark(t, n)
	}
	if res := wait(); res.Exit != 3 {
		t.Fatalf("%+v", res)
	}
	list := c.snapshots(t)
	if got := checkpointsOf(list); !slices.Equal(got, []string{"ck/c.safetensors", "ck/b.safetensors"}) {
		t.Fatalf("snapshots of %v", got)
	}
	s := c.open(t)
	for i, want := range []int{3, 2} {
		e, err := s.Lookup(t.Context(), list[i].Tree, "ck")
		if err != nil {
			t.Fatal(err)
		}
		tree, err := s.Tree(t.Context(), e.Digest)
		if err != nil || len(tree.Entries) != want {
			t.Errorf("snapshot %d has %+v (%v), want %d files", list[i].N, tree, err, want)
		}
	}
}

// Work directories that are there win over a snapshot that is not newer; one
// that is newer, from another machine, wins over them.
func TestSnapshotOrWorkDirectory(t *testing.T) {
	c := withSnapshots(t, "if [ $CURI_ATTEMPT = 1 ]; then\n"+save("a", "touch -d '1 hour ago' $f")+"echo x > {work.ck}/here; exit 3; fi\n"+
		"ls {work.ck}; exit 4")
	if res, out, err := c.run(t); err != nil || res.Exit != 3 {
		t.Fatalf("%+v, %v\n%s", res, err, out)
	}
	if n := len(c.snapshots(t)); n != 1 {
		t.Fatalf("%d snapshots", n)
	}
	_, out, _ := c.run(t)
	wantText(t, out, "with the work directories of the last", "here\n")

	// As if the run had gone on elsewhere.
	s := c.open(t)
	k, _ := stages.ParseKey(c.runs(t)[0].Key)
	snap := c.snapshots(t)[0]
	snap.Time, snap.Run, snap.Attempt = snap.Time.Add(time.Minute), "train-elsewhere", 7
	if _, err := stages.PutSnapshot(t.Context(), s, k, snap); err != nil {
		t.Fatal(err)
	}
	_, out, _ = c.run(t)
	wantText(t, out, "with the snapshot of the work directories of train-elsewhere", "attempt 8 resume 1")
	if kept, _ := filepath.Glob(filepath.Join(c.at(t), "old", "*", "work", "ck", "here")); len(kept) == 0 {
		t.Errorf("the work directories that were older are not kept: %v", kept)
	}
	// --fresh wants none of it.
	c.Fresh = true
	_, out, _ = c.run(t)
	wantText(t, out, "attempt 1 resume 0 from []")
}

// A snapshot comes from whoever wrote the remote: what its links lead to would
// be written to.
func TestSnapshotThatLeadsOut(t *testing.T) {
	for _, x := range []struct {
		dir, target string
		stays       bool
	}{
		{"ck", "a", true}, {"ck", ".", true}, {"ck", "../ck/v0", true}, {"ck/v0", "../../ck", true}, {"ck", "a/./b//c", true},
		{"ck", "/etc", false}, {"ck", "../..", false}, {"ck/v0", "../../../etc", false}, {"ck", "x/..", false}, {"ck", "../x/../..", false},
	} {
		if got := staysBelow(x.dir, x.target); got != x.stays {
			t.Errorf("a link in %s to %s stays: %v", x.dir, x.target, got)
		}
	}
	c := withSnapshots(t, "[ $CURI_ATTEMPT = 1 ] && exit 3; ls {work.ck}; exit 4")
	_, _, _ = c.run(t)
	s := c.open(t)
	k, _ := stages.ParseKey(c.runs(t)[0].Key)
	dir, err := s.AddTree(t.Context(), &cas.Tree{Entries: []cas.Entry{{Name: "link", Kind: cas.KindSymlink, Target: "x/.."}}})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Release()
	root, err := s.AddTree(t.Context(), &cas.Tree{Entries: []cas.Entry{{Name: "ck", Kind: cas.KindDir, Digest: dir.Tree}}})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Release()
	snap := stages.Snapshot{Run: "train-elsewhere", Attempt: 1, Checkpoint: "ck/x", Time: time.Now(), Tree: root.Tree}
	if _, err := stages.PutSnapshot(t.Context(), s, k, snap); err != nil {
		t.Fatal(err)
	}
	_, said, _ := c.run(t)
	wantText(t, said, "cannot be taken: the link ck/link leads out", "attempt 1 resume 0")
}

// A signal ends what comes after a run that failed, and it is said what lacks;
// the status is the command's. What was for the command is not taken for it.
func TestSignalEndsTheLastSnapshot(t *testing.T) {
	for name, ended := range map[string]struct {
		script string
		status int
	}{
		"by itself":  {"exit 3", 3},
		"by Ctrl-C":  {"trap 'exit 3' INT; echo ready; while :; do sleep 0.05; done", 130},
		"the second": {"trap '' INT; echo ready; while :; do sleep 0.05; done", 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shell(t, save("a", "touch -d '1 minute ago' $f")+ended.script)
			c.Snapshot, c.Stuck, c.Grace = time.Hour, true, time.Minute
			ch := c.start(t)
			if ended.status == 130 {
				ch.stdout.await(t, "ready")
				ch.signal(t, syscall.SIGINT)
			}
			if name == "the second" {
				ch.stderr.await(t, "Ctrl-C again kills it")
				time.Sleep(secondInt + 100*time.Millisecond)
				ch.signal(t, syscall.SIGINT)
			}
			ch.stderr.await(t, "uploading")
			time.Sleep(secondInt + 100*time.Millisecond) // what comes sooner is the same Ctrl-C
			ch.signal(t, syscall.SIGINT)
			if got := ch.wait(t); got != ended.status {
				t.Errorf("exit status %d, want %d; it said:\n%s", got, ended.status, ch.stderr.String())
			}
			wantText(t, ch.stderr.String(), "with checkpoint ck/a.safetensors", "interrupted: the remotes have not got that checkpoint; only this machine can go on from it")
		})
	}
}
