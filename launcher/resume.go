package launcher

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// findCheckpoint returns {resume}: the newest complete checkpoint in the work
// directories, as a path below {root}; "" if there is none.
func (r *run) findCheckpoint(ctx context.Context) (string, error) {
	base := filepath.Join(r.place.Dir(), "work")
	var dirs []string
	for _, w := range r.p.Work {
		dirs = append(dirs, filepath.Join(base, w))
	}
	// takeWork has seen that nobody writes any more.
	found, err := stages.NewestCheckpoint(dirs, func(string) bool { return false })
	if err != nil || found == "" {
		return "", err
	}
	rel, err := filepath.Rel(base, found)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", found, err)
	}
	return filepath.Join(r.places.Root, "work", rel), nil
}

// resumedFrom names the record of the run whose work directories this one
// goes on with.
func (r *run) resumedFrom(ctx context.Context, last lastTry) *stages.RecordLink {
	if !r.attempt.resumed || last.state.Run == "" {
		return nil
	}
	link := &stages.RecordLink{Run: last.state.Run}
	info, err := stages.FindRun(ctx, r.s, last.state.Run)
	if err != nil || info.Tree.IsZero() {
		return link // a lost run has no record
	}
	entry, err := r.s.Lookup(ctx, info.Tree, "record.json")
	if err != nil {
		if !errors.Is(err, cas.ErrNotFound) {
			r.o.Log.Warn("read the record of the last run", "run", info.ID, "error", err)
		}
		return link
	}
	link.Record = entry.Digest
	return link
}
