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
func (r *run) findCheckpoint() (string, error) {
	base := filepath.Join(r.place.Dir(), "work")
	// takeWork has seen that nobody writes any more.
	found, err := stages.CheckpointSearch{Dir: base, Work: r.p.Work, Rule: r.p.Resume}.Newest()
	if err != nil || found.Path == "" {
		return "", err
	}
	rel, err := filepath.Rel(base, found.Path)
	if err != nil {
		return "", fmt.Errorf("checkpoint %s: %w", found.Path, err)
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
