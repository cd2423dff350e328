package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// hit takes the cached result of the key. Both results are nil without one.
func (e *execution) hit(ctx context.Context) (*Result, error) {
	found, err := stages.FindResult(ctx, e.s, e.p.Key)
	if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
		if _, rerr := e.s.Ref(ctx, "stage/"+e.p.Key.String()); !errors.Is(rerr, cas.ErrNotFound) {
			e.sayGone(oneLine(err))
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for a result of stage %s: %w", e.p.Name, err)
	}
	// First: from now on no collection takes it for unused.
	run, ok := e.note(ctx, found)
	if !ok {
		return nil, nil
	}
	outputs, err := e.hitOutputs(ctx, found.Tree, run)
	if errors.Is(err, cas.ErrNotFound) {
		e.sayGone(fmt.Sprintf("the result of %s is there no more (%s)", found.Run, oneLine(err)))
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the result of %s: %w", found.Run, err)
	}
	if err := e.publishNames(ctx, found.Run, outputs); err != nil {
		return nil, err
	}
	e.id = found.Run
	res := e.result(0)
	res.Cached, res.Outputs = true, outputs
	e.say("stage %s is cached: the result of %s", e.p.Name, found.Run)
	return res, nil
}

// note notes that a result was taken, and returns what its run is called in
// this store; false if there is no result any more.
func (e *execution) note(ctx context.Context, found stages.Result) (run string, ok bool) {
	run, err := stages.NoteHit(ctx, e.s, e.p, found)
	if err == nil {
		return run, true
	}
	if _, rerr := e.s.Ref(ctx, "stage/"+e.p.Key.String()); errors.Is(rerr, cas.ErrNotFound) {
		return run, false // it was just collected, or withdrawn
	}
	// A store that cannot be written to still has its results.
	level := slog.LevelWarn
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		level = slog.LevelDebug // nobody expects it to be
	}
	e.o.Log.Log(ctx, level, "note that a result was used", "run", found.Run, "error", err)
	return run, true
}

// sayGone says once why a result that was there is none.
func (e *execution) sayGone(why string) {
	if why != e.gone {
		e.gone = why
		e.say("%s; the stage runs again", why)
	}
}

// outputsOf describes the outputs in a result tree.
func (e *execution) outputsOf(ctx context.Context, result cas.Digest) (map[string]Output, error) {
	root, err := e.s.Tree(ctx, result)
	if err != nil {
		return nil, err
	}
	outputs := map[string]Output{}
	entry, ok := root.Lookup("out")
	if !ok {
		return outputs, nil
	}
	out, err := e.s.Tree(ctx, entry.Digest)
	if err != nil {
		return nil, err
	}
	mount := e.lastingMount(ctx)
	for _, entry := range out.Entries {
		o, err := e.describe(ctx, entry.Digest, mount)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", entry.Name, err)
		}
		outputs[entry.Name] = o
	}
	return outputs, nil
}

// lookedFor is how many files of an output are looked for on disk, so that the
// cost of a hit stays bounded.
const lookedFor = 1000

// describe counts what is in an output's tree and finds a path for it: in a
// mount that stays, else in a view that the store keeps.
func (e *execution) describe(ctx context.Context, tree cas.Digest, mount string) (Output, error) {
	o := Output{Digest: tree, Tree: tree}
	file, entry, single, err := e.s.SingleFile(ctx, tree)
	if err != nil {
		return o, err
	}
	if single {
		o.Digest, o.Bytes, o.Files = entry.Digest, entry.Size, 1
	} else {
		err = e.s.Walk(ctx, tree, func(path string, f cas.Entry) error {
			if f.Kind == cas.KindFile || f.Kind == cas.KindExecutable {
				if o.Files < lookedFor && !e.s.HasWholeBlob(f.Digest, f.Size) {
					return fmt.Errorf("%s: blob %s is missing or cut off: %w", path, f.Digest, cas.ErrNotFound)
				}
				o.Bytes += f.Size
				o.Files++
			}
			return nil
		})
		if err != nil {
			return o, err
		}
	}
	if mount != "" {
		o.Path = filepath.Join(mount, "cas", tree.String(), filepath.FromSlash(file))
		return o, nil
	}
	o.Path, err = e.s.PathOf(ctx, tree, file)
	return o, err
}

// lastingMount is the directory of a mount that was made to stay, or "".
func (e *execution) lastingMount(ctx context.Context) string {
	live, _, err := e.s.Mounts(ctx)
	if err != nil {
		return ""
	}
	for _, m := range live {
		if !m.Auto && usable(m) {
			return m.Dir
		}
	}
	return ""
}

// publishNames makes each output the newest version of the artifacts that it
// is to be published as; one that already is stays as it is.
func (e *execution) publishNames(ctx context.Context, run string, outputs map[string]Output) error {
	for _, out := range e.p.Outputs {
		o, ok := outputs[out.Name]
		if !ok {
			continue
		}
		for _, name := range out.Publish {
			newest, err := e.s.Version(ctx, name, "")
			if err == nil && newest.Tree == o.Tree {
				continue
			}
			v, isNew, err := e.s.Publish(ctx, name, o.Tree, cas.PublishOptions{MadeBy: run + "." + out.Name})
			if err != nil {
				return fmt.Errorf("publish output %s as %s: %w", out.Name, name, err)
			}
			if isNew {
				e.say("published %s as %s@%d", out.Name, name, v.N)
			}
		}
	}
	return nil
}
