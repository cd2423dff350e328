package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take before it counts as hanging. It is no
// measure of speed: only a machine that stands still reaches it.
const patience = 2 * time.Minute

// binaries builds curi and curifs with their fault points, once.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../build/fault")
	if err != nil {
		return "", err
	}
	// The results of these tests are those of all of the sources.
	for _, src := range []string{"cas", "cmd", "fusefs", "internal", "launcher", "stages"} {
		err := filepath.WalkDir("../../"+src, func(path string, e os.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	out, err := exec.Command("go", "build", "-tags", "curifault", "-o", dir+"/", "../../cmd/curi", "../../cmd/curi-bucket", "../../cmd/curifs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building curi and curifs: %w\n%s", err, out)
	}
	return dir, nil
})

// A rig is a store, a project, and all processes that work with them.
type rig struct {
	t     testing.TB
	dir   string // the project; commands run here
	store string
	side  string // what tests and commands tell each other
	mnt   string // where `curi mount` mounts
	env   []string
	url   string // of the remote; "": of the directory at bucket
	// objects is the directory in which a server keeps what the remote has.
	objects string

	before map[string]int // steps and calls before an op, see passages
}

// newRig makes an empty store and project. At the end of the test nothing of
// it may be running or mounted.
func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root, to mount")
	}
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	top, err := os.MkdirTemp("/tmp", "ct") // short, for the sake of TMPDIR
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: top + "/p", store: top + "/s", side: top + "/side", mnt: top + "/m"}
	for _, dir := range []string{r.dir, r.side, top + "/home"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.env = []string{"PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + top + "/home", "CURI_STORE=" + r.store,
		"SIDE=" + r.side, "LANG=C.UTF-8", "GIT_CEILING_DIRECTORIES=" + top, "USER=tester"}
	r.env = append(r.env, s3Env...)
	t.Cleanup(func() {
		r.settle()
		for _, left := range []string{r.autoDir(), r.autoDir() + ".log"} {
			if err := os.Remove(left); err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
		}
		if out, err := exec.Command("rm", "-rf", "--one-file-system", top).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	r.write("curi.yaml", "project: torture\ncapture: none\n")
	r.ok("curi", "store", "init", r.store)
	return r
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// A job is a command that runs.
type job struct {
	*exec.Cmd
	stdout, stderr syncBuffer
	done           chan struct{}
	err            error
}

// start starts a program; env is added to the rig's.
func (r *rig) start(env []string, argv ...string) *job {
	r.t.Helper()
	j := &job{done: make(chan struct{})}
	argv = append([]string{"/usr/bin/env"}, argv...) // to be found in the rig's PATH
	j.Cmd = exec.Command(argv[0], argv[1:]...)
	j.Dir, j.Env = r.dir, append(slices.Clone(r.env), env...)
	j.Stdout, j.Stderr = &j.stdout, &j.stderr
	// What a killed program left running may hold the pipes.
	j.WaitDelay = 10 * time.Second
	if err := j.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		j.err = j.Wait()
		close(j.done)
	}()
	return j
}

// An outcome is what a finished command left.
type outcome struct {
	argv           []string
	stdout, stderr string
	status         int // as a shell counts
}

func (o outcome) String() string {
	return fmt.Sprintf("%s: status %d\nstdout: %s\nstderr: %s", strings.Join(o.argv, " "), o.status, o.stdout, o.stderr)
}

// finish waits for the end of a job, which must come.
func (r *rig) finish(j *job) outcome {
	r.t.Helper()
	select {
	case <-j.done:
	case <-time.After(patience):
		r.t.Fatalf("it hangs: %v\nstdout: %s\nstderr: %s\nrunning:\n%s", j.Args[1:], j.stdout.String(), j.stderr.String(), strings.Join(r.processes(), "\n"))
	}
	o := outcome{argv: j.Args[1:], stdout: j.stdout.String(), stderr: j.stderr.String()}
	var failed *exec.ExitError
	switch {
	case errors.As(j.err, &failed):
		o.status = failed.ExitCode()
		if w := failed.Sys().(syscall.WaitStatus); w.Signaled() {
			o.status = 128 + int(w.Signal())
		}
	case j.err != nil && !errors.Is(j.err, exec.ErrWaitDelay):
		r.t.Fatalf("%v: %v", j.Args, j.err)
	}
	if strings.Contains(o.stderr, "goroutine ") {
		r.t.Errorf("a stack trace reached the user: %s", o)
	}
	return o
}

// run runs a program to its end, env added to the rig's.
func (r *rig) run(env []string, argv ...string) outcome {
	r.t.Helper()
	return r.finish(r.start(env, argv...))
}

// ok runs a program that must succeed and returns what it printed.
func (r *rig) ok(argv ...string) string {
	r.t.Helper()
	o := r.run(nil, argv...)
	if o.status != 0 {
		r.t.Fatalf("want success: %s", o)
	}
	return o.stdout
}

// faults is the environment that makes them happen.
func faults(rules ...string) []string { return []string{"CURI_FAULT=" + strings.Join(rules, ";")} }

// processes lists what runs with this rig's store, "PID command line".
func (r *rig) processes() (list []string) {
	for _, pid := range r.pids() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		list = append(list, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
	}
	return list
}

// pids lists the living processes that have the rig's store in their
// environment: all that curi starts for it, and what those start.
func (r *rig) pids() []int { return pidsWith(r.t, "CURI_STORE="+r.store) }

// pidsWith lists the living processes that have a variable in their environment.
func pidsWith(t testing.TB, variable string) (list []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	want := []byte(variable)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !alive(pid) {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) }) {
			list = append(list, pid)
		}
	}
	return list
}

// alive tells whether a process lives; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// eventually waits until something holds.
func (r *rig) eventually(what string, holds func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for: %s\nrunning:\n%s", what, strings.Join(r.processes(), "\n"))
		}
	}
}

// settle ends the mounts as a person would, and sees that nothing of the store
// is left running or mounted then.
func (r *rig) settle() {
	r.t.Helper()
	r.eventually("the runs to end", func() bool {
		return !slices.ContainsFunc(r.processes(), func(p string) bool {
			return !strings.Contains(p, "curifs") && !strings.Contains(p, "curi-bucket") // which a mount has for its remotes
		})
	})
	r.ok("curi", "umount", "--stale")
	var status struct {
		Mounts []struct {
			Dir string `json:"dir"`
			PID int    `json:"pid"`
		} `json:"mounts"`
	}
	if err := json.Unmarshal([]byte(r.ok("curi", "status", "--json")), &status); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range status.Mounts {
		var o outcome
		r.eventually("the locks of those that died to go", func() bool { // which is after all else of them
			o = r.run(nil, "curi", "umount", m.Dir)
			return !strings.Contains(o.stderr, "a stage runs in it")
		})
		switch {
		case o.status == 0, o.status == 121: // one that leaves by itself may be faster
		case strings.Contains(o.stderr, "another mount namespace"): // it says what to do
			_ = syscall.Kill(m.PID, syscall.SIGTERM)
		default:
			r.t.Errorf("a mount cannot be ended: %s", o)
		}
	}
	r.eventually("the servers to end", func() bool { return len(r.pids()) == 0 })
	if len(r.mounted()) > 0 { // a server that was leaving died on its way
		r.ok("curi", "umount", "--stale")
	}
	for _, dir := range r.mounted() {
		r.t.Errorf("%s is still mounted", dir)
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	}
}

// mounted lists what is mounted of this rig.
func (r *rig) mounted() (dirs []string) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[1] == r.mnt || f[1] == r.autoDir() {
			dirs = append(dirs, f[1])
		}
	}
	return dirs
}

// autoDir is where a run mounts the store by itself.
func (r *rig) autoDir() string {
	var head struct{ ID string }
	b, err := os.ReadFile(r.store + "/curi-store.json")
	if err != nil || json.Unmarshal(b, &head) != nil {
		r.t.Fatalf("the store's head: %v", err)
	}
	return "/tmp/curi-0/" + head.ID[:8]
}

// sound checks what must hold of a store and of its remote whatever was killed:
// all is whole, and every blob is what its name says, in the eyes of another
// program too.
func (r *rig) sound() {
	r.t.Helper()
	r.remoteSound()
	if o := r.run(nil, "curi", "fsck"); o.status != 0 {
		r.t.Fatalf("the store is not sound: %s", o)
	}
	r.b3sum()
}

// b3sum compares all blobs with their names and returns how many there are.
func (r *rig) b3sum() int {
	r.t.Helper()
	blobs, err := filepath.Glob(r.store + "/blobs/??/*")
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("xargs", "-0", "-r", "b3sum", "--")
	cmd.Stdin = strings.NewReader(strings.Join(blobs, "\x00"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("b3sum: %v", err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		sum, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if sum != filepath.Base(path) {
			r.t.Errorf("the bytes of a published blob changed: %s are %s now", path, sum)
		}
		n++
	}
	if n != len(blobs) {
		r.t.Errorf("b3sum looked at %d of %d blobs", n, len(blobs))
	}
	return n
}

// syncBuffer can be read while a process writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
