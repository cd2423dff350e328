package launcher

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// built is the directory of the curifs that tests made; TestMain removes it.
var built string

var buildCurifs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "curifs")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "curifs")
	out, err := exec.Command("go", "build", "-o", path, "github.com/curi-store/curi/cmd/curifs").CombinedOutput()
	if err != nil {
		return string(out), err
	}
	return path, nil
})

// mounted makes the call use a mount, or skips the test where none can be.
func (c call) mounted(t *testing.T) call {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lack(t, "/dev/fuse: "+err.Error())
	}
	f.Close()
	path, err := buildCurifs()
	if err != nil {
		t.Fatalf("build curifs: %v: %s", err, path)
	}
	c.Mount, c.Curifs = true, path
	t.Cleanup(func() { c.awaitUnmounted(t) })
	return c
}

// lack skips a test that this machine cannot run; in CI none may.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// awaitUnmounted waits until the mount that exec made has left.
func (c call) awaitUnmounted(t *testing.T) {
	t.Helper()
	s, err := cas.Open(context.Background(), c.Store, cas.Options{}) // the test's own context has ended
	if err != nil {
		return
	}
	defer s.Close()
	dir := autoDir(s)
	waitFor(t, "the mount to leave", func() bool { _, is := mountedAt(dir); return !is })
	_ = os.Remove(dir)
	_ = os.Remove(dir + ".log")
	_ = os.Remove(dir + "s")
}

func TestMountedExec(t *testing.T) {
	c := shell(t, "cat {in.data}/a > {out.model}; echo more >> {out.model}; echo ck > {work.ck}/f; echo $TMPDIR; mount | grep curi").mounted(t)
	c.addInput(t, "data", map[string]string{"a": "first\n"})
	res, out := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "first\nmore\n")
	wantText(t, out, "/tmp/curi-")
	wantFile(t, filepath.Join(c.at(t), "work", "ck", "f"), "ck\n")
	again, _ := c.must(t)
	if !again.Cached {
		t.Errorf("second call: %+v", again)
	}
}

// addInput adds files as the artifact called name and gives the stage an
// input of that name.
func (c *call) addInput(t *testing.T, name string, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for n, text := range files {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := cas.Open(t.Context(), c.Store, cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	added, err := s.AddPath(t.Context(), dir, cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), name, added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Stage.Inputs = append(c.Stage.Inputs, stages.Input{Name: name, Ref: name})
}

func TestMountedWriteOnInputIsRefused(t *testing.T) {
	c := shell(t, "echo x > {out.model}; echo x > {in.data}/a").mounted(t)
	c.addInput(t, "data", map[string]string{"a": "first\n"})
	c.addInput(t, "da", map[string]string{"a": "untouched\n"})
	res, out, err := c.run(t)
	if err != nil || res.Exit == 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantText(t, out, "--in-rw data=data")
	if strings.Contains(out, "--in-rw da=da") {
		t.Errorf("an input that nobody wrote on is named:\n%s", out)
	}
	c.Stage.Inputs[0].Writable = true
	res, _ = c.must(t)
	wantFile(t, res.Outputs["model"].Path, "x\n")
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
}

func TestMountDiesDuringRun(t *testing.T) {
	const text = "echo x > {out.model}; echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done"
	c := shell(t, text).mounted(t)
	said := c.killMount(t, exitTrouble)
	wantText(t, said, "nothing is published")
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Failed {
		t.Errorf("runs: %+v", rs)
	}
	// The next call clears the dead mount away and goes on.
	c.must(t)
}

// A command that failed over its dead mount keeps its own status.
func TestMountDiesAndCommandFails(t *testing.T) {
	c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; exit 3").mounted(t)
	c.killMount(t, 3)
	if res, _, err := c.run(t); err != nil || res.Exit != 3 { // clears the dead mount away
		t.Errorf("%+v, %v", res, err)
	}
}

// A registration that cannot be read does not end a run of hours: the mount
// serves all the same.
func TestRegistrationIsDamagedDuringRun(t *testing.T) {
	c := shell(t, "echo x > {out.model}; echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done").mounted(t)
	ch := c.start(t)
	ch.stdout.await(t, "started")
	names, err := filepath.Glob(filepath.Join(c.Store, "mounts", "*.json"))
	if err != nil || len(names) != 1 {
		t.Fatalf("registrations: %v, %v", names, err)
	}
	if err := os.WriteFile(names[0], []byte("no JSON"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.marks(), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ch.wait(t); got != 0 {
		t.Errorf("exit status %d; it said:\n%s", got, ch.stderr.String())
	}
}

// killMount starts c, kills the server of its mount, lets the command end and
// returns what was said.
func (c call) killMount(t *testing.T, want int) string {
	t.Helper()
	ch := c.start(t)
	ch.stdout.await(t, "started")
	live, _, err := c.open(t).Mounts(t.Context())
	if err != nil || len(live) != 1 {
		t.Fatalf("mounts: %v, %v", live, err)
	}
	if err := syscall.Kill(live[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.marks(), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := ch.wait(t); got != want {
		t.Errorf("exit status %d, want %d; it said:\n%s", got, want, ch.stderr.String())
	}
	wantText(t, ch.stderr.String(), "the mount at", "died")
	return ch.stderr.String()
}

func TestMountsAreShared(t *testing.T) {
	text := "echo x > {out.model}; echo root=$CURI_ROOT; while [ ! -e $MARKS/go ]; do sleep 0.05; done"
	a := shell(t, text).mounted(t)
	b := a
	b.Stage.Name = "other"
	b.Stage.Params = []stages.Param{{Name: "lr", Type: "int", Raw: "1", Canonical: "1"}}
	x, y := a.start(t), b.start(t)
	x.stdout.await(t, "root=")
	y.stdout.await(t, "root=")
	live, _, err := a.open(t).Mounts(t.Context())
	if err != nil || len(live) != 1 {
		t.Errorf("mounts: %v, %v, want one for both", live, err)
	}
	if err := os.WriteFile(filepath.Join(a.marks(), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if x.wait(t) != 0 || y.wait(t) != 0 {
		t.Errorf("they said:\n%s%s", x.stderr.String(), y.stderr.String())
	}
	if strings.TrimSpace(x.stdout.String()) == strings.TrimSpace(y.stdout.String()) {
		t.Errorf("both have the root %s", x.stdout.String())
	}
}

// serve mounts the store at dir for as long as the test lasts, as curi mount
// does.
func (c call) serve(t *testing.T, dir string, options ...string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(c.Curifs, append([]string{c.Store, dir, "--ready-fd", "3"}, options...)...)
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	answer, err := io.ReadAll(r)
	if err != nil || strings.Contains(string(answer), `"error"`) {
		t.Fatalf("serve %s: %v, %s", dir, err, answer)
	}
}

func TestNextTryHasTheSameRoot(t *testing.T) {
	c := shell(t, "echo root=$CURI_ROOT; echo ck > {work.ck}/a; exit 1").mounted(t)
	_, out, _ := c.run(t)
	dir, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	c.serve(t, dir)
	// Another stage takes the mount that is up.
	other := c
	other.Stage.Name = "other"
	other.Stage.Command = []string{"echo root=$CURI_ROOT > {out.model}"}
	res, _ := other.must(t)
	if b, _ := os.ReadFile(res.Outputs["model"].Path); !strings.HasPrefix(string(b), "root="+dir+"/at/") {
		t.Errorf("another stage had %s, want the mount at %s", b, dir)
	}
	if !strings.HasPrefix(res.Outputs["model"].Path, dir+"/cas/") {
		t.Errorf("path %s, want it in the mount at %s", res.Outputs["model"].Path, dir)
	}
	// What the first try wrote about its paths stays true.
	_, again, _ := c.run(t)
	_, root, _ := strings.Cut(out, "root=/")
	root, _, _ = strings.Cut(root, "\n")
	wantText(t, again, "try 2", "root=/"+root+"\n")
}

// A mount point may be one in another mount namespace only, where its removal
// takes the mount away.
func TestMountPointOfAnotherNamespaceStays(t *testing.T) {
	c := shell(t, "echo x > {out.model}; : > $MARKS/ready; while [ ! -e $MARKS/go ]; do sleep 0.05; done").mounted(t)
	s, err := cas.Open(t.Context(), c.Store, cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	dir := autoDir(s)
	s.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var said output
	cmd := exec.Command("unshare", "-m", self, callArg, c.json(t))
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		lack(t, "unshare: "+err.Error())
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
	})
	waitFor(t, "the run in another namespace", func() bool { _, err := os.Stat(filepath.Join(c.marks(), "ready")); return err == nil })
	old := time.Now().Add(-2 * unusedFor)
	if err := os.Chtimes(dir, old, old); err != nil {
		t.Fatal(err)
	}
	other := shell(t, "echo y > {out.model}").mounted(t)
	other.must(t)
	c.mark(t, "go")
	<-done
	if got := cmd.ProcessState.ExitCode(); got != 0 {
		t.Errorf("exit status %d; it said:\n%s", got, said.String())
	}
}
