package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// Options of [Exec].
type Options struct {
	Force   bool
	Fresh   bool
	NoMount bool
	// Places is a directory below which the places of the run lie; "": in the
	// store. On another filesystem outputs are copied into the store. It means
	// NoMount.
	Places  string
	Retries int           // how often a command that fails is started again
	Timeout time.Duration // of each try; 0: none
	// Snapshot is how often at most the work directories of a run get a snapshot
	// in the store, where a checkpoint became complete; 0: never.
	Snapshot time.Duration
	// Snapshotted, if it is set, is told of each snapshot; BringSnapshot brings
	// the newest one that others have of a key, where there is one. Who publishes
	// a result gives up what he told others of its key.
	Snapshotted   func(context.Context, stages.Key, stages.Snapshot) error
	BringSnapshot func(context.Context, stages.Key) error
	Grace         time.Duration // 0: 40 s
	Accept        string        // a run whose outputs are published under this key; nothing runs
	Message       string        // why, with Accept

	// Nodes, if it is set, says that this call is one node of several that run
	// the stage together. It works without a mount.
	Nodes *Nodes
	// Slurm, if it is set, makes a miss a job of Slurm, which runs on a node of
	// it; Exec waits for its end.
	Slurm *Slurm

	Self   string // path of the curi binary, re-executed as the guard
	Curifs string // path of the curifs binary; "" looks beside Self, then in PATH
	Curi   string // version of curi, for the record

	// Elsewhere, if it is set, is asked before a stage runs: it brings the
	// result of a key into the store from where others put theirs, and says
	// whether there was one. It may wait for others who make it now. run is the
	// id that this call's run gets if there is none.
	Elsewhere func(ctx context.Context, k stages.Key, run string) (bool, error)
	// There, if it is set, is asked before GPUs and CPUs are waited for: it does
	// the same, but waits for nobody, and this call need not be the one to run.
	There func(context.Context, stages.Key) (bool, error)
	// Prefetch tells which inputs that lie on a remote are brought whole before
	// the command starts; nil: none, they come when they are read.
	Prefetch func(input string) bool
	// Owe, if it is set, is told of a result just before it is the key's, so
	// that others get it whatever happens to this process.
	Owe func(context.Context, stages.Key, stages.Result) error

	Stdin io.Reader // unused: what the command reads is in the plan
	// Stdout gets the command's output, live, and Stderr its errors and what Curi
	// says. One that has a method EndLine() is told when a line that the command
	// began goes no further: before Curi says something, and at its end.
	Stdout io.Writer
	Stderr io.Writer
	Log    *slog.Logger
	Quiet  bool
	// Progress returns what long work of Curi's own calls, and what is called
	// when that is over; nil shows nothing.
	Progress func(what string) (cas.Progress, func())
	// Held are descriptors that the guard of the run inherits, so that what
	// they hold is not free before its process tree is gone.
	Held []*os.File
	// Secret looks up {secret.VAR}; Environ is what the command inherits.
	Secret  func(string) (string, bool)
	Environ []string
}

// defaultGrace is 40 s because torchrun takes 30 to end its workers.
const defaultGrace = 40 * time.Second

func (o *Options) setDefaults() {
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	if o.Progress == nil {
		o.Progress = func(string) (cas.Progress, func()) { return nil, func() {} }
	}
}

// Output of a finished or cached stage.
type Output struct {
	Digest cas.Digest `json:"digest"` // of a single file: the file's own, else Tree
	Tree   cas.Digest `json:"tree"`
	Bytes  int64      `json:"bytes"`
	Files  int64      `json:"files"`
	Path   string     `json:"path"` // can be opened now, and stays
}

// Result of [Exec], as `curi stage exec --json` prints it.
type Result struct {
	Run     string            `json:"run"`
	Stage   string            `json:"stage"`
	Key     string            `json:"key"`
	Cached  bool              `json:"cached"`
	Exit    int               `json:"exit_status"`
	Seconds float64           `json:"seconds"` // that this call took
	Outputs map[string]Output `json:"outputs"`
	Job     string            `json:"job,omitempty"` // of a batch system, its number
}

// Exec runs a planned stage, or takes its cached result. A command that ran
// and failed is no error: Result.Exit has its status. Errors of Curi wrap
// cas.ErrNotFound, ErrRefused, ErrMount or what cas returned.
//
// It handles SIGINT, SIGTERM and SIGHUP itself while it waits and runs: the
// caller must not end the process at one. The end of ctx counts as SIGTERM.
func Exec(ctx context.Context, s *cas.Store, p *stages.Plan, o Options) (*Result, error) {
	o.setDefaults()
	e := &execution{s: s, p: p, o: &o, env: environment(o.Environ), began: time.Now()}
	if o.Accept != "" {
		return e.accept(ctx)
	}
	o.NoMount = o.NoMount || o.Places != ""
	if o.Nodes != nil && o.Slurm == nil {
		return e.execNode(ctx)
	}
	if !o.Force {
		res, err := e.hit(ctx)
		if res != nil || err != nil {
			return res, err
		}
	}
	if err := checkNodes(e.env, p); err != nil {
		return nil, err
	}
	e.sig = catchSignals(ctx)
	defer e.sig.stop()
	res, err := e.miss(e.sig.ctx)
	if sig := e.sig.caught(); sig != 0 && errors.Is(err, context.Canceled) {
		// While it waited or prepared: nothing ran, or nothing since the last try.
		e.say("ended by %s", sig)
		if _, err := stages.FindRun(context.WithoutCancel(ctx), e.s, e.id); errors.Is(err, cas.ErrNotFound) {
			e.id = ""
		}
		return e.result(128 + int(sig)), nil
	}
	return res, err
}

// execution is one call of [Exec].
type execution struct {
	s         *cas.Store
	p         *stages.Plan
	o         *Options
	env       environment
	began     time.Time
	sig       *signals
	id        string  // of the run that this call makes
	try       int     // of this call, from 1
	gone      string  // what was said of a result that is none any more
	submitted string  // name of the job that this call submitted
	batch     *batch  // where this call is a job of a batch system
	lead      *leader // where it is the first node of several
}

// say tells the person one line.
func (e *execution) say(format string, args ...any) {
	if !e.o.Quiet {
		e.warn(format, args...)
	}
}

// warn tells the person one line that --quiet does not silence.
func (e *execution) warn(format string, args ...any) {
	who := rank(e.env)
	if e.batch != nil {
		who = "" // a job is rank 0 of its batch system
	}
	endLine(e.o.Stderr)
	fmt.Fprintf(e.o.Stderr, "curi: %s%s\n", who, fmt.Sprintf(format, args...))
}

// result is what this call reports of a run without outputs.
func (e *execution) result(exit int) *Result {
	return &Result{Run: e.id, Stage: e.p.Name, Key: e.p.Key.String(), Exit: exit,
		Seconds: time.Since(e.began).Seconds(), Outputs: map[string]Output{}}
}

// miss takes the key's lock, waiting for another call of the same key if need
// be, and runs the stage.
func (e *execution) miss(ctx context.Context) (*Result, error) {
	if job, err := e.jobOfKey(ctx, false); err != nil {
		return nil, err
	} else if job != nil {
		return e.followOther(ctx, *job)
	}
	id, err := e.newID(ctx)
	if err != nil {
		return nil, err
	}
	e.id = id
	res, job, err := e.locked(ctx)
	if job == nil || err != nil {
		return res, err
	}
	return e.followOther(ctx, *job)
}

// locked is the part of miss that is done under the key's lock. A job that it
// returns is what to wait for without.
func (e *execution) locked(ctx context.Context) (*Result, *stages.Job, error) {
	lock, holders, err := e.takeKey(ctx)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) || errors.Is(err, cas.ErrNoSpace) {
		return nil, nil, fmt.Errorf("stage %s would run now, but nothing can be written to the store: %w", e.p.Name, err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer lock.Release()
	defer e.keepBeating(lock)()
	if e.batch != nil {
		if err := e.takeJob(ctx, lock); err != nil {
			return nil, nil, err
		}
	}
	// Whoever held the key meanwhile did the work, for --force too: of
	// several ranks that all say --force one runs.
	if len(holders) > 0 || !e.o.Force {
		res, err := e.hit(ctx)
		if res != nil || err != nil {
			return res, nil, err
		}
	}
	if res := e.holderFailed(ctx, holders); res != nil {
		return res, nil, nil
	}
	if res, err := e.askElsewhere(ctx, lock); res != nil || err != nil {
		return res, nil, err
	}
	// Not before: of several ranks the first may have made the path already.
	free, err := e.takeFromPaths(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer free()
	if job, err := e.jobOfKey(ctx, true); job != nil || err != nil {
		return nil, job, err
	}
	if e.o.Slurm != nil {
		return e.submit(ctx)
	}
	fault.At(fault.RunLocked)
	res, err := e.tries(ctx, lock)
	return res, nil, err
}

// askElsewhere takes the key's result from where others put theirs. Both
// results are nil without one.
func (e *execution) askElsewhere(ctx context.Context, lock *cas.Lock) (*Result, error) {
	if e.o.Elsewhere == nil || e.o.Force {
		return nil, nil
	}
	found, err := e.o.Elsewhere(ctx, e.p.Key, e.id)
	if err != nil {
		return nil, err
	}
	if found {
		if res, err := e.hit(ctx); res != nil || err != nil {
			return res, err
		}
	}
	// It may have taken long.
	if err := lock.Beat(); errors.Is(err, cas.ErrBusy) {
		return nil, fmt.Errorf("%w: stage %s did not start: %w", ErrRefused, e.p.Name, err)
	}
	return nil, nil
}

// newID is the run that this call makes if it comes to that.
func (e *execution) newID(ctx context.Context) (string, error) {
	if e.batch != nil {
		return e.batch.job.Run, nil
	}
	return stages.NewRunID(ctx, e.s, e.p.Name)
}

// oneLine keeps an error that is shown within a line in it.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
