package stages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/curi-store/curi/cas"
)

// MetricsOf reads the metrics of a run: of its published outputs, or of what it
// has written so far, or left when it failed. A run without outputs has none.
// See [ReadMetrics] for notes.
func MetricsOf(ctx context.Context, s *cas.Store, r Run) (list []Series, notes []string, err error) {
	fsys, err := outputsOf(ctx, s, r)
	if err == nil && fsys != nil {
		list, notes, err = ReadMetrics(fsys, r.Status.HasResult())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the metrics of %s: %w", r.ID, err)
	}
	return list, notes, nil
}

// outputsOf is where the outputs of a run are, nil if nowhere.
func outputsOf(ctx context.Context, s *cas.Store, r Run) (fs.FS, error) {
	if !r.Tree.IsZero() {
		e, err := s.Lookup(ctx, r.Tree, "out")
		if err == nil {
			return s.FS(ctx, e.Digest)
		}
		if !errors.Is(err, cas.ErrNotFound) {
			return nil, err
		}
	}
	place := s.Place(r.Key)
	dir := filepath.Join(place.Dir(), "old", r.ID, "out")
	if st, err := place.State(ctx); err == nil && st.Run == r.ID {
		dir = filepath.Join(place.Dir(), "out")
	}
	if _, err := os.Stat(dir); err != nil {
		return nil, nil
	}
	return os.DirFS(dir), nil
}
