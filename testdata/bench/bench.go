package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bench is one run: where it works, what it made so far, what it measured.
type bench struct {
	options
	self    string // this program, where other users may run it
	store   string
	project string // where stages run: a directory without code
	python  string
	load    string // of the machine before the run

	mount  string            // where root's mount is; "" while there is none
	stored map[string]string // artifacts in the store, by name: the digest
	given  bool              // the store belongs to nobody now

	rows     []row
	peerRows []peerRow

	s3Addr     string // of the S3 server, once it runs
	s3Stop     func()
	remoteRows []remoteRow
	lazyRows   []row
	farRows    []farRow

	notes []string
}

// newBench makes the working directory and an empty store.
func newBench(o options) (_ *bench, err error) {
	b := &bench{options: o, stored: map[string]string{}}
	for _, p := range []*string{&b.bin, &b.dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return nil, err
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	b.load, _, _ = strings.Cut(string(load), " ")
	// The system's own: what is first in PATH may be a wrapper that starts slowly.
	if b.python, err = exec.LookPath("/usr/bin/python3"); err != nil {
		if b.python, err = exec.LookPath("python3"); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return nil, err
	}
	b.store, b.project, b.self = b.path("store"), b.path("project"), b.path("bench")
	for _, dir := range []string{b.project, b.path("home"), b.path(dataDir)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(b.project, "curi.yaml"), []byte("project: bench\ncapture: none\n"), 0o644); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := b.output("cp", self, b.self); err != nil {
		return nil, err
	}
	if err := os.Chmod(b.self, 0o755); err != nil {
		return nil, err
	}
	for k, v := range map[string]string{"CURI_STORE": b.store, "HOME": b.path("home"), "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "LANG": "C.UTF-8"} {
		os.Setenv(k, v)
	}
	if err := b.curi("store", "init", b.store); err != nil {
		return nil, err
	}
	b.note("the large file: %d MiB, in the page cache", b.size>>20)
	if b.percent != 100 {
		b.note("%d %% of the files that a row names", b.percent)
	}
	return b, nil
}

func (b *bench) close() {
	if err := b.unmount(); err != nil {
		log.Print(err)
	}
	if b.s3Stop != nil {
		b.s3Stop()
	}
	if err := os.RemoveAll(b.dir); err != nil {
		log.Print(err)
	}
}

// path is a path below the working directory.
func (b *bench) path(elem ...string) string {
	return filepath.Join(append([]string{b.dir}, elem...)...)
}

// tool is one of Curi's programs.
func (b *bench) tool(name string) string { return filepath.Join(b.bin, name) }

// note says something about the run, beside the table.
func (b *bench) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// times is how many rounds to measure: n, unless the command line says otherwise.
func (b *bench) times(n int) int {
	if b.rounds > 0 {
		return b.rounds
	}
	return n
}

// many is n files, or as many as the command line leaves of them.
func (b *bench) many(n int) int { return max(n*b.percent/100, 10) }

// add measures a row and keeps it.
func (b *bench) add(rounds int, r row) error {
	r, err := r.measure(b.times(rounds))
	if err != nil {
		return err
	}
	b.rows = append(b.rows, r)
	return nil
}

func (b *bench) curi(args ...string) error {
	_, err := b.output(b.tool("curi"), args...)
	return err
}

// output runs a program in the project and returns what it printed.
func (b *bench) output(name string, args ...string) (string, error) {
	return b.outputOf(exec.Command(name, args...))
}

func (b *bench) outputOf(cmd *exec.Cmd) (string, error) {
	if cmd.Dir == "" {
		cmd.Dir = b.project
	}
	if _, err := os.Stat(cmd.Dir); err != nil {
		cmd.Dir = "/"
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: install it, or leave this part out (-parts)", err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return string(out), nil
}

// timed returns how long the programs take, one after the other.
func (b *bench) timed(commands ...[]string) (float64, error) {
	start := time.Now()
	for _, argv := range commands {
		if _, err := b.output(argv[0], argv[1:]...); err != nil {
			return 0, err
		}
	}
	return time.Since(start).Seconds(), nil
}

// mounted mounts the store as the user who runs this, once.
func (b *bench) mounted() error {
	if b.mount != "" {
		return nil
	}
	// Short, so that a run's TMPDIR fits below it.
	dir, err := os.MkdirTemp("/tmp", "curi-bench-")
	if err != nil {
		return err
	}
	b.mount = dir
	said, err := b.output(b.tool("curi"), "mount", "--json", dir)
	if err != nil {
		return err
	}
	m, err := decode[struct {
		Passthrough bool
		Reason      string
	}](said)
	switch {
	case err != nil:
		return err
	case m.Passthrough:
		b.note("passthrough: on, except where a row says otherwise")
	default:
		b.note("passthrough: off: %s", m.Reason)
	}
	return nil
}

func (b *bench) unmount() error {
	if b.mount == "" {
		return nil
	}
	dir := b.mount
	b.mount = ""
	if err := b.curi("umount", dir); err != nil {
		return err
	}
	return os.Remove(dir)
}
