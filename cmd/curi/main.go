// Command curi is the command line of Curi, a content-addressed artifact store used through a mounted filesystem.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/launcher"
)

func main() {
	// A panic in any goroutine must not print a stack trace at a user; who
	// hunts a bug sets CURI_DEBUG.
	if os.Getenv("CURI_DEBUG") == "" {
		debug.SetTraceback("none")
	}
	// The guard of a run starts with every stage: nothing else is set up for it.
	if len(os.Args) > 1 && os.Args[1] == launcher.GuardArg {
		os.Exit(launcher.GuardMain(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:]))
}

// run is main with the exit status as its result, so that deferred calls run.
func run(args []string) (status int) {
	if os.Getenv("CURI_DEBUG") == "" {
		defer recovered(os.Stderr, &status)
	}
	ctx, stop := withSignals(context.Background())
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, stopSignals: stop}
	defer a.close()
	root := newRoot(a)
	root.SetArgs(args)
	status = a.report(ctx, root.ExecuteContext(ctx))
	if len(args) > 0 && !strings.HasPrefix(args[0], "__complete") { // who presses TAB has not called anything yet
		a.startUpload(context.WithoutCancel(ctx))
	}
	return status
}

// recovered turns a panic into one line and a status.
func recovered(w io.Writer, status *int) {
	if p := recover(); p != nil {
		fmt.Fprintf(w, "curi: internal error: %s; please report it with the command line (CURI_DEBUG=1 shows where)\n", oneLine(fmt.Sprint(p)))
		*status = exitInternal
	}
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ sig syscall.Signal }

func (i interrupted) Error() string {
	if i.sig == syscall.SIGINT {
		return "interrupted"
	}
	return "ended by " + unix.SignalName(i.sig)
}

// withSignals returns a context that ends at SIGINT, SIGTERM or SIGHUP. A
// second signal kills. Stage exec calls stop and handles signals itself.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // nohup, and background jobs of scripts
			signal.Notify(ch, s)
		}
	}
	go func() {
		select {
		case s := <-ch:
			signal.Stop(ch)
			cancel(interrupted{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(ch) }
}
