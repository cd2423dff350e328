package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// keepSealed makes the ref of a run name the outputs that were sealed so far:
// their files have left the place, and without a name the next collection
// would take them. It returns the run with its new tree. Whatever happens to
// this process afterwards, --accept finds them there.
func keepSealed(ctx context.Context, s *cas.Store, run stages.Run, done []sealed) (stages.Run, error) {
	root, outs := new(cas.Tree), new(cas.Tree)
	if !run.Tree.IsZero() {
		t, err := s.Tree(ctx, run.Tree)
		if err != nil {
			return run, err
		}
		*root = *t
		if entry, ok := t.Lookup("out"); ok {
			if outs, err = s.Tree(ctx, entry.Digest); err != nil {
				return run, err
			}
		}
	}
	out, err := addOutputs(ctx, s, outs.Entries, done)
	if err != nil {
		return run, err
	}
	defer out.Release()
	root.Entries = withEntry(root.Entries, cas.Entry{Name: "out", Kind: cas.KindDir, Size: out.Bytes, Digest: out.Tree})
	whole, err := s.AddTree(ctx, root)
	if err != nil {
		return run, err
	}
	defer whole.Release()
	if err := stages.PutRun(ctx, s, run, whole.Tree); err != nil {
		return run, err
	}
	run.Tree = whole.Tree
	return run, nil
}

// addOutputs stores the tree of a result's outputs: those in entries, and done.
func addOutputs(ctx context.Context, s *cas.Store, entries []cas.Entry, done []sealed) (*cas.Added, error) {
	outs := &cas.Tree{Entries: entries}
	for _, o := range done {
		outs.Entries = withEntry(outs.Entries, cas.Entry{Name: o.name, Kind: cas.KindDir, Size: o.added.Bytes, Digest: o.added.Tree})
	}
	return s.AddTree(ctx, outs)
}

// withEntry adds an entry in its place, or replaces the one of that name.
func withEntry(entries []cas.Entry, e cas.Entry) []cas.Entry {
	entries = slices.DeleteFunc(slices.Clone(entries), func(o cas.Entry) bool { return o.Name == e.Name })
	entries = append(entries, e)
	slices.SortFunc(entries, func(a, b cas.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

// reserved is how much space is kept free from before the first output is
// taken until it has a name, in bytes: a few small files.
const reserved = 256 << 10

// reserve takes that space. A full disk shows here, while the outputs are
// still where the command left them.
func (r *run) reserve() (free func(), err error) {
	path := filepath.Join(r.dir(), "tmp", "curi-reserve")
	if r.o.Places != "" { // perhaps on another filesystem: names are given in the store
		path = filepath.Join(r.s.Dir(), "staging", "curi-reserve-"+r.id)
	}
	_ = syscall.Unlink(path) // should the command have made it a link to anywhere
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(make([]byte, reserved))
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("make sure that there is space to name the outputs: %w", err)
	}
	return func() { _ = os.Remove(path) }, nil
}

// unnamed puts an output back that was sealed and could not be named. Should
// that fail as well, the next run of the key tries again.
func unnamed(ctx context.Context, o sealed, err error) error {
	return errors.Join(fmt.Errorf("name output %s: %w", o.name, err), o.added.Undo(ctx))
}

// sayKept tells how to go on with outputs that were sealed and not published.
func (r *run) sayKept(done []sealed) {
	if len(done) == 0 || r.info.Tree.IsZero() {
		return
	}
	var list []string
	for _, o := range done {
		list = append(list, o.name)
	}
	if r.lead != nil {
		r.warn("  sealed and kept, not published: %s, as node 0 wrote it (curi show %s.%s)", strings.Join(list, ", "), r.id, list[0])
		return
	}
	r.warn("  sealed and kept, not published: %s; the same command with --accept %s publishes what is there", strings.Join(list, ", "), r.id)
}
