package main_test

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

// A way is one of the three ways in which a job reaches its files.
type way string

const (
	byMount way = "mount"    // as root, through a mount that is up already
	byUser  way = "user"     // as an unprivileged user, through fusermount3
	byCopy  way = "no-mount" // without FUSE
)

// nobody is the unprivileged user of [byUser]; fusermount3 wants one that has a name.
const nobody = 65534

// need skips the test where the machine cannot run it; in CI that is a failure.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must be able to run this: needs %s", what)
	}
	t.Skipf("needs %s", what)
}

// binaries builds curi, curifs and curi-bucket once and returns their directory.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../../build/e2e")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+"/", "../curi", "../curifs", "../curi-bucket").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building curi, curifs and curi-bucket: %w\n%s", err, out)
	}
	return dir, nil
})

// python is the interpreter with PyTorch that `make test` names, else the one
// that it made, else "".
func python() string {
	if p := os.Getenv("CURI_TEST_PYTHON"); p != "" {
		return p
	}
	cache := os.Getenv("CURI_DEV_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(dir, "curi-dev")
	}
	p := filepath.Join(cache, "venv/bin/python")
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

// A site is a project, a store and a user: what one person on one machine has.
type site struct {
	t     *testing.T
	way   way
	dir   string // the project; commands run here
	store string
	side  string // for what a test and its commands tell each other: no part of the project
	mount string // where the store is mounted beforehand; ""
	env   []string
	enter []string   // how commands get to the site's machine, if that is one of a network
	space *namespace // of byUser, and of labs
	who   user       // who runs commands in the namespace
}

// newSite makes a project with the trainers and the data set "digits" in its store.
func newSite(t *testing.T, w way) *site {
	t.Helper()
	s := bareSite(t, w)
	s.copyIn("../../testdata/trainers", "external")
	s.write("digits/numbers.txt", "1 2 3 4\n")
	s.ok("curi", "add", "./digits", "--name", "digits")
	return s
}

// bareSite makes an empty project and an empty store.
func bareSite(t *testing.T, w way) *site {
	t.Helper()
	need(t, python() != "", "Python with PyTorch (make test installs it; or CURI_TEST_PYTHON)")
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	// The directory above is private to the user who runs the tests.
	if err := os.Chmod(filepath.Dir(top), 0o755); err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, way: w, dir: top + "/project", store: top + "/store", side: top + "/side"}
	fake := top + "/bin"
	for _, dir := range []string{s.dir, s.side, fake, top + "/home"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	abs, err := filepath.Abs("../../testdata/faketorchrun")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(abs, fake+"/torchrun"); err != nil {
		t.Fatal(err)
	}
	s.env = []string{
		"PATH=" + strings.Join([]string{fake, bin, filepath.Dir(python()), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"}, ":"),
		"HOME=" + top + "/home", "CURI_STORE=" + s.store, "SIDE=" + s.side, "WAY=" + string(w), "LANG=C.UTF-8", "OMP_NUM_THREADS=1",
		"PYTHONDONTWRITEBYTECODE=1", "GIT_CONFIG_GLOBAL=/dev/null", "USER=tester", "LOGNAME=tester",
	}
	if w == byUser {
		need(t, os.Getuid() == 0, "root, to become another user")
		if err := os.Chown(top, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		s.space, s.who = newNamespace(t, bin, top), theNobody
	}
	if w != byCopy {
		_, err := os.Stat("/dev/fuse")
		need(t, err == nil, "/dev/fuse")
	}
	s.own(s.dir, s.side, fake, top+"/home")
	s.ok("git", "init", "-q", ".")
	s.ok("curi", "store", "init", s.store)
	if w == byMount {
		need(t, os.Getuid() == 0, "root, to mount directly")
		s.mountStore()
	}
	return s
}

// real makes torchrun the real one.
func (s *site) real() *site {
	_ = os.Remove(filepath.Join(filepath.Dir(s.dir), "bin/torchrun"))
	return s
}

// mountStore mounts the store for the rest of the test. The path is short, so
// that TMPDIR of a run fits below it.
func (s *site) mountStore() {
	s.t.Helper()
	dir, err := os.MkdirTemp("/tmp", "curi-e2e-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.own(dir)
	s.t.Cleanup(func() {
		o := s.run("curi", "umount", dir)
		if o.status != 0 {
			s.t.Errorf("curi umount %s: status %d\n%s", dir, o.status, o.stderr)
			_ = exec.Command("umount", "-l", dir).Run()
		}
		if err := os.Remove(dir); err != nil {
			s.t.Error(err)
		}
	})
	s.ok("curi", "mount", dir)
	s.mount = dir
}

// own gives paths to the site's user.
func (s *site) own(paths ...string) {
	if s.way != byUser {
		return
	}
	for _, p := range paths {
		if err := os.Lchown(p, nobody, nobody); err != nil {
			s.t.Fatal(err)
		}
	}
}

// write writes a file of the project, as the site's user.
func (s *site) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			s.t.Fatal(err)
		}
		s.own(filepath.Join(s.dir, dir))
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.own(path)
}

// copyIn copies the files of a directory of the repository into the project.
func (s *site) copyIn(from, to string) {
	s.t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(filepath.Join(to, e.Name()), string(text))
	}
}

// command prepares a program of the site's user in the project.
func (s *site) command(argv ...string) *exec.Cmd {
	// By env, because it is to be found in the site's PATH, not in that of the tests.
	argv = append([]string{"/usr/bin/env"}, argv...)
	argv = slices.Concat(s.enter, argv)
	if s.space != nil {
		argv = s.space.enter(s.who, s.dir, argv)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// An outcome is what a finished command left.
type outcome struct {
	stdout, stderr string
	status         int // as a shell counts
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d\nstdout:\n%s\nstderr:\n%s", o.status, o.stdout, o.stderr)
}

// run runs a program to its end.
func (s *site) run(argv ...string) outcome {
	s.t.Helper()
	return s.finish(s.begin(argv...))
}

// A job is a command that runs.
type job struct {
	*exec.Cmd
	stdout, stderr *syncBuffer
}

// begin starts a program.
func (s *site) begin(argv ...string) *job {
	s.t.Helper()
	j := &job{s.command(argv...), new(syncBuffer), new(syncBuffer)}
	j.Stdout, j.Stderr = j.stdout, j.stderr
	if err := j.Start(); err != nil {
		s.t.Fatalf("starting %v: %v", argv, err)
	}
	return j
}

func (s *site) finish(j *job) outcome {
	s.t.Helper()
	err := j.Wait()
	o := outcome{stdout: j.stdout.String(), stderr: j.stderr.String()}
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		o.status = failed.ExitCode()
		if w := failed.Sys().(syscall.WaitStatus); w.Signaled() {
			o.status = 128 + int(w.Signal())
		}
	case err != nil:
		s.t.Fatalf("%v: %v\n%s", j.Args, err, o)
	}
	if strings.Contains(o.stderr, "goroutine ") {
		s.t.Errorf("%v: a stack trace reached the user:\n%s", j.Args, o.stderr)
	}
	return o
}

// ok runs a program that must succeed and returns its output.
func (s *site) ok(argv ...string) string {
	s.t.Helper()
	o := s.run(argv...)
	if o.status != 0 {
		s.t.Fatalf("%s: %s", strings.Join(argv, " "), o)
	}
	return o.stdout
}

// fails runs a program that must fail with a status and say something.
func (s *site) fails(status int, says string, argv ...string) outcome {
	s.t.Helper()
	o := s.run(argv...)
	if o.status != status || !strings.Contains(o.stderr, says) {
		s.t.Fatalf("%s: want status %d and %q, got %s", strings.Join(argv, " "), status, says, o)
	}
	return o
}

// decode reads JSON that a command printed.
func decode[T any](s *site, text string) T {
	s.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		s.t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return v
}

// eventually waits until a condition holds; how long that takes is no matter
// of the test, only that it does. If j, which may be nil, ends before, it
// never will.
func (s *site) eventually(j *job, what string, holds func() bool) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if j != nil && !alive(strconv.Itoa(j.Process.Pid)) && !holds() {
			s.t.Fatalf("%v ended, in vain waited for: %s\n%s", j.Args, what, s.finish(j))
		}
		if time.Now().After(end) {
			s.t.Fatalf("waited two minutes in vain for: %s", what)
		}
	}
}

// lines of a file that commands wrote beside the project; none if it is not there.
func (s *site) lines(name string) []string {
	text, err := os.ReadFile(filepath.Join(s.side, name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

// alive tells whether a process lives; a zombie does not.
func alive(pid string) bool {
	if _, err := strconv.Atoi(pid); err != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
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
