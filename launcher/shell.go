package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// Scratch is what [Shell] leaves: the outputs that the command wrote, ordinary
// files of the caller's.
type Scratch struct {
	Dir     string // below it lie in/, out/, work/, logs/, tmp/
	Outputs []stages.Output
	Exit    int // the command's status, as a shell counts
}

// Shell gives a run's places again: its inputs in place, read-only, its
// outputs and work directories empty in a new directory below the system's
// temporary one. It runs command there, whose placeholders are filled and
// whose environment is as in the run; nil is the user's shell. Nothing is
// recorded, keyed or published. A command that fails is no error.
//
// The scratch directory stays until its [Scratch.Remove].
func Shell(ctx context.Context, s *cas.Store, rec *stages.Record, command []string, o Options) (sc *Scratch, err error) {
	o.setDefaults()
	p, err := planOf(ctx, s, rec)
	if err != nil {
		return nil, err
	}
	defer p.Release()
	e := &execution{s: s, p: p, o: &o, env: environment(o.Environ), id: rec.Run, began: time.Now()}
	r := &run{execution: e, place: s.Place(rec.Key), attempt: attempt{number: 1}}
	defer r.release()
	if err := r.pinInputs(ctx); err != nil {
		return nil, err
	}
	if !o.NoMount {
		if r.mount, err = r.useMount(ctx, ""); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "curi-shell-")
	if err != nil {
		return nil, fmt.Errorf("make the scratch directory: %w", err)
	}
	sc = &Scratch{Dir: dir, Outputs: p.Outputs}
	defer func() {
		if err != nil {
			_ = sc.Remove()
			sc = nil
		}
	}()
	r.places = r.paths(dir)
	if err := r.fillScratch(ctx, dir); err != nil {
		return sc, err
	}
	r.sayCommand()
	if command == nil {
		command = []string{userShell(r.env)}
	} else {
		p.Shell = false
	}
	p.Command = command
	if err := r.fillArgv(); err != nil {
		return sc, err
	}
	sc.Exit, err = r.interact()
	return sc, err
}

// Remove removes the scratch directory and all that was written there.
func (sc *Scratch) Remove() error { return removeAll(sc.Dir) }

// Written lists the outputs that something was written to.
func (sc *Scratch) Written() []stages.Output {
	var list []stages.Output
	for _, out := range sc.Outputs {
		if found, err := holdsFiles(sc.Path(out)); err == nil && found {
			list = append(list, out)
		}
	}
	return list
}

// Path is where an output lies.
func (sc *Scratch) Path(out stages.Output) string {
	return outPath(filepath.Join(sc.Dir, "out"), out)
}

// planOf is as much of a run's plan as its record tells.
func planOf(ctx context.Context, s *cas.Store, rec *stages.Record) (*stages.Plan, error) {
	key, err := stages.ParseKey(rec.Key)
	if err != nil {
		return nil, fmt.Errorf("record of %s: %w: %w", rec.Run, cas.ErrCorrupt, err)
	}
	p := &stages.Plan{Key: key, Preimage: rec.Preimage, Project: stages.Project{Name: rec.Project}}
	p.Name, p.Command, p.Shell, p.CleanEnv, p.Work = rec.Stage, rec.Command, rec.Shell, rec.CleanEnv, rec.Work
	for _, in := range rec.Inputs {
		t, err := s.Tree(ctx, in.Tree)
		if errors.Is(err, cas.ErrNotFound) {
			t, err = makeInput(ctx, s, p, in)
		}
		if err != nil {
			return nil, fmt.Errorf("input %s of %s, %s: %w", in.Name, rec.Run, in.From, err)
		}
		p.In = append(p.In, stages.BoundInput{Input: stages.Input{Name: in.Name, Ref: in.Ref, Writable: in.Writable},
			Tree: in.Tree, Single: in.File, Meta: t.Attrs.Meta(), From: in.From})
		p.Inputs = append(p.Inputs, p.In[len(p.In)-1].Input)
	}
	for _, q := range rec.Params {
		p.Params = append(p.Params, stages.Param{Name: q.Name, Type: q.Type, Raw: q.Raw, Canonical: q.Value, Operational: q.Operational})
	}
	for _, v := range rec.Env {
		p.EnvBound = append(p.EnvBound, stages.BoundEnv(v))
	}
	for _, out := range rec.Outputs {
		p.Outputs = append(p.Outputs, stages.Output{Name: out.Name, Path: out.Path, Dir: out.Dir, Optional: out.Optional, Meta: out.Meta})
	}
	return p, nil
}

// makeInput makes the tree of an input anew that a collection took: one that
// stood for a file inside an artifact or a result, where that still is.
func makeInput(ctx context.Context, s *cas.Store, p *stages.Plan, in stages.RecordInput) (*cas.Tree, error) {
	gone := fmt.Errorf("it is no longer in the store: %w", cas.ErrNotFound)
	b, err := p.BindInput(ctx, s, stages.Input{Name: in.Name, Ref: in.From})
	if errors.Is(err, cas.ErrNotFound) || err == nil && b.Tree != in.Tree {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	return s.Tree(ctx, b.Tree)
}

// fillScratch makes the places.
func (r *run) fillScratch(ctx context.Context, dir string) error {
	for _, d := range []string{"in", "out", "work", "logs", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("make the scratch directory: %w", err)
		}
	}
	for _, in := range r.p.In {
		at := filepath.Join(dir, "in", in.Name)
		if r.mount != nil && !in.Writable {
			if err := os.Symlink(filepath.Join(r.mount.Dir, "cas", in.Tree.String()), at); err != nil {
				return fmt.Errorf("make the place of input %s: %w", in.Name, err)
			}
			continue
		}
		if err := r.copyInput(ctx, in, at); err != nil {
			return err
		}
	}
	for _, out := range r.p.Outputs {
		d := filepath.Dir(r.places.Out[out.Name])
		if out.Dir {
			d = r.places.Out[out.Name]
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make the place of output %s: %w", out.Name, err)
		}
	}
	for _, w := range r.p.Work {
		if err := os.Mkdir(r.places.Work[w], 0o755); err != nil {
			return fmt.Errorf("make work directory %s: %w", w, err)
		}
	}
	r.attempt.params = filepath.Join(r.places.Tmp, "curi-params.json")
	r.attempt.meta = filepath.Join(r.places.Tmp, "curi-meta")
	if err := writeParams(r.attempt.params, r.p.Params); err != nil {
		return err
	}
	return os.WriteFile(r.attempt.meta, nil, 0o644)
}

// sayCommand shows the run's own command with these places, ready to paste.
func (r *run) sayCommand() {
	_, shown, err := r.p.Argv(r.places, func(name string) (string, bool) { return "{secret." + name + "}", true })
	if err != nil {
		return // a placeholder of another version of Curi: the shell works without
	}
	r.say("the places of %s are in %s; its command there: %s", r.id, r.places.Root, stages.ShellQuote(shown))
}

func userShell(env environment) string {
	if sh, ok := env.get("SHELL"); ok && filepath.IsAbs(sh) {
		if _, err := os.Stat(sh); err == nil {
			return sh
		}
	}
	return "/bin/sh"
}

// notStarted tells why the command is none, and the status that a shell gives.
func (r *run) notStarted(err error) int {
	out := r.cannotStart(err)
	r.warn("%s", out.reason)
	return out.exit
}

// interact runs the command on the caller's own terminal and returns its
// status. Ctrl-C is the command's; an end of ctx ends it.
func (r *run) interact() (int, error) {
	env := commandEnv(r.env, r.p, r.places, r.attempt, r.argv)
	// What runs here is not the run: a next try need not wait for it.
	env.set("CURI_RUN", r.id+"-shell")
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	r.p.Dir = dir
	path, err := findProgram(r.argv[0], r.p.Dir, env)
	if err != nil {
		return r.notStarted(err), nil
	}
	cmd := &exec.Cmd{Path: path, Args: r.argv, Env: env, Dir: dir, Stdin: os.Stdin, Stdout: r.o.Stdout, Stderr: r.o.Stderr}
	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(sigs)
	if err := cmd.Start(); err != nil {
		return r.notStarted(err), nil
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-sigs:
				if sig != syscall.SIGINT { // which the terminal sends to both
					_ = cmd.Process.Signal(sig)
				}
			case <-done:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(done)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		ws := exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
	return 0, err
}
