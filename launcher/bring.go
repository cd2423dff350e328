package launcher

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"

	"github.com/curi-store/curi/cas"
)

// bringInputs brings what the store lacks of the inputs, but for those that
// the command can read lazily.
func (r *run) bringInputs(ctx context.Context) error {
	for _, l := range r.p.Lacks {
		if r.s.HasTree(l.Tree) || l.Lazy() && r.readsLazily(l.Input) {
			continue
		}
		name := "the standard input"
		if l.Input != "" {
			name = "input " + l.Input
		}
		progress, clear := r.o.Progress("bringing " + name)
		err := r.p.Bring(ctx, r.s, l, progress)
		clear()
		if err != nil {
			return fmt.Errorf("bring %s: %w", name, err)
		}
	}
	return nil
}

// readsLazily reports whether the command reads an input through a mount, and
// is not to have it whole before.
func (r *run) readsLazily(input string) bool {
	if r.o.NoMount || r.o.Prefetch != nil && r.o.Prefetch(input) {
		return false
	}
	for _, in := range r.p.In {
		if in.Name == input {
			return !in.Writable
		}
	}
	return false
}

// hitOutputs is outputsOf for a result that was taken. One that a remote has
// stays there where a mount shows it, as that of the run; else it is brought,
// for there to be paths.
func (e *execution) hitOutputs(ctx context.Context, result cas.Digest, run string) (map[string]Output, error) {
	if e.s.HasTree(result) {
		return e.outputsOf(ctx, result)
	}
	mount := e.lastingMount(ctx)
	if mount != "" && !e.publishes() {
		return e.lazyOutputs(ctx, result, filepath.Join(mount, "runs", run, "out"))
	}
	progress, clear := e.o.Progress("bringing the result of " + run)
	added, err := e.s.Complete(ctx, result, progress)
	clear()
	if err != nil && ctx.Err() == nil && !errors.Is(err, cas.ErrNoSpace) {
		// Work is done again rather than not at all.
		return nil, fmt.Errorf("%s: %w", oneLine(err), cas.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer added.Release()
	return e.outputsOf(ctx, result)
}

// publishes reports whether an output becomes an artifact, whose trees are whole.
func (e *execution) publishes() bool {
	for _, out := range e.p.Outputs {
		if len(out.Publish) > 0 {
			return true
		}
	}
	return false
}

// lazyOutputs describes the outputs of a result that a remote has, which the
// mount shows in dir. None of their bytes is read.
func (e *execution) lazyOutputs(ctx context.Context, result cas.Digest, dir string) (map[string]Output, error) {
	outputs := map[string]Output{}
	root, err := e.s.Tree(ctx, result)
	if err != nil {
		return nil, err
	}
	entry, ok := root.Lookup("out")
	if !ok {
		return outputs, nil
	}
	out, err := e.s.Tree(ctx, entry.Digest)
	if err != nil {
		return nil, err
	}
	for _, x := range out.Entries {
		o := Output{Digest: x.Digest, Tree: x.Digest}
		file, single, ok, err := e.s.SingleFile(ctx, x.Digest)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", x.Name, err)
		}
		if ok {
			o.Digest, o.Bytes, o.Files = single.Digest, single.Size, 1
		} else if err := e.s.Walk(ctx, x.Digest, func(_ string, f cas.Entry) error {
			if f.IsRegular() {
				o.Bytes += f.Size
				o.Files++
			}
			return nil
		}); err != nil {
			return nil, fmt.Errorf("output %s: %w", x.Name, err)
		}
		o.Path = filepath.Join(dir, filepath.FromSlash(path.Join(x.Name, file)))
		outputs[x.Name] = o
	}
	return outputs, nil
}
