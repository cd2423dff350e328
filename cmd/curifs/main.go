//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/fusefs"
)

// The exit statuses.
const (
	statusUsage = 120
	statusMount = 123
)

func main() {
	// First of all: a signal that comes while the mount is being made must
	// not leave it behind.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parse(args)
	switch {
	case err != nil:
		c.ready.fail(err)
		fmt.Fprintf(stderr, "curifs: %v\n", err)
		return statusUsage
	case c.help:
		fmt.Fprint(stdout, usage)
		return 0
	case c.version:
		fmt.Fprintln(stdout, "curifs "+version())
		return 0
	}
	if c.background {
		err = startBackground(args)
	} else {
		err = serve(ctx, c, stderr)
	}
	if err != nil {
		c.ready.fail(err)
		fmt.Fprintf(stderr, "curifs: %v\n", err)
		return statusMount
	}
	return 0
}

// schedulers is how many threads may run Go code at least. The server waits for
// requests in read(2): with as many threads as a small machine has CPUs, all
// would be counted as running there, and each answer would begin with one that
// has to be had back.
const schedulers = 8

func serve(ctx context.Context, c command, stderr io.Writer) error {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(schedulers, runtime.GOMAXPROCS(0)))
	}
	level := slog.LevelWarn
	if c.debug {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	s, err := cas.Open(ctx, c.store, cas.Options{Logger: logger})
	if errors.Is(err, cas.ErrNotFound) {
		return fmt.Errorf("%s is not a store; make one with `curi store init %s`: %w", c.store, c.store, err)
	}
	if err != nil {
		return err
	}
	// Nothing is asked of a remote before something of it is read.
	remotes := remote.NewReader(s, remote.BucketOptions{Helper: remote.FindHelper(), Logger: logger})
	defer remotes.Close()
	s.UseRemotes(remotes)
	s.UseScratch(os.TempDir())
	defer s.Close()
	o := fusefs.Options{
		AllowOther: c.allowOther, NoExec: c.noExec, Auto: c.auto, Debug: c.debug, Logger: logger,
		Stats: &fusefs.Stats{}, Ready: func(m cas.Mount) { c.ready.tell(m) },
	}
	if c.metrics != "" {
		m, err := listenMetrics(ctx, c.metrics, o.Stats.Snapshot, logger)
		if err != nil {
			return err
		}
		defer m.Close()
		o.Metrics = m.address()
	}
	return fusefs.Serve(ctx, s, c.dir, o)
}

// readyFile is the descriptor of --ready-fd; nil without.
type readyFile struct{ f *os.File }

// tell writes one line of JSON and closes the descriptor, once.
func (r *readyFile) tell(v any) {
	if r == nil || r.f == nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		// Whoever asked may have gone; the mount then has no user.
		_, _ = r.f.Write(append(b, '\n'))
	}
	r.f.Close()
	r.f = nil
}

func (r *readyFile) fail(err error) {
	r.tell(map[string]string{"error": err.Error()})
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
