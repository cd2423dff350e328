package launcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// callArg makes the test binary a curi that runs one stage: it is what tests
// signal and kill.
const callArg = "__call"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case GuardArg:
			os.Exit(GuardMain(os.Args[2:]))
		case callArg:
			os.Exit(callMain(os.Args[2]))
		}
	}
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// call is one `curi stage exec`.
type call struct {
	Store    string
	Stage    stages.Stage
	Force    bool
	Fresh    bool
	Retries  int
	Snapshot time.Duration
	Mount    bool
	Curifs   string
	Accept   string
	Message  string
	Timeout  time.Duration
	Grace    time.Duration
	Environ  []string
	Secrets  map[string]string
	Stuck    bool // snapshots go to a remote that does not answer

	progress func(what string) (cas.Progress, func()) // of a call in this process
}

func (c call) exec(ctx context.Context, stdout, stderr interface{ Write([]byte) (int, error) }) (*Result, error) {
	s, err := cas.Open(ctx, c.Store, cas.Options{Create: true})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if c.Environ == nil {
		c.Environ = os.Environ()
	}
	c.Stage.Environ = c.Environ
	p, err := stages.Bind(ctx, s, stages.Project{Name: "proj", Dir: c.Stage.Dir}, c.Stage)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var snapshotted func(context.Context, stages.Key, stages.Snapshot) error
	if c.Stuck {
		snapshotted = func(ctx context.Context, _ stages.Key, _ stages.Snapshot) error {
			fmt.Fprintln(stderr, "uploading")
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return Exec(ctx, s, p, Options{Snapshotted: snapshotted, Force: c.Force, Fresh: c.Fresh, Retries: c.Retries, Snapshot: c.Snapshot, NoMount: !c.Mount, Curifs: c.Curifs, Accept: c.Accept, Message: c.Message,
		Timeout: c.Timeout, Grace: c.Grace, Self: self, Stdout: stdout, Stderr: stderr, Environ: c.Environ, Progress: c.progress,
		Secret: func(n string) (string, bool) { v, ok := c.Secrets[n]; return v, ok }})
}

// status is what curi's main makes of it.
func status(res *Result, err error) int {
	switch {
	case err == nil:
		return res.Exit
	case errors.Is(err, ErrRefused):
		return exitRefused
	case errors.Is(err, stages.ErrUsage):
		return 120
	}
	return exitTrouble
}

func callMain(arg string) int {
	var c call
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	res, err := c.exec(context.Background(), os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "curi:", err)
	}
	return status(res, err)
}

// output is a buffer that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// awaitText waits until the output has a text.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	waitFor(t, "output "+text, func() bool { return strings.Contains(o.String(), text) })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// child is a call in a process of its own.
type child struct {
	cmd            *exec.Cmd
	stdout, stderr output
	done           chan struct{}
}

// json is what [callMain] takes.
func (c call) json(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (c call) start(t *testing.T) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ch := &child{cmd: exec.Command(self, callArg, c.json(t)), done: make(chan struct{})}
	ch.cmd.Stdout, ch.cmd.Stderr = &ch.stdout, &ch.stderr
	ch.cmd.WaitDelay = 10 * time.Second
	ch.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := ch.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = ch.cmd.Wait()
		close(ch.done)
	}()
	t.Cleanup(func() {
		_ = ch.cmd.Process.Kill()
		<-ch.done
	})
	return ch
}

// wait returns the exit status.
func (ch *child) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-ch.done:
	case <-time.After(60 * time.Second):
		t.Fatalf("the call did not end; it said:\n%s%s", ch.stdout.String(), ch.stderr.String())
	}
	return ch.cmd.ProcessState.ExitCode()
}

func (ch *child) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := ch.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// shell is a call of a shell text with one file output, model=model.bin, and
// a work directory, ck.
func shell(t *testing.T, text string) call {
	t.Helper()
	return call{Store: storeDir(t), Grace: 5 * time.Second, Environ: append(os.Environ(), "MARKS="+t.TempDir()), Stage: stages.Stage{
		Name: "train", Shell: true, Command: []string{text}, Dir: t.TempDir(),
		Outputs: []stages.Output{{Name: "model", Path: "model.bin"}},
		Work:    []string{"ck"},
	}}
}

// marks is a directory, $MARKS for the command, of which the key knows nothing.
func (c call) marks() string {
	dir, _ := environment(c.Environ).get("MARKS")
	return dir
}

// pidIn reads a pid from a file that a command writes into $MARKS.
func (c call) pidIn(t *testing.T, name string) int {
	t.Helper()
	pid := 0
	waitFor(t, "the pid in "+name, func() bool {
		b, _ := os.ReadFile(filepath.Join(c.marks(), name))
		n, err := strconv.Atoi(strings.TrimSpace(string(b)))
		pid = n
		return err == nil
	})
	return pid
}

// storeDir is an empty directory for a store, on a path short enough for
// TMPDIR unless a test wants it long.
func storeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeAll(dir) })
	return filepath.Join(dir, "s")
}

// run runs the call in this process.
func (c call) run(t *testing.T) (res *Result, out string, err error) {
	t.Helper()
	var o output
	res, err = c.exec(t.Context(), &o, &o)
	return res, o.String(), err
}

// must runs the call and wants it to succeed.
func (c call) must(t *testing.T) (*Result, string) {
	t.Helper()
	res, out, err := c.run(t)
	if err != nil || res.Exit != 0 {
		t.Fatalf("exec: %v, %+v; it said:\n%s", err, res, out)
	}
	return res, out
}

func (c call) open(t *testing.T) *cas.Store {
	t.Helper()
	s, err := cas.Open(t.Context(), c.Store, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// runs lists the runs in the store, newest first.
func (c call) runs(t *testing.T) []stages.Run {
	t.Helper()
	var rs []stages.Run
	for r, err := range stages.Runs(t.Context(), c.open(t)) {
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	return rs
}

// at is the place of the only run's key on disk.
func (c call) at(t *testing.T) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(c.Store, "at", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("places: %v, %v", dirs, err)
	}
	return dirs[0]
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Errorf("%s holds %q (%v), want %q", path, b, err, want)
	}
}

func wantText(t *testing.T, out string, texts ...string) {
	t.Helper()
	for _, x := range texts {
		if !strings.Contains(out, x) {
			t.Errorf("no %q in:\n%s", x, out)
		}
	}
}
