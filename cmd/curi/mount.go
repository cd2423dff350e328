package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
)

func newMount(a *app) *cobra.Command {
	var foreground, debug bool
	var opts []string
	c := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show the store as files",
		Long: `Mount the store at DIR, which is made if need be and must be empty. The command
returns when the mount serves; "curi umount DIR" ends it.

  DIR/artifacts/NAME      the newest version; NAME@3, NAME@best
  DIR/cas/DIGEST          any file or directory by its digest
  DIR/runs/RUN            in, out, work, logs, record.json, log.txt of a run

-o allow_other lets other users in; permissions are checked. -o metrics=ADDR tells
Prometheus what the mount does, at http://ADDR/metrics. ADDR is a port of this
machine's own (9100 is 127.0.0.1:9100, 0 any that is free; "curi status" says which)
or HOST:PORT: everybody who can reach it may ask, other users of this machine too,
and learns counters, but no names.

What goes wrong while it serves, such as a file that the disk cannot read, is
logged in /tmp/curi-UID/logs.`,
		Example: `  curi mount ~/curi
  ls ~/curi/artifacts/digits
  sudo curi mount /mnt/curi -o allow_other
  curi mount ~/curi -o metrics=9100 && curl http://127.0.0.1:9100/metrics
  curi mount ~/curi --foreground
  curi mount ~/curi --debug 2>requests.log`,
		Args:              nargs(1, 1, "one directory"),
		ValidArgsFunction: completeDirs,
		RunE: func(c *cobra.Command, args []string) error {
			if debug {
				opts = append(opts, "debug")
			}
			// In the background it would fill the log of what goes wrong.
			return a.mount(c.Context(), args[0], opts, foreground || slices.Contains(opts, "debug"))
		},
	}
	f := c.Flags()
	f.BoolVar(&foreground, "foreground", false, "serve until interrupted instead of returning")
	f.BoolVar(&debug, "debug", false, "log every request of programs to stderr, and stay in the foreground")
	f.StringSliceVarP(&opts, "options", "o", nil, "mount `options`, comma-separated: allow_other, metrics=ADDR")
	_ = c.RegisterFlagCompletionFunc("options", cobra.FixedCompletions([]string{"allow_other", "metrics="}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) mount(ctx context.Context, dir string, opts []string, foreground bool) (err error) {
	if dir == "" {
		return usagef("curi mount: the directory is empty; name one, such as ~/curi")
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	for _, o := range opts {
		if err := checkMountOption(o); err != nil {
			return err
		}
	}
	if cfg.bool("allow_other") && !slices.Contains(opts, "allow_other") {
		opts = append(opts, "allow_other")
	}
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	made, err := a.checkMountPoint(ctx, s, dir)
	if err != nil {
		return err
	}
	if made {
		// A directory that is left where no mount came up invites writes into it.
		defer func() {
			if err != nil {
				_ = os.Remove(dir)
			}
		}()
	}
	curifs, err := findCurifs()
	if err != nil {
		return err
	}
	args := []string{s.Dir(), dir}
	if len(opts) > 0 {
		args = append(args, "-o", strings.Join(opts, ","))
	}
	if foreground {
		a.say("mounting %s at %s; Ctrl-C ends it", s.Dir(), dir)
		return a.serveForeground(ctx, curifs, args)
	}
	m, err := startCurifs(ctx, curifs, args, dir, openLog(s, dir))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(m)
	}
	if !a.quiet {
		if m.Passthrough {
			a.say("serving %s (passthrough on)", s.Dir())
		} else {
			a.say("serving %s (passthrough off: %s)", s.Dir(), orDash(m.Reason))
		}
		if m.Metrics != "" {
			a.say("metrics at http://%s/metrics", m.Metrics)
		}
	}
	return a.printf("%s\n", m.Dir)
}

// mountOptions are what may follow -o.
var mountOptions = []string{"allow_other", "metrics", "debug"}

func checkMountOption(o string) error {
	name, value, given := strings.Cut(o, "=")
	switch {
	case !slices.Contains(mountOptions, name):
		return usagef("curi mount -o %s: unknown option%s; known are allow_other and metrics=ADDR", o, didYouMean(name, mountOptions))
	case name == "metrics":
		// The host is for curifs, which listens there.
		if _, err := strconv.ParseUint(value[strings.LastIndexByte(value, ':')+1:], 10, 16); err != nil {
			return usagef("curi mount -o %s: metrics wants a port, or HOST:PORT, as in -o metrics=9100", o)
		}
	case given:
		return usagef("curi mount -o %s: %s takes no value", o, name)
	}
	return nil
}

// checkMountPoint makes the directory, or finds what is wrong with one that exists.
func (a *app) checkMountPoint(ctx context.Context, s *cas.Store, dir string) (made bool, _ error) {
	live, stale, err := s.Mounts(ctx)
	if err != nil {
		return false, err
	}
	for _, m := range live {
		if m.Dir == dir {
			return false, troublef("%s is mounted already, by process %d; curi umount %s ends it", dir, m.PID, dir)
		}
	}
	for _, m := range stale {
		if m.Dir == dir {
			return false, troublef("%s has a mount whose server died; curi umount --stale clears it away", dir)
		}
	}
	if rel, err := filepath.Rel(s.Dir(), dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return false, usagef("%s lies in the store itself; mount somewhere else", dir)
	}
	names, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, fmt.Errorf("making the mount point: %w; name a directory that is yours", err)
		}
		return true, nil
	case errors.Is(err, syscall.ENOTDIR):
		return false, usagef("%s is not a directory; a mount needs an empty one", dir)
	case errors.Is(err, syscall.ENOTCONN):
		return false, troublef("%s has a mount whose server died; curi umount %s clears it away", dir, dir)
	case err != nil:
		return false, fmt.Errorf("looking at the mount point: %w; name a directory that is yours", err)
	case len(names) > 0:
		return false, usagef("%s is not empty: a mount would hide %s; name an empty or a new directory", dir, count(int64(len(names)), "name"))
	}
	return false, nil
}

// findCurifs finds the mount program beside curi's own, else in PATH.
func findCurifs() (string, error) {
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		p := filepath.Join(filepath.Dir(self), "curifs")
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p, nil
		}
	}
	p, err := exec.LookPath("curifs")
	if err != nil {
		return "", troublef("curifs, the mount program, is neither beside curi nor in PATH; install it beside curi (go install ./cmd/...)")
	}
	return p, nil
}

// serveForeground runs curifs in the foreground; it gets the terminal's
// signals itself and others are passed on.
func (a *app) serveForeground(ctx context.Context, curifs string, args []string) error {
	cmd := exec.CommandContext(ctx, curifs, args...)
	cmd.Stdout, cmd.Stderr = a.err, a.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil // ended as asked, unmounted
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &statusError{status: max(exit.ExitCode(), 1)}
	}
	if err != nil {
		return troublef("starting %s: %v", curifs, err)
	}
	return nil
}

// readyWait bounds how long curifs may take to say that it serves.
const readyWait = 20 * time.Second

// serverLog is the file for what the server of a mount at dir has to say, once
// there is no terminal any more.
func serverLog(s *cas.Store, dir string) string {
	name := s.ID()[:8] + strings.ReplaceAll(dir, "/", "-")
	return filepath.Join(cas.UserDir(), "logs", name[:min(len(name), 200)]+".log")
}

// openLog makes that file; nil where there can be none.
func openLog(s *cas.Store, dir string) *os.File {
	path := serverLog(s, dir)
	if cas.MakeUserDir() != nil || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil
	}
	return f
}

// dropLog removes it, when the mount has ended, if it says nothing.
func dropLog(s *cas.Store, dir string) {
	path := serverLog(s, dir)
	if fi, err := os.Lstat(path); err == nil && fi.Size() == 0 {
		_ = os.Remove(path)
	}
}

// startCurifs starts curifs detached from this process and waits until it
// serves. It closes log, which may be nil.
func startCurifs(ctx context.Context, curifs string, args []string, dir string, log *os.File) (cas.Mount, error) {
	if log != nil {
		defer log.Close()
	}
	r, w, err := os.Pipe()
	if err != nil {
		return cas.Mount{}, err
	}
	defer r.Close()
	cmd := exec.Command(curifs, append(args, "--ready-fd", "3")...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{w}
	if log != nil {
		cmd.Stderr = log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return cas.Mount{}, troublef("starting %s: %v", curifs, err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = r.SetReadDeadline(time.Now())
	})
	defer stop()
	_ = r.SetReadDeadline(time.Now().Add(readyWait))
	answer, err := io.ReadAll(r)
	if ctx.Err() != nil {
		return cas.Mount{}, ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return cas.Mount{}, troublef("mounting at %s: curifs (process %d) did not serve within %s and was ended", dir, cmd.Process.Pid, readyWait)
	}
	var said struct {
		cas.Mount
		Error string `json:"error"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(answer), &said); err != nil {
		_ = cmd.Wait()
		return cas.Mount{}, troublef("mounting at %s: curifs ended without a word (%v); curi mount --foreground shows what it says", dir, cmd.ProcessState)
	}
	if said.Error != "" {
		_ = cmd.Wait()
		return cas.Mount{}, troublef("mounting at %s: %s", dir, oneLine(said.Error))
	}
	_ = cmd.Process.Release()
	return said.Mount, nil
}
