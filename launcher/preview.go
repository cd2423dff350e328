package launcher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// previewRun stands for the id that a run gets only when it begins.
const previewRun = "dryrun"

// Preview returns the command that Exec would start now, secrets by name. It
// makes nothing and waits for nobody. Only the run's id is not the one that
// Exec would give.
func Preview(ctx context.Context, s *cas.Store, p *stages.Plan, o Options) ([]string, error) {
	o.setDefaults()
	e := &execution{s: s, p: p, o: &o, env: environment(o.Environ), id: p.Name + "-" + previewRun}
	r := &run{execution: e, place: s.Place(p.Key.String())}
	root, err := r.previewRoot(ctx)
	if err != nil {
		return nil, err
	}
	r.places = r.paths(root)
	work := filepath.Join(r.place.Dir(), "work")
	if (o.Fresh || !holds(work)) && p.ResumeRun.ID != "" {
		work = filepath.Join(s.Place(p.ResumeRun.Key).Dir(), "work") // what would be copied
	} else if o.Fresh {
		work = ""
	}
	if work != "" {
		if r.places.Resume, err = r.findCheckpoint(work); err != nil {
			return nil, err
		}
	}
	if err := r.fillArgv(); err != nil {
		return nil, err
	}
	return r.shown, nil
}

// previewRoot is the {root} that Exec would use.
func (r *run) previewRoot(ctx context.Context) (string, error) {
	key := r.p.Key.String()
	if r.o.Places != "" {
		return r.placesRoot(), nil
	}
	if r.o.NoMount {
		if root := rootIn(r.s.Dir(), key); shortEnough(root) {
			return root, nil
		}
		return rootIn(plainLink(r.s), key), nil
	}
	live, _, err := r.s.Mounts(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrMount, err)
	}
	last, _ := os.ReadFile(filepath.Join(r.place.Dir(), rootFile))
	if m := r.pickMount(live, string(last)); m != nil {
		return rootIn(m.Dir, key), nil
	}
	return rootIn(autoDir(r.s), key), nil
}
