package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// run is one try of a stage, under its key's lock.
type run struct {
	*execution
	lock      *cas.Lock
	pin       *cas.Pin
	stopPin   func() // ends the pin's signs of life
	place     *cas.Place
	mount     *heldMount // nil with --no-mount
	attempt   attempt
	places    stages.Places
	argv      []string // with secrets
	shown     []string // with their names
	secrets   map[string]string
	info      stages.Run
	record    *stages.Record
	log       *keptLog
	link      *guardLink
	snapshots *snapshots

	node    int          // of several: its rank; 0 is the first, or the only one
	ownExit int          // of the first of several nodes: its command's
	parts   []part       // what the other nodes did, once all have ended
	united  []*cas.Added // trees of outputs of several nodes
	halt    chan halt    // why the command is to end: another node's did

	interrupts int // Ctrl-C so far
	lastInt    time.Time
}

// outcome is how a try ended.
type outcome struct {
	status stages.Status
	exit   int
	reason string // for the person, where the command's own words are not enough
	err    error  // of Curi; then status is Failed
	result cas.Digest
}

// failed is an outcome that is Curi's fault, or the caller's signal.
func (r *run) failed(err error) outcome {
	if sig := r.sig.caught(); sig != 0 && errors.Is(err, context.Canceled) {
		return interruptedBy(sig)
	}
	out := outcome{status: stages.Failed, exit: exitTrouble, err: err}
	if errors.Is(err, ErrRefused) {
		out.exit = exitRefused
	}
	return out
}

// do prepares the places, runs the command and publishes what it wrote.
func (r *run) do(ctx context.Context) (*Result, error) {
	defer r.release()
	r.snapshots = &snapshots{r: r}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := stages.PutRun(ctx, r.s, r.info, cas.Digest{}); err != nil {
		return nil, err
	}
	fault.At(fault.RunBegun)
	// From here on the run exists, and must be seen to end: what follows
	// goes on when ctx ends.
	var out outcome
	if changed := r.p.ChangedCode(); len(changed) > 0 {
		out = r.failed(fmt.Errorf("%w: %s changed while this call waited or prepared: run it again, for the key of what is there now", ErrRefused, strings.Join(changed, ", ")))
	} else if err := r.open(ctx); err != nil {
		out = r.failed(err)
	} else {
		out = r.executeAll(ctx)
	}
	fault.At(fault.RunEnded)
	if err := r.lost(); err != nil {
		return nil, r.abandon(context.WithoutCancel(ctx), out, err)
	}
	res, err := r.finish(context.WithoutCancel(ctx), &out)
	if err != nil && out.err == nil {
		return res, err
	}
	return res, out.err
}

// lost says that another host took the key over, nil if none did.
func (r *run) lost() error {
	if err := r.lock.Beat(); errors.Is(err, cas.ErrBusy) {
		return err
	}
	return nil
}

// abandon ends a run whose key another host took over: the places are that
// host's now, and what lies there may be what its run writes.
func (r *run) abandon(ctx context.Context, out outcome, why error) error {
	_ = r.log.close()
	r.info.Status, r.info.Exit, r.info.Ended = stages.Failed, exitRefused, time.Now().UTC()
	err := fmt.Errorf("%w: %s ended with exit status %d, and nothing is published: %w", ErrRefused, r.id, out.exit, why)
	if perr := stages.PutRun(ctx, r.s, r.info, r.info.Tree); perr != nil {
		err = fmt.Errorf("%w; and then: %w", err, perr)
	}
	return err
}

// keepBeating shows on a key's lock that this process lives, until the returned
// function is called. The guard does the same while the command runs.
func (e *execution) keepBeating(lock *cas.Lock) (stop func()) {
	return e.every(beatEvery, lock.Beat)
}

// every gives signs of life, until the returned function is called.
func (e *execution) every(d time.Duration, beat func() error) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if err := beat(); err != nil {
					e.o.Log.Warn("show that the run lives", "run", e.id, "error", err)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-ended // the file may be closed next
	}
}

// release gives back what the run holds besides the lock.
func (r *run) release() {
	if r.pin != nil {
		r.stopPin()
		_ = r.pin.Release()
	}
	for _, a := range r.united {
		a.Release()
	}
	if r.mount != nil {
		r.mount.use.Close()
	}
}

// prepare makes everything that the command needs.
func (r *run) prepare(ctx context.Context) error {
	if err := r.p.CheckSecrets(r.secret); err != nil {
		return fmt.Errorf("stage %s: %w", r.p.Name, err)
	}
	last, err := r.readLast(ctx)
	if err != nil {
		return err
	}
	if err := r.bringInputs(ctx); err != nil {
		return err
	}
	if err := r.pinInputs(ctx); err != nil {
		return err
	}
	if err := r.movePlace(ctx); err != nil {
		return err
	}
	root := ""
	if r.o.Places != "" {
		root = r.placesRoot()
	} else if r.o.NoMount {
		if root, err = plainRoot(r.s, r.p.Key.String(), r.deepest()); err != nil {
			return err
		}
	} else {
		if r.mount, err = r.useMount(ctx, last.root); err != nil {
			return err
		}
		root = rootIn(r.mount.Dir, r.p.Key.String())
	}
	if err := r.preparePlace(ctx, last); err != nil {
		return fmt.Errorf("prepare the places of stage %s: %w", r.p.Name, err)
	}
	fault.At(fault.RunPlaced)
	if err := r.fillInputs(ctx); err != nil {
		return err
	}
	r.places = r.paths(root)
	if r.attempt.resumed {
		if r.places.Resume, err = r.findCheckpoint(filepath.Join(r.place.Dir(), "work")); err != nil {
			return err
		}
	}
	if err := r.fillArgv(); err != nil {
		return err
	}
	tmp := filepath.Join(r.place.Dir(), "tmp")
	r.attempt.params = filepath.Join(r.places.Tmp, "curi-params.json")
	r.attempt.meta = filepath.Join(r.places.Tmp, "curi-meta")
	if err := writeParams(filepath.Join(tmp, "curi-params.json"), r.p.Params); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "curi-meta"), nil, 0o644); err != nil {
		return fmt.Errorf("make the file for metadata: %w", err)
	}
	if err := writeRoot(filepath.Join(r.place.Dir(), rootFile), root); err != nil {
		return fmt.Errorf("prepare the places of stage %s: %w", r.p.Name, err)
	}
	if r.log, err = newKeptLog(r.logPath(), r.secrets); err != nil {
		return err
	}
	r.share().place()
	r.info = stages.NewRun(r.p, r.id, r.attempt.number)
	if r.batch != nil {
		r.info.Job = r.batch.job.ID
	}
	r.record = r.newRecord(ctx, last)
	return nil
}

// logPath is where the log grows while the command runs.
func (r *run) logPath() string { return filepath.Join(r.dir(), "log.txt") }

// pinInputs keeps what the run reads from being collected, and looks whether
// it is there: bytes that a purge took away are found before the command
// starts, not by it.
func (r *run) pinInputs(ctx context.Context) error {
	var trees []cas.Digest
	for _, in := range r.p.In {
		trees = append(trees, in.Tree)
	}
	if !r.p.StdinTree.IsZero() {
		trees = append(trees, r.p.StdinTree)
	}
	var err error
	if r.pin, err = r.s.Pin(ctx, holderPrefix+r.id, trees...); err != nil {
		return err
	}
	r.stopPin = r.every(pinBeatEvery, r.pin.Beat)
	for _, in := range r.p.In {
		if !r.s.HasTree(in.Tree) {
			continue // it comes when it is read
		}
		n := 0
		err := r.s.Walk(ctx, in.Tree, func(path string, f cas.Entry) error {
			if n++; n > lookedFor {
				return fs.SkipAll
			}
			if f.IsRegular() && !r.s.HasWholeBlob(f.Digest, f.Size) {
				return fmt.Errorf("the bytes of %s are no longer in the store %s; add or make it again (curi fsck names all that is missing): %w", path, r.s.Dir(), cas.ErrNotFound)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("input %s (%s): %w", in.Name, in.From, err)
		}
	}
	return nil
}

// secret looks up {secret.VAR}.
func (r *run) secret(name string) (string, bool) {
	if r.o.Secret == nil {
		return "", false
	}
	return r.o.Secret(name)
}

// fillArgv fills the placeholders and remembers the values of secrets, for
// the log to mask.
func (r *run) fillArgv() error {
	r.secrets = map[string]string{}
	lookup := func(name string) (string, bool) {
		v, ok := r.secret(name)
		if ok {
			r.secrets[name] = v
		}
		return v, ok
	}
	var err error
	r.argv, r.shown, err = r.p.Argv(r.places, lookup)
	if err != nil {
		return fmt.Errorf("stage %s: %w", r.p.Name, err)
	}
	if len(r.argv) == 0 {
		return fmt.Errorf("stage %s: there is no command: %w", r.p.Name, stages.ErrUsage)
	}
	return nil
}

// findProgram finds a command as a shell in dir would, with the command's PATH.
func findProgram(name, dir string, env environment) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	path, _ := env.get("PATH")
	var denied error
	for _, in := range filepath.SplitList(path) {
		if !filepath.IsAbs(in) {
			in = filepath.Join(dir, in)
		}
		file := filepath.Join(in, name)
		fi, err := os.Stat(file)
		if err != nil || fi.IsDir() {
			continue
		}
		if fi.Mode()&0o111 != 0 {
			return file, nil
		}
		denied = syscall.EACCES
	}
	if denied != nil {
		return "", &os.PathError{Op: "run", Path: name, Err: denied}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// openStdin opens what the command reads: /dev/null, or what was keyed.
func (r *run) openStdin(ctx context.Context) (*os.File, error) {
	if r.p.StdinBlob.IsZero() {
		return os.Open(os.DevNull)
	}
	b, err := r.s.OpenBlob(ctx, r.p.StdinBlob)
	if err != nil {
		return nil, fmt.Errorf("open the command's standard input: %w", err)
	}
	return b.File, nil
}

// notStarted is the status that a shell gives for a command that cannot run.
func notStarted(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, syscall.ENOENT) {
		return 127
	}
	return 126
}
