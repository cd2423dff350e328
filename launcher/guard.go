package launcher

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// How often the key's lock gets a sign of life, and the pin. Only tests change
// them.
var (
	beatEvery    = fault.Duration("lock.beat", cas.BeatEvery/2)
	pinBeatEvery = time.Hour
)

// The guard's patience.
const (
	sweepEvery = 20 * time.Millisecond // between rounds of killing
	stuckAfter = 10 * time.Second      // of killing in vain
)

// GuardMain is the guard process: main calls it when os.Args[1] is
// [GuardArg]. It returns the exit status, which nobody reads.
//
// The guard is the subreaper of the command's process tree and holds the
// run's lock, pin and mount. Whatever happens to curi, none of them is free
// before the tree is gone.
func GuardMain(args []string) int {
	// PDEATHSIG fires when the thread that forked ends, so this one must last.
	runtime.LockOSThread()
	// Caught, not ignored: an ignored signal would stay ignored in the command.
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGTSTP} {
		if !signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	orders := os.NewFile(fdOrders, "orders")
	reports := os.NewFile(fdReports, "reports")
	unix.CloseOnExec(fdOrders)
	unix.CloseOnExec(fdReports)
	g := &guard{orders: json.NewDecoder(orders), reports: json.NewEncoder(reports)}
	if err := g.orders.Decode(&g.spec); err != nil {
		return exitInternal // curi died before it said what to run
	}
	for fd := range g.spec.Held {
		unix.CloseOnExec(fdHeld + fd)
	}
	if g.spec.Held > 0 {
		g.lock = cas.AdoptLock(os.NewFile(fdHeld, "lock"))
	}
	fault.At(fault.GuardReady)
	if err := becomeReaper(); err != nil {
		g.report(guardReport{Failed: "become the reaper of its processes: " + err.Error()})
		return exitInternal
	}
	if err := g.start(); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		g.report(guardReport{Failed: err.Error(), Errno: int(errno)})
		return exitInternal
	}
	g.watch()
	return 0
}

// exitInternal is the documented status of "this should not happen".
const exitInternal = 125

type guard struct {
	spec    guardSpec
	orders  *json.Decoder
	reports *json.Encoder
	command process   // whose pid also is that of its process group
	running bool      // the command itself lives
	lock    *cas.Lock // the first of the held descriptors
}

// report tells curi; if curi is gone, nobody.
func (g *guard) report(r guardReport) { _ = g.reports.Encode(r) }

// start runs the command. With trees to mount it does so from a thread that has
// a mount namespace of its own, and stays: see GuardMain.
func (g *guard) start() error {
	if g.spec.Trees == nil {
		return g.fork()
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := g.spec.Trees.attach(); err != nil {
			g.report(guardReport{Slow: err.Error()})
		}
		started <- g.fork()
		select {}
	}()
	return <-started
}

// fork starts the command, and lets go of its descriptors: when the tree is
// gone, the readers of its output must see the end.
func (g *guard) fork() error {
	attr := &syscall.ProcAttr{
		Dir:   g.spec.Dir,
		Env:   g.spec.Env,
		Files: []uintptr{fdStdin, fdStdout, fdStderr},
		Sys:   childAttr(g.spec.TTY),
	}
	pid, err := syscall.ForkExec(g.spec.Path, g.spec.Argv, attr)
	for _, fd := range []int{fdStdin, fdStdout, fdStderr} {
		unix.Close(fd)
	}
	if err != nil {
		return err
	}
	// Nobody reaps it yet: the pid is its own.
	g.command, g.running = processWith(pid), true
	fault.At(fault.GuardForked)
	g.report(guardReport{Started: pid})
	return nil
}

// reaped is a child that ended; pid 0 says that no child is left.
type reaped struct {
	pid    int
	status syscall.WaitStatus
}

// reap collects every child until there is none. As the subreaper's children
// are all that lost their parent, no child means no tree.
func reap(out chan<- reaped) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			out <- reaped{}
			return
		case ws.Exited() || ws.Signaled():
			out <- reaped{pid, ws}
		}
	}
}

// receive passes the orders on and closes the channel when curi is gone.
func (g *guard) receive(out chan<- guardOrder) {
	for {
		var o guardOrder
		if err := g.orders.Decode(&o); err != nil {
			close(out)
			return
		}
		out <- o
	}
}

// exitOf is the exit status as a shell would give it.
func exitOf(ws syscall.WaitStatus) exit {
	if ws.Signaled() {
		return exit{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return exit{Code: ws.ExitStatus()}
}

// watch lives as long as the tree does.
func (g *guard) watch() {
	ended := make(chan reaped, 16)
	go reap(ended)
	orders := make(chan guardOrder)
	go g.receive(orders)
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	kill := time.NewTimer(0) // fires when what is left is to be killed
	stop(kill)
	var stopping, orphaned bool
	for {
		select {
		case <-beat.C:
			if g.lock != nil && errors.Is(g.lock.Beat(), cas.ErrBusy) {
				// Another host took the key over: two must not write.
				stop(kill)
				kill.Reset(0)
			}
		case o, ok := <-orders:
			if !ok {
				orphaned, orders = true, nil
				kill.Reset(0)
				continue
			}
			g.obey(o, &stopping, kill)
		case r := <-ended:
			if r.pid == 0 {
				g.finish(nil, orphaned)
				return
			}
			if r.pid == g.command.PID {
				g.commandEnded(exitOf(r.status), stopping, kill)
			}
		case <-kill.C:
			if !orphaned {
				if left := g.left(); len(left) > 0 {
					g.report(guardReport{Killing: left})
				}
			}
			g.finish(g.killAll(ended), orphaned)
			return
		}
	}
}

// stop stops t and takes what it may have sent already.
func stop(t *time.Timer) {
	if !t.Stop() {
		select {
		case <-t.C:
		default:
		}
	}
}

// obey passes a signal to the command alone (not the group: a trainer's data
// loaders would die first), or to all that is left once it is gone, and sets
// the time of the end. A later order can only bring that nearer.
//
// A shell that is interrupted waits for the program that it runs, which at a
// terminal is interrupted with it: so that one is too.
func (g *guard) obey(o guardOrder, stopping *bool, kill *time.Timer) {
	if o.Signal == 0 {
		stop(kill)
		kill.Reset(0)
		return
	}
	if g.running {
		var run []process
		if syscall.Signal(o.Signal) == syscall.SIGINT {
			run = runByShell(g.command.PID)
		}
		// It may have ended a moment ago, and another process have its pid.
		signalProcess(g.command, syscall.Signal(o.Signal))
		signalAll(run, syscall.Signal(o.Signal))
	} else {
		signalAll(g.left(), syscall.Signal(o.Signal))
	}
	if !*stopping {
		*stopping = true
		stop(kill)
		kill.Reset(o.After)
	}
}

// commandEnded reports how, and begins to wait for what it leaves running.
// After success that may finish its work within the grace; after a failure it
// is asked to stop at once.
func (g *guard) commandEnded(e exit, stopping bool, kill *time.Timer) {
	g.running = false
	left := g.left()
	g.report(guardReport{Exited: &e})
	if len(left) == 0 {
		// Either nothing is left, which reap tells in an instant, or a child
		// was born in between: then it is on the clock as well.
		if !stopping {
			stop(kill)
			kill.Reset(g.spec.Grace)
		}
		return
	}
	g.report(guardReport{Left: left})
	if e.Code != 0 {
		signalAll(left, syscall.SIGTERM)
	}
	if !stopping {
		stop(kill)
		kill.Reset(g.spec.Grace)
	}
}

// left lists what lives of the tree, the command included.
func (g *guard) left() []process {
	left := descendants(os.Getpid(), g.command.PID)
	for _, p := range processesOfRun(g.spec.Mark) {
		if !slices.ContainsFunc(left, func(q process) bool { return q.PID == p.PID }) {
			left = append(left, p)
		}
	}
	return left
}

func signalAll(ps []process, sig syscall.Signal) {
	for _, p := range ps {
		signalProcess(p, sig)
	}
}

// killAll kills until nothing is left and returns what would not die.
func (g *guard) killAll(ended <-chan reaped) []process {
	deadline := time.Now().Add(stuckAfter)
	empty := false // no child is left; only one that got away may be
	for {
		left := g.left()
		if len(left) == 0 && empty {
			return nil
		}
		if time.Now().After(deadline) {
			return left
		}
		signalAll(left, syscall.SIGKILL)
		round := time.After(sweepEvery)
		for waiting := true; waiting; {
			select {
			case r := <-ended:
				if r.pid == 0 {
					empty = true
					ended = nil
					waiting = false
				} else if r.pid == g.command.PID {
					g.running = false
					e := exitOf(r.status)
					g.report(guardReport{Exited: &e})
				}
			case <-round:
				waiting = false
			}
		}
	}
}

// finish says that the tree is gone. From then on curi holds lock and pin
// alone, to seal; if curi is gone, the run is settled here.
func (g *guard) finish(stuck []process, orphaned bool) {
	if len(stuck) == 0 {
		// A process that got away from the reaper still has CURI_RUN.
		if got := processesOfRun(g.spec.Mark); len(got) > 0 {
			stuck = g.killAll(closedReaper())
		}
	}
	g.spec.Share.left() // also for a curi that is gone
	fault.At(fault.GuardEmpty)
	if len(stuck) > 0 {
		g.report(guardReport{Stuck: stuck})
	} else {
		g.report(guardReport{Done: true})
	}
	if orphaned {
		fault.At(fault.GuardSettled)
		g.settle()
	}
}

// closedReaper is the reaper of a process without children.
func closedReaper() <-chan reaped {
	c := make(chan reaped, 1)
	c <- reaped{}
	return c
}

// settle marks the run of a curi that died, closes its places and tells the
// mounts. What fails here is found by the next call of the same key.
func (g *guard) settle() {
	if g.spec.Store == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := cas.Open(ctx, g.spec.Store, cas.Options{})
	if err != nil {
		return
	}
	defer s.Close()
	_ = markLost(ctx, s, g.spec.Run.ID)
}
