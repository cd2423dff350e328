package launcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// mountLook is how often the launcher looks whether the mount still serves.
const mountLook = 2 * time.Second

// secondInt is how soon after a Ctrl-C another one counts as a second: some
// programs send it twice for one.
const secondInt = 300 * time.Millisecond

// execute runs the command under the guard, to the end of its whole tree.
func (r *run) execute(ctx context.Context) outcome {
	if sig := r.sig.caught(); sig != 0 {
		return interruptedBy(sig)
	}
	stdin, err := r.openStdin(ctx)
	if err != nil {
		return r.failed(err)
	}
	fault.At(fault.RunOpened)
	tty := terminal(r.o.Stdout) != nil
	r.attempt.tty = tty
	env := commandEnv(r.env, r.p, r.places, r.attempt, r.argv)
	stdout, stderr := r.o.Stdout, r.o.Stderr
	if r.batch != nil { // files that stay for a while
		out, errs := r.log.masked(stdout), r.log.masked(stderr)
		defer out.Close()
		defer errs.Close()
		stdout, stderr = out, errs
	}
	pipes, err := newStdio(stdin, stdout, stderr, r.log)
	if err != nil {
		return r.failed(err)
	}
	r.sayStart()
	defer r.keepSnapshots(ctx)()
	out := r.guarded(env, pipes)
	pipes.drain(r.sig.ctx)
	endLine(r.o.Stdout)
	endLine(r.o.Stderr)
	return out
}

// endLine tells a writer that shows its lines whole that the one which was begun
// goes no further.
func endLine(w io.Writer) {
	if w, ok := w.(interface{ EndLine() }); ok {
		w.EndLine()
	}
}

// sayStart prints the command line before it starts.
func (r *run) sayStart() {
	what := fmt.Sprintf("%s runs", r.id)
	switch {
	case r.attempt.copied.Run != "":
		what = fmt.Sprintf("%s runs (with a copy of the snapshot of the work directories of %s, with %s)", r.id, r.attempt.copied.Run, r.attempt.copied.Checkpoint)
	case r.attempt.from != "":
		what = fmt.Sprintf("%s runs (with a copy of the work directories of %s)", r.id, r.attempt.from)
	case r.attempt.snapshot.Run != "":
		what = fmt.Sprintf("%s runs (try %d, with the snapshot of the work directories of %s)", r.id, r.attempt.number, r.attempt.snapshot.Run)
	case r.attempt.resumed:
		what = fmt.Sprintf("%s runs (try %d, with the work directories of the last)", r.id, r.attempt.number)
	}
	r.say("%s: %s", what, stages.ShellQuote(r.shown))
}

func interruptedBy(sig syscall.Signal) outcome {
	return outcome{status: stages.Interrupted, exit: 128 + int(sig), reason: "ended by " + signalName(sig)}
}

func signalName(sig syscall.Signal) string {
	switch sig {
	case syscall.SIGINT:
		return "SIGINT (Ctrl-C)"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	case syscall.SIGBUS:
		return "SIGBUS"
	}
	return fmt.Sprintf("signal %d (%s)", int(sig), sig)
}

// guarded starts the guard and watches the run until nothing of it is left.
func (r *run) guarded(env environment, pipes *stdio) outcome {
	path, err := findProgram(r.argv[0], r.p.Dir, env)
	if err != nil {
		pipes.started()
		return r.cannotStart(err)
	}
	spec := guardSpec{Argv: r.argv, Path: path, Dir: r.p.Dir, Env: env, TTY: pipes.tty, Grace: r.o.Grace,
		Store: r.s.Dir(), Run: r.info, Mark: r.mark(), Trees: r.trees(), Share: r.share()}
	if r.node > 0 {
		spec.Store = "" // the run is the first node's to settle
	}
	if r.o.Nodes != nil {
		r.nodeEnv(&spec)
	}
	held := []*os.File{r.lock.File(), r.pin.File()}
	if r.mount != nil {
		held = append(held, r.mount.use)
	}
	held = append(held, r.o.Held...)
	r.link, err = startGuard(r.o.Self, spec, pipes.command, held)
	pipes.started()
	if err != nil {
		return r.failed(err)
	}
	defer r.link.close()
	return r.watch()
}

// cannotStart is a command that is not there, or is no program: the caller
// sees what a shell would say, and the same status.
func (r *run) cannotStart(err error) outcome {
	return outcome{status: stages.Failed, exit: notStarted(err), reason: fmt.Sprintf("%s could not be started: %s", r.shown[0], oneLine(err))}
}

// watch follows the guard's reports and passes on signals. It does first and
// says afterwards: who reads stderr may be stuck.
func (r *run) watch() outcome {
	var (
		timeout  <-chan time.Time
		out      outcome
		ended    *exit
		killed   bool // what was left was killed
		timedOut bool
		halted   halt // what another node's end made of it
	)
	if r.o.Timeout > 0 {
		t := time.NewTimer(r.o.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	mountDead, stopLooking := r.watchMount()
	defer stopLooking()
	for {
		select {
		case rep, ok := <-r.link.reports:
			switch {
			case !ok:
				return r.guardDied()
			case rep.Failed != "":
				var err error = errors.New(rep.Failed)
				if rep.Errno != 0 {
					err = fmt.Errorf("%s: %w", r.shown[0], syscall.Errno(rep.Errno))
				}
				return r.cannotStart(err)
			case rep.Slow != "":
				r.o.Log.Info("inputs of many small files are read slowly", "run", r.id, "reason", rep.Slow)
			case rep.Exited != nil:
				ended = rep.Exited
			case rep.Left != nil:
				r.sayLeft(rep.Left, ended)
			case rep.Killing != nil:
				killed = true
				r.warn("killing %s", names(rep.Killing))
			case rep.Stuck != nil:
				out.err = fmt.Errorf("%w: %s cannot be killed and may still write: nothing is published", ErrRefused, names(rep.Stuck))
				return r.judge(out, ended, timedOut, killed)
			case rep.Done:
				out = r.judge(out, ended, timedOut, killed)
				if halted.why != "" && out.err == nil && out.status != stages.Interrupted {
					out.status, out.exit, out.reason = stages.Failed, cmp.Or(halted.exit, out.exit, 1), halted.why
				}
				return out
			}
		case sig := <-r.sig.more:
			r.passOn(sig)
		case halted = <-r.halt:
			r.link.signal(syscall.SIGTERM, r.o.Grace)
			r.warn("%s: SIGTERM to %s", halted.why, filepath.Base(r.argv[0]))
		case <-timeout:
			timedOut = true
			r.link.signal(syscall.SIGTERM, r.o.Grace)
			r.warn("the time limit of %s is over: SIGTERM to %s, SIGKILL to what is left in %s", r.o.Timeout, filepath.Base(r.argv[0]), r.o.Grace)
		case <-mountDead:
			mountDead = nil
			out.err = r.mountDied()
			r.link.signal(syscall.SIGTERM, r.o.Grace)
			r.warn("%s; ending the command", oneLine(out.err))
		}
	}
}

// watchMount closes dead when the mount serves no more. Files that are open in
// passthrough go on working then, and the command may not notice.
func (r *run) watchMount() (dead chan struct{}, stop func()) {
	if r.mount == nil {
		return nil, func() {}
	}
	dead = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		t := time.NewTicker(mountLook)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if !r.mount.alive() {
					close(dead)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return dead, cancel
}

func (r *run) mountDied() error {
	return fmt.Errorf("%w: the mount at %s died while the command ran: nothing is published; run it again to go on with its work directories", ErrMount, r.mount.Dir)
}

// passOn gives a signal to the command alone.
func (r *run) passOn(sig syscall.Signal) {
	program := filepath.Base(r.argv[0])
	if sig == syscall.SIGINT {
		if r.interrupts > 0 {
			if time.Since(r.lastInt) < secondInt {
				return
			}
			r.link.kill()
			r.warn("interrupted again: killing all that is left of %s", program)
			return
		}
		r.interrupts++
		r.lastInt = time.Now()
	}
	r.link.signal(sig, r.o.Grace)
	if sig == syscall.SIGINT {
		r.warn("interrupted: SIGINT to %s, which has %s to end; Ctrl-C again kills it", program, r.o.Grace)
	} else {
		r.warn("%s: passed on to %s, which has %s to end", signalName(sig), program, r.o.Grace)
	}
}

// sayLeft names what outlives the command.
func (r *run) sayLeft(left []process, ended *exit) {
	if ended != nil && ended.Code == 0 {
		r.warn("the command ended and left running: %s; waiting up to %s for them to end", names(left), r.o.Grace)
	} else {
		r.warn("the command ended and left running: %s; SIGTERM to them, SIGKILL in %s", names(left), r.o.Grace)
	}
}

// guardDied is a guard that was killed: with it goes the certainty that the
// tree is gone, until no process of the run is found.
func (r *run) guardDied() outcome {
	for deadline := time.Now().Add(stuckAfter); ; {
		left := processesOfRun(r.mark())
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return outcome{status: stages.Failed, exit: exitInternal,
				err: fmt.Errorf("%w: the guard of the run was killed, and %s cannot be: nothing is published", ErrRefused, names(left))}
		}
		signalAll(left, syscall.SIGKILL)
		time.Sleep(sweepEvery)
	}
	return outcome{status: stages.Failed, exit: 128 + int(syscall.SIGKILL), reason: "the guard of the run was killed, and the command with it"}
}

// judge says how the run ended, once the tree is gone.
func (r *run) judge(out outcome, ended *exit, timedOut, killed bool) outcome {
	if ended == nil {
		ended = &exit{Code: 128 + int(syscall.SIGKILL), Signal: int(syscall.SIGKILL)}
	}
	out.status, out.exit = stages.Failed, ended.Code
	sig := r.sig.caught()
	switch {
	case out.err != nil:
		if out.exit == 0 {
			out.exit = exitTrouble
		}
	case sig != 0:
		return interruptedBy(sig)
	case timedOut:
		out.status, out.exit = stages.TimedOut, 128+int(syscall.SIGTERM)
		out.reason = fmt.Sprintf("timed out after %s", r.o.Timeout)
	case ended.Signal != 0:
		out.reason = "the command was ended by " + signalName(syscall.Signal(ended.Signal))
	case ended.Code != 0:
		out.reason = fmt.Sprintf("the command ended with exit status %d", ended.Code)
	case !r.mountServes():
		out.err, out.exit = r.mountDied(), exitTrouble
	default:
		out.status = stages.Succeeded
		if killed {
			r.say("what the command left running was killed after %s", r.o.Grace)
		}
	}
	if out.reason != "" && !r.mountServes() {
		out.reason += ", and the mount at " + r.mount.Dir + " died while it ran"
	}
	return out
}

// mountServes reports whether the run's mount, if it has one, still serves.
func (r *run) mountServes() bool {
	return r.mount == nil || r.mount.alive()
}

// exitTrouble is the documented status of trouble with the store or a mount;
// exitRefused that of a stage that may not run or publish.
const (
	exitTrouble = 123
	exitRefused = 124
)
