package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// fromPath is where the program insists on writing an output.
func (e *execution) fromPath(out stages.Output) string {
	if filepath.IsAbs(out.From) {
		return out.From
	}
	return filepath.Join(e.p.Dir, filepath.FromSlash(out.From))
}

// takeFromPaths makes the paths that outputs are taken from this run's own,
// until the returned function is called: two runs of other keys, such as two
// parameter sets of one stage, would write the same file, and each be given what
// the other wrote. It waits for who has one. What is there already is refused:
// what is taken over afterwards might not be what the command wrote.
func (e *execution) takeFromPaths(ctx context.Context) (free func(), err error) {
	var locks []*cas.Lock
	var stops []func()
	free = func() {
		for i, l := range locks {
			stops[i]()
			_ = l.Release()
		}
	}
	if e.o.Slurm == nil { // else the job itself takes them
		for _, name := range e.fromLocks() {
			lock, err := e.takeFromPath(ctx, name)
			if err != nil {
				free()
				return nil, err
			}
			locks, stops = append(locks, lock), append(stops, e.keepBeating(lock))
			e.o.Held = append(e.o.Held, lock.File())
		}
	}
	if err := e.checkFrom(ctx); err != nil {
		free()
		return nil, err
	}
	return free, nil
}

// fromLocks names the locks of those paths, in an order that all calls keep.
func (e *execution) fromLocks() []string {
	var names []string
	for _, out := range e.p.Outputs {
		if out.From != "" {
			names = append(names, "from/"+cas.Sum([]byte(realPath(e.fromPath(out)))).String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// realPath is a path without links in what exists of its directories.
func realPath(path string) string {
	for dir, rest := filepath.Dir(path), filepath.Base(path); ; dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return path
		}
	}
}

func (e *execution) takeFromPath(ctx context.Context, name string) (*cas.Lock, error) {
	said := ""
	return e.s.Lock(ctx, name, holderPrefix+e.id, func(h cas.Holder) error {
		if outer, ok := e.env.get("CURI_RUN"); ok && h.What == holderPrefix+outer {
			return fmt.Errorf("%w: this call is part of %s, which writes the same path for an output: stage %s would wait for it for ever; let one write elsewhere", ErrRefused, h.What, e.p.Name)
		}
		if h.What != "" && h.What != said {
			said = h.What
			e.say("waiting for %s (process %d on %s), whose output is taken from the same path", h.What, h.PID, h.Host)
		}
		return nil
	})
}

// checkFrom sees that the paths are absent. What a run of this key left there
// whose curi was killed is taken over first, as at the end of one that failed.
func (e *execution) checkFrom(ctx context.Context) error {
	for _, out := range e.p.Outputs {
		if out.From == "" {
			continue
		}
		path := e.fromPath(out)
		fi, err := os.Lstat(path)
		if err == nil {
			var taken bool
			if taken, err = e.takeLost(ctx, fi); taken && err == nil {
				_, err = os.Lstat(path)
			}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		case err != nil:
			return fmt.Errorf("%w: output %s: %w", ErrRefused, out.Name, err)
		default:
			return fmt.Errorf("%w: output %s is to be taken from %s, which is there already: move it away, the command must be the one to make it", ErrRefused, out.Name, path)
		}
	}
	return nil
}

// takeLost takes over what the key's last run left, if fi may be of it: it was
// lost before it could do that itself, and the file is no older.
func (e *execution) takeLost(ctx context.Context, fi fs.FileInfo) (bool, error) {
	if e.o.Slurm != nil {
		return false, nil // nobody knows yet whether it still is written
	}
	r := &run{execution: e, place: e.s.Place(e.p.Key.String())}
	last, err := r.readLast(ctx)
	if err != nil || last.state.Run == "" {
		return false, err
	}
	info, err := stages.FindRun(ctx, e.s, last.state.Run)
	if err != nil || info.Status != stages.Lost || fi.ModTime().Before(info.Started) {
		return false, nil
	}
	e.say("%s was killed: what it left of its outputs is taken over, and kept with its work directories", info.ID)
	return true, r.takeFrom(ctx)
}

// takeFrom takes over the outputs whose paths the program insists on.
func (r *run) takeFrom(ctx context.Context) error {
	for _, out := range r.p.Outputs {
		if out.From == "" {
			continue
		}
		src, dst := r.fromPath(out), r.outPath(out)
		fi, err := os.Lstat(src)
		if errors.Is(err, fs.ErrNotExist) {
			continue // missing, as will be found
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := errors.Join(removeAll(dst), os.MkdirAll(filepath.Dir(dst), 0o755)); err != nil {
			return err
		}
		from := src
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			// best.ckpt → epoch-3.ckpt: elsewhere the link would lead nowhere.
			if real, err := filepath.EvalSymlinks(src); err == nil {
				from = real
			}
		}
		if err == nil && from == src {
			err = os.Rename(src, dst)
		}
		if from != src || errors.Is(err, syscall.EXDEV) {
			// Under another name first: half a copy must not look like an output.
			part := filepath.Join(r.dir(), "tmp", "curi-from-"+out.Name)
			if err = errors.Join(removeAll(part), copyTree(from, part)); err == nil {
				err = os.Rename(part, dst)
			}
			if err == nil {
				err = os.RemoveAll(src)
			}
		}
		if err != nil {
			return fmt.Errorf("take output %s over from %s: %w", out.Name, src, err)
		}
	}
	return nil
}
