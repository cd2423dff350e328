package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// app is what all commands share: the options that every command takes and
// what they lead to, each opened when it is first asked for.
type app struct {
	in     io.Reader
	out    io.Writer // results, nothing else
	err    io.Writer
	getenv func(string) string

	storeFlag string
	json      bool
	quiet     bool
	verbose   bool

	started     bool   // options and arguments were fit to begin with
	leaveOwed   bool   // what is owed to remotes is not this command's business
	stopSignals func() // gives the signals back to who handles them better
	cfg         *config
	opened      *cas.Store
	reader      *remote.Reader // of what only remotes have
	proj        *stages.Project
}

// logger tells what goes wrong on the way; with --verbose also what happens.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.verbose:
		level = slog.LevelDebug
	case a.quiet:
		level = slog.LevelError
	}
	return slog.New(&lineHandler{w: a.err, level: level})
}

// say prints one line for a person, unless --quiet.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.err, "curi: "+format+"\n", args...)
	}
}

// warn prints one line that even --quiet does not silence.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "curi: "+format+"\n", args...)
}

// store opens the store and makes it where there is none.
func (a *app) store(ctx context.Context) (*cas.Store, error) {
	return a.openStore(ctx, true)
}

// existingStore opens the store for a command that makes no sense on an empty
// one, without making it: a mistyped --store is not to leave a directory.
func (a *app) existingStore(ctx context.Context) (*cas.Store, error) {
	return a.openStore(ctx, false)
}

func (a *app) openStore(ctx context.Context, create bool) (*cas.Store, error) {
	if a.opened != nil {
		return a.opened, nil
	}
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	dir, from := cfg.get("store")
	if outer := storeAround(dir); outer != "" {
		return nil, usagef("the store %s (%s) lies in the store %s; name a directory elsewhere", dir, from, outer)
	}
	s, err := cas.Open(ctx, dir, cas.Options{Create: create, Logger: a.logger()})
	if err != nil {
		if !create && isNotFound(err) {
			return nil, notFoundf("no store at %s (%s); curi add makes one, --store DIR names another", dir, from)
		}
		return nil, fmt.Errorf("store from %s: %w", from, err)
	}
	a.opened = s
	o := remote.BucketOptions{Helper: helperBeside()}
	if a.verbose {
		o.Logger = a.logger() // else what fails in the end says so itself
	}
	a.reader = remote.NewReader(s, o)
	s.UseRemotes(a.reader)
	s.UseScratch(os.TempDir())
	if s.Created() {
		a.firstUse(ctx, s)
	}
	return s, nil
}

// project is the project that the current directory belongs to.
func (a *app) project() (stages.Project, error) {
	if a.proj != nil {
		return *a.proj, nil
	}
	dir, err := currentDir()
	if err != nil {
		return stages.Project{}, err
	}
	p, err := stages.FindProject(dir)
	if err != nil {
		return p, err
	}
	a.proj = &p
	return p, nil
}

func currentDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the current directory: %w; it may have been removed: cd to one that is there", err)
	}
	return dir, nil
}

// resolve finds what a REF means for the project of the current directory.
func (a *app) resolve(ctx context.Context, ref string) (*cas.Store, stages.Target, error) {
	s, err := a.existingStore(ctx)
	if err != nil {
		return nil, stages.Target{}, err
	}
	p, err := a.project()
	if err != nil {
		return nil, stages.Target{}, err
	}
	t, err := stages.Resolve(ctx, s, p, ref)
	if isNotFound(err) {
		// Commands that take what remotes have asked them first.
		if c, _, ok, rerr := a.splitRemote(ctx, s, ref); ok && rerr == nil {
			err = notFoundf("%s lies on remote %s, and this is for what the store has itself", ref, c.Name)
		}
	}
	return s, t, err
}

// stdin is standard input that the end of ctx ends too: a read that waits for
// a person at a terminal would go on waiting.
func (a *app) stdin(ctx context.Context) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.CopyBuffer(w, struct{ io.Reader }{a.in}, make([]byte, 256<<10))
		w.CloseWithError(err)
	}()
	return r
}

func (a *app) close() {
	if a.opened != nil {
		a.opened.Close()
		a.reader.Close()
	}
}
