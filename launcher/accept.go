package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// acceptance is a call that runs nothing: it publishes what another run wrote
// under the key that the command has now.
type acceptance struct {
	*execution
	from   stages.Run
	record *stages.Record // of that run; nil if it left none
	link   cas.Digest     // of its record.json
	pin    *cas.Pin
}

// accept publishes the outputs of the run o.Accept under the plan's key.
func (e *execution) accept(ctx context.Context) (*Result, error) {
	e.sig = catchSignals(ctx)
	defer e.sig.stop()
	ctx = e.sig.ctx
	target, err := stages.Resolve(ctx, e.s, e.p.Project, e.o.Accept)
	if err != nil {
		return nil, fmt.Errorf("accept %s: %w", e.o.Accept, err)
	}
	if target.Run != nil && target.Name != target.Run.ID {
		return nil, fmt.Errorf("accept %s: that is a part of a run: name the run, %s: %w", e.o.Accept, target.Run.ID, stages.ErrUsage)
	}
	if target.Run == nil {
		return nil, fmt.Errorf("accept %s: it is no run but %s: name a run (curi log lists them): %w", e.o.Accept, target.Name, stages.ErrUsage)
	}
	a := &acceptance{execution: e, from: *target.Run}
	if e.id, err = stages.NewRunID(ctx, e.s, e.p.Name); err != nil {
		return nil, err
	}
	key := e.p.Key.String()
	for _, k := range unique(key, a.from.Key) {
		lock, err := e.s.Lock(ctx, cas.KeyLock(k), holderPrefix+e.id, nil)
		if errors.Is(err, cas.ErrBusy) {
			return nil, fmt.Errorf("%w: accept %s: a call of that stage is running: wait for it, or end it: %w", ErrRefused, a.from.ID, err)
		}
		if err != nil {
			return nil, err
		}
		defer lock.Release()
		defer e.keepBeating(lock)()
	}
	res, err := a.publish(ctx)
	if a.pin != nil {
		_ = a.pin.Release()
	}
	return res, err
}

// unique returns a and b, or only one if they are the same.
func unique(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return []string{a, b}
}

func (a *acceptance) publish(ctx context.Context) (*Result, error) {
	if err := markLost(ctx, a.s, a.from.ID); err != nil {
		return nil, err
	}
	var err error
	if a.from, err = stages.FindRun(ctx, a.s, a.from.ID); err != nil { // as it is now, under the lock
		return nil, fmt.Errorf("accept: %w", err)
	}
	if err := a.readRecord(ctx); err != nil {
		return nil, err
	}
	done, err := a.outputs(ctx)
	defer func() {
		for _, s := range done {
			s.added.Release()
		}
	}()
	if err != nil {
		return nil, err
	}
	info := stages.NewRun(a.p, a.id, 1)
	info.Status, info.Ended, info.Work = stages.Accepted, info.Started, nil
	rec := a.newRecord(info, done)
	tree, release, err := resultTree(ctx, a.s, done, rec, a.nodeLogs(ctx), a.addLog)
	defer release()
	if err != nil {
		return nil, fmt.Errorf("store the record of %s: %w", a.id, err)
	}
	if err := stages.PutRun(ctx, a.s, info, tree); err != nil {
		return nil, err
	}
	result := stages.Result{Run: a.id, Tree: tree}
	a.owe(ctx, result)
	if err := stages.PutResult(ctx, a.s, a.p.Key, result); err != nil {
		return nil, err
	}
	a.showResult(ctx, tree)
	outputs, err := a.outputsOf(ctx, tree)
	if err != nil {
		return nil, err
	}
	if err := a.publishNames(ctx, a.id, outputs); err != nil {
		return nil, err
	}
	a.say("accepted the outputs of %s as %s", a.from.ID, a.id)
	res := a.result(0)
	res.Outputs = outputs
	return res, nil
}

// readRecord reads the record of the accepted run and pins its tree.
func (a *acceptance) readRecord(ctx context.Context) error {
	if a.from.Tree.IsZero() {
		return nil
	}
	var err error
	if a.pin, err = a.s.Pin(ctx, "accept "+a.from.ID, a.from.Tree); err != nil {
		return fmt.Errorf("accept %s: %w", a.from.ID, err)
	}
	entry, err := a.s.Lookup(ctx, a.from.Tree, "record.json")
	if errors.Is(err, cas.ErrNotFound) {
		return nil // it was ended while its outputs were sealed
	}
	if err != nil {
		return fmt.Errorf("accept %s: %w", a.from.ID, err)
	}
	b, err := a.s.OpenBlob(ctx, entry.Digest)
	if err != nil {
		return fmt.Errorf("accept %s: its record: %w", a.from.ID, err)
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	if err != nil {
		return fmt.Errorf("accept %s: its record: %w", a.from.ID, err)
	}
	a.link = entry.Digest
	if a.record, err = stages.ParseRecord(text); err != nil {
		return fmt.Errorf("accept %s: %w", a.from.ID, err)
	}
	return nil
}

func (a *acceptance) newRecord(info stages.Run, done []sealed) *stages.Record {
	rec := stages.NewRecord(a.p)
	rec.Run, rec.Status, rec.Attempt = a.id, stages.Accepted, 1
	rec.Started, rec.Ended, rec.User, rec.Curi = info.Started, info.Ended, userName(), a.o.Curi
	rec.Accepted = &stages.Acceptance{Run: a.from.ID, Key: a.from.Key, Record: a.link, Message: a.o.Message}
	if a.record != nil {
		rec.Argv, rec.Nodes, rec.Seconds = a.record.Argv, a.record.Nodes, a.record.Seconds
	}
	fillOutputs(rec, done)
	return rec
}

// nodeLogs are those of the accepted run, which its tree keeps.
func (a *acceptance) nodeLogs(ctx context.Context) *cas.Added {
	if a.from.Tree.IsZero() {
		return nil
	}
	e, err := a.s.Lookup(ctx, a.from.Tree, nodeLogs)
	if err != nil {
		return nil
	}
	return &cas.Added{Tree: e.Digest, Bytes: e.Size}
}

// addLog stores the log of the accepted run again, as this one's.
func (a *acceptance) addLog(ctx context.Context) (*cas.Added, error) {
	if !a.from.Tree.IsZero() {
		entry, err := a.s.Lookup(ctx, a.from.Tree, "log.txt")
		if err == nil {
			b, err := a.s.OpenBlob(ctx, entry.Digest)
			if err != nil {
				return nil, err
			}
			defer b.Close()
			return a.s.AddReader(ctx, b, "log.txt", cas.AddOptions{})
		}
		if !errors.Is(err, cas.ErrNotFound) {
			return nil, err
		}
	}
	var text []byte
	if st, err := a.s.Place(a.from.Key).State(ctx); err == nil && st.Run == a.from.ID {
		text, _ = os.ReadFile(filepath.Join(a.s.Place(a.from.Key).Dir(), "log.txt"))
	}
	return a.s.AddReader(ctx, bytes.NewReader(text), "log.txt", cas.AddOptions{})
}

// outputs are those of the run: in its result, or what it left in its place
// when it failed. All are found before the first is taken.
func (a *acceptance) outputs(ctx context.Context) (done []sealed, err error) {
	base, err := a.placeOutputs(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.mendLinks(base); err != nil {
		return nil, err
	}
	for _, out := range a.p.Outputs {
		added, err := a.fromTree(ctx, out)
		if err != nil {
			return nil, fmt.Errorf("accept %s: output %s: %w", a.from.ID, out.Name, err)
		}
		if added != nil {
			done = append(done, sealed{out.Name, added})
		} else if !out.Optional && !written(base, out) {
			return nil, fmt.Errorf("%w: accept %s: it left no output %s (%s)", ErrRefused, a.from.ID, out.Name, out.Path)
		}
	}
	for _, out := range a.p.Outputs {
		if slices.ContainsFunc(done, func(s sealed) bool { return s.name == out.Name }) || !written(base, out) {
			continue
		}
		progress, clear := a.o.Progress("storing output " + out.Name)
		o := cas.SealOptions{Attrs: cas.MetaAttrs(out.Meta), Progress: progress}
		if !out.Dir {
			o.As = out.Path
		}
		added, err := a.s.Seal(ctx, outPath(base, out), o)
		clear()
		if err != nil {
			return done, fmt.Errorf("accept %s: output %s: %w", a.from.ID, out.Name, err)
		}
		it := sealed{out.Name, added}
		if a.from, err = keepSealed(context.WithoutCancel(ctx), a.s, a.from, []sealed{it}); err != nil {
			return done, unnamed(ctx, it, err)
		}
		added.Release()
		done = append(done, it)
	}
	return done, nil
}

// mendLinks does for what the run left what sealing would have done.
func (a *acceptance) mendLinks(base string) error {
	if base == "" {
		return nil
	}
	place := a.s.Place(a.from.Key).Dir()
	root, _ := os.ReadFile(filepath.Join(place, rootFile))
	for _, out := range a.p.Outputs {
		err := mendLinks(place, string(root), outPath(base, out))
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("accept %s: output %s: %w", a.from.ID, out.Name, err)
		}
	}
	return nil
}

// placeOutputs is the directory of what a run without success left as
// outputs, closed to writers; "" if there is none.
func (a *acceptance) placeOutputs(ctx context.Context) (string, error) {
	place := a.s.Place(a.from.Key)
	st, err := place.State(ctx)
	if errors.Is(err, cas.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if left := processesOfRun(markOf(a.from.ID)); len(left) > 0 {
		return "", fmt.Errorf("%w: accept %s: %s of that run still lives and may write: end it first", ErrRefused, a.from.ID, names(left))
	}
	// What was cut off while it was sealed is an output as a whole or not at all.
	if err := a.s.PutBack(ctx, realDir(place)); err != nil {
		return "", fmt.Errorf("accept %s: %w", a.from.ID, err)
	}
	if st.Run != a.from.ID {
		return filepath.Join(realDir(place), "old", a.from.ID, "out"), nil
	}
	if err := place.SetSealing(ctx, true); err != nil {
		return "", err
	}
	return filepath.Join(realDir(place), "out"), nil
}

// outPath is where an output lies below the directory of all outputs.
func outPath(base string, out stages.Output) string {
	dir := filepath.Join(base, out.Name)
	if out.Dir {
		return dir
	}
	return filepath.Join(dir, filepath.FromSlash(out.Path))
}

// written reports whether something lies there that can be the output.
func written(base string, out stages.Output) bool {
	if base == "" {
		return false
	}
	path := outPath(base, out)
	fi, err := os.Stat(path)
	if err != nil || fi.IsDir() != out.Dir {
		return false
	}
	return !out.Dir && fi.Size() > 0 || out.Dir && holds(path)
}

// fromTree takes an output out of the run's tree; nil if it is not there.
func (a *acceptance) fromTree(ctx context.Context, out stages.Output) (*cas.Added, error) {
	if a.from.Tree.IsZero() {
		return nil, nil
	}
	entry, err := a.s.Lookup(ctx, a.from.Tree, "out/"+out.Name)
	if errors.Is(err, cas.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	root, err := a.s.Tree(ctx, entry.Digest)
	if err != nil {
		return nil, err
	}
	file, _, single, err := a.s.SingleFile(ctx, entry.Digest)
	if err != nil {
		return nil, err
	}
	if single == out.Dir || single && file != out.Path {
		return nil, fmt.Errorf("%w: it is %s there, and declared as %s now", ErrRefused, shape(single, file), shape(!out.Dir, out.Path))
	}
	changed := *root
	changed.Attrs = a.metaNow(out, root.Attrs)
	added, err := a.s.AddTree(ctx, &changed)
	if err != nil {
		return nil, err
	}
	desc, err := a.describe(ctx, added.Tree, "/")
	if err != nil {
		added.Release()
		return nil, err
	}
	added.Digest, added.Single, added.Bytes, added.Files = desc.Digest, single, desc.Bytes, desc.Files
	return added, nil
}

func shape(single bool, file string) string {
	if single {
		return "the file " + file
	}
	return "a directory"
}

// metaNow is the metadata of an accepted output: what the run's program set
// stays; what its call declared gives way to what this call declares.
func (a *acceptance) metaNow(out stages.Output, attrs cas.Attrs) cas.Attrs {
	var before map[string]string
	if a.record != nil {
		if o := a.record.Output(out.Name); o != nil {
			before = o.Meta
		}
	}
	declared := func(k, v string) bool { old, ok := before[k]; return ok && old == v }
	for k, v := range attrs.Meta() {
		if _, still := out.Meta[k]; declared(k, v) && !still {
			attrs = attrs.Without(cas.MetaPrefix + k)
		}
	}
	for k, v := range out.Meta {
		if old, ok := attrs.Get(cas.MetaPrefix + k); !ok || declared(k, old) {
			attrs = attrs.With(cas.MetaPrefix+k, v)
		}
	}
	return attrs
}

// showResult makes the mounts show the result at the key's places.
func (a *acceptance) showResult(ctx context.Context, tree cas.Digest) {
	place := a.s.Place(a.p.Key.String())
	st := cas.PlaceState{Key: a.p.Key.String(), Run: a.id, Inputs: map[string]cas.Digest{}, Result: tree}
	for _, in := range a.p.In {
		st.Inputs[in.Name] = in.Tree
	}
	err := place.SetState(ctx, st)
	if err == nil {
		err = place.SetSealing(ctx, true)
	}
	if err == nil {
		err = a.s.Refresh(ctx)
	}
	if err != nil {
		a.o.Log.Warn("show the accepted result", "run", a.id, "error", err)
	}
}
