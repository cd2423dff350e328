//go:build linux

package fusefs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// The tests mount by the program itself, as a process of its own, so that they
// may use the mount as any program does.
var curifs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "curifs-test")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "curifs")
	out, err := exec.Command("go", "build", "-o", bin, "../cmd/curifs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build curifs: %w: %s", err, out)
	}
	// Beside it, the helper of the remotes that the tests make.
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s'\n", farHelper, self)
	return bin, os.WriteFile(filepath.Join(dir, "curi-bucket"), []byte(script), 0o755)
})

func TestMain(m *testing.M) {
	if os.Getenv(farHelper) != "" {
		if err := serveFar(); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(performing) != "" {
		if err := perform(); err != nil {
			fmt.Fprintln(os.Stderr, "performer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(posixTests) != "" {
		os.Exit(m.Run()) // it needs no server
	}
	status := m.Run()
	if bin, err := curifs(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(status)
}

// skip skips a test whose machine lacks something, but not in CI.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("cannot run here: " + why)
	}
	t.Skip("skipped: " + why)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		skip(t, "needs /dev/fuse: "+err.Error())
	} else {
		f.Close()
	}
}

// store makes a store in a directory that other users may enter.
func newStore(t *testing.T) *cas.Store {
	t.Helper()
	root := t.TempDir()
	// t.TempDir is 0700 two levels up.
	for p := root; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	s, err := cas.Open(t.Context(), filepath.Join(root, "store"), cas.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// mounted is a mount and the process that serves it.
type mounted struct {
	dir  string
	info cas.Mount
	cmd  *exec.Cmd
	log  *said
	done chan error
	// within starts programs where they see the mount, if the tests do not.
	within []string
}

// said is what a program said so far.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func mount(t *testing.T, s *cas.Store, args ...string) *mounted {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	return serve(t, s, dir, nil, args...)
}

// serve starts curifs by way of a command, such as one that drops privileges.
func serve(t *testing.T, s *cas.Store, dir string, by []string, args ...string) *mounted {
	t.Helper()
	bin, err := curifs()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	argv := append(append(by, bin, s.Dir(), dir, "--ready-fd", "3"), args...)
	m := &mounted{dir: dir, cmd: exec.Command(argv[0], argv[1:]...), log: &said{}, done: make(chan error, 1)}
	m.cmd.Stderr = m.log
	m.cmd.ExtraFiles = []*os.File{w}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() { m.done <- m.cmd.Wait() }()
	t.Cleanup(func() { m.stop(t) })
	line, _ := bufio.NewReader(r).ReadBytes('\n')
	var answer struct {
		cas.Mount
		Error string `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil || answer.Error != "" {
		t.Fatalf("curifs does not serve: %q %v: %s", line, err, m.log)
	}
	m.info = answer.Mount
	return m
}

// stop ends the server and checks that nothing is left mounted.
func (m *mounted) stop(t *testing.T) {
	if m.cmd.ProcessState == nil {
		m.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-m.done:
			if err != nil {
				t.Errorf("curifs failed: %v: %s", err, m.log)
			}
		case <-time.After(20 * time.Second):
			m.cmd.Process.Kill()
			t.Errorf("curifs did not end on SIGTERM: %s", m.log)
		}
	}
	if isMounted(m.dir) {
		t.Errorf("%s is still mounted", m.dir)
		unix.Unmount(m.dir, unix.MNT_DETACH)
	}
	if t.Failed() && m.log.String() != "" {
		t.Logf("curifs said: %s", m.log)
	}
}

func isMounted(dir string) bool {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(b), " "+dir+" ")
}

func (m *mounted) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

// stats are the server's counters, those of errors among them by class.
func (m *mounted) stats(t *testing.T) map[string]int64 {
	t.Helper()
	text := run(t, append(slices.Clone(m.within), python(t), "-c", "import os, sys; print(os.getxattr(sys.argv[1], 'user.curi.stats').decode())", m.dir)...)
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	st := map[string]int64{}
	errors, _ := all["errors"].(map[string]any)
	for _, values := range []map[string]any{all, errors} {
		for name, v := range values {
			if n, ok := v.(float64); ok {
				st[name] = int64(n)
			}
		}
	}
	return st
}

// publish stores files (path to content) as the next version of name.
func publish(t *testing.T, s *cas.Store, name string, files map[string]string, attrs ...cas.Attr) cas.Version {
	t.Helper()
	dir := t.TempDir()
	for p, content := range files {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	added, err := s.AddPath(t.Context(), dir, cas.AddOptions{Attrs: cas.Attrs(attrs)})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	v, _, err := s.Publish(t.Context(), name, added.Tree, cas.PublishOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const testKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// openPlace makes a place that programs may write through m.
func openPlace(t *testing.T, s *cas.Store, m *mounted, key string, inputs map[string]cas.Digest) *cas.Place {
	t.Helper()
	p := s.Place(key)
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1, Mount: m.info.ID, Active: true, Inputs: inputs})
	for _, d := range []string{"out", "work", "logs", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.Dir(), d, "a"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.within != nil {
		run(t, append(m.within, python(t), "-c", "import os, sys; os.getxattr(sys.argv[1], 'user.curi.refresh')", m.dir)...)
	}
	return p
}

func setPlace(t *testing.T, s *cas.Store, p *cas.Place, st cas.PlaceState) {
	t.Helper()
	if err := p.SetState(context.Background(), st); err != nil {
		t.Fatal(err)
	}
	if err := s.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// testBinary is this test's own program, where other users may run it.
func testBinary(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "test")
	run(t, "cp", exe, bin)
	for p := bin; p != os.TempDir() && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	return bin
}

// run runs a program and returns what it printed.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%.100q: %v: %s", argv, err, out)
	}
	return string(out)
}

// eventually waits for what another process does in its own time.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// holdOpen starts a program that prints a line when it holds what it is to
// hold, and waits for that; the result lets it go on to its end.
func holdOpen(t *testing.T, argv []string) (release func()) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%.100q: %v: %s", argv, err, &said)
		}
	})
	t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		release()
		t.Fatalf("%.100q ended with %q", argv, line)
	}
	return release
}
