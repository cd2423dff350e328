package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	left := map[string]cas.Holder{}
	if e.o.Slurm == nil { // else the job itself takes them
		for _, name := range e.fromLocks() {
			lock, err := e.takeFromPath(ctx, name)
			if err != nil {
				free()
				return nil, err
			}
			left[name] = lock.Left()
			locks, stops = append(locks, lock), append(stops, e.keepBeating(lock))
			e.o.Held = append(e.o.Held, lock.File())
		}
	}
	if err := e.checkFrom(ctx, left); err != nil {
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
			names = append(names, e.fromLock(out))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (e *execution) fromLock(out stages.Output) string {
	return "from/" + cas.Sum([]byte(realPath(e.fromPath(out)))).String()
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

// checkFrom sees that the paths are absent. What a run left there that was
// killed before it could take it over is kept aside; left has who died with the
// lock of a path.
func (e *execution) checkFrom(ctx context.Context, left map[string]cas.Holder) error {
	for _, out := range e.p.Outputs {
		if out.From == "" {
			continue
		}
		path := e.fromPath(out)
		fi, err := os.Lstat(path)
		if err == nil {
			var kept bool
			if kept, err = e.keepLeft(ctx, out, fi, left[e.fromLock(out)]); kept {
				continue
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

// keepLeft moves what lies at an output's path into the place, if it is what
// the run left that died with the path's lock; another key's as well.
func (e *execution) keepLeft(ctx context.Context, out stages.Output, fi fs.FileInfo, left cas.Holder) (bool, error) {
	id, ok := strings.CutPrefix(left.What, holderPrefix)
	if !ok || left.PID == 0 {
		return false, nil
	}
	info, err := stages.FindRun(ctx, e.s, id)
	if err != nil || info.Status != stages.Running && info.Status != stages.Lost || fi.ModTime().Before(info.Started) {
		return false, nil
	}
	r := &run{execution: e, place: e.s.Place(e.p.Key.String())}
	if err := r.endOrphans(ctx, id); err != nil {
		return false, err
	}
	path, kept := e.fromPath(out), outPath(filepath.Join(r.dir(), "old", id, "out"), out)
	if err := errors.Join(makeDir(filepath.Dir(kept)), removeAll(kept)); err != nil {
		return false, err
	}
	if err := moveOver(path, path, kept, kept+".part"); err != nil {
		return false, fmt.Errorf("keep what %s left at %s: %w", id, path, err)
	}
	e.say("%s was killed and left %s: it is kept as %s", id, path, kept)
	return true, nil
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
		if err := removeAll(dst); err != nil {
			return err
		}
		from := src
		if err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			// best.ckpt → epoch-3.ckpt: elsewhere the link would lead nowhere.
			if real, err := filepath.EvalSymlinks(src); err == nil {
				from = real
			}
		}
		if err == nil {
			err = moveOver(src, from, dst, filepath.Join(r.dir(), "tmp", "curi-from-"+out.Name))
		}
		if err != nil {
			return fmt.Errorf("take output %s over from %s: %w", out.Name, src, err)
		}
	}
	return nil
}

// moveOver moves src to dst, or what the link src leads to, which then is copied:
// to part first, as half a copy must not look like an output.
func moveOver(src, from, dst, part string) error {
	if from == src {
		if err := os.Rename(src, dst); !errors.Is(err, syscall.EXDEV) {
			return err
		}
	}
	if err := errors.Join(removeAll(part), copyTree(from, part)); err != nil {
		return err
	}
	if err := os.Rename(part, dst); err != nil {
		return err
	}
	return os.RemoveAll(src)
}
