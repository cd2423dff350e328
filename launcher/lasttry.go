package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// orphanTime is how long the processes of a lost run may take to die once they
// are killed.
const orphanTime = 10 * time.Second

// lastTry is what an earlier run of the same key left.
type lastTry struct {
	state cas.PlaceState
	root  string
}

// readLast settles what an earlier run of this key left unsettled. That the
// key's lock is held here means that its curi and its guard are gone.
func (r *run) readLast(ctx context.Context) (lastTry, error) {
	st, err := r.place.State(ctx)
	if errors.Is(err, cas.ErrNotFound) || errors.Is(err, cas.ErrCorrupt) {
		return lastTry{}, nil
	}
	if err != nil {
		return lastTry{}, err
	}
	if err := markLost(ctx, r.s, st.Run); err != nil {
		return lastTry{}, err
	}
	if err := r.endOrphans(ctx, st.Run); err != nil {
		return lastTry{}, err
	}
	root, _ := os.ReadFile(filepath.Join(r.place.Dir(), rootFile))
	return lastTry{st, string(root)}, nil
}

// MarkLost looks whether a run that says it is running still does: where
// nobody holds its key's lock, its curi and its guard are gone, and the run is
// marked as lost. It returns the run as it is now, and waits for nobody.
func MarkLost(ctx context.Context, s *cas.Store, r stages.Run) (stages.Run, error) {
	if r.Status != stages.Running {
		return r, nil
	}
	lock, err := s.Lock(ctx, cas.KeyLock(r.Key), "look after "+r.ID, nil)
	if errors.Is(err, cas.ErrBusy) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("look whether %s still runs: %w", r.ID, err)
	}
	defer lock.Release()
	if err := markLost(ctx, s, r.ID); err != nil {
		return r, err
	}
	return stages.FindRun(ctx, s, r.ID)
}

// markLost marks a run that says it is running as lost. The caller holds the
// lock of its key.
func markLost(ctx context.Context, s *cas.Store, id string) error {
	if id == "" {
		return nil
	}
	info, err := stages.FindRun(ctx, s, id)
	if errors.Is(err, cas.ErrNotFound) || err == nil && info.Status != stages.Running {
		return nil
	}
	if err != nil {
		return err
	}
	info.Status, info.Exit, info.Ended = stages.Lost, 128+int(syscall.SIGKILL), time.Now().UTC()
	if err := stages.PutRun(ctx, s, info, info.Tree); err != nil {
		return err
	}
	fault.At(fault.LostMarked)
	place := s.Place(info.Key)
	st, err := place.State(ctx)
	if err != nil || st.Run != id || !st.Active {
		return nil // what the place says is not of this run
	}
	st.Active = false
	if err := place.SetSealing(ctx, true); err != nil {
		return err
	}
	if err := place.SetState(ctx, st); err != nil {
		return err
	}
	return s.Refresh(ctx)
}

// endOrphans kills what lives of the place's last run: its curi and its guard,
// who would have done so, were killed at once, and it could write into what the
// next run reads.
func (r *run) endOrphans(ctx context.Context, id string) error {
	deadline := time.Now().Add(orphanTime)
	for said := false; ; {
		left := processesOfRun(markOf(id))
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: %s of the lost run %s cannot be killed and may write into its work directories: end it (process %d) and run this again",
				ErrRefused, names(left), id, left[0].PID)
		}
		if !said {
			r.warn("killing what is left of the lost run %s: %s", id, names(left))
			said = true
		}
		signalAll(left, syscall.SIGKILL)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// names words processes for a person.
func names(ps []process) string {
	var s []string
	for i, p := range ps {
		if i == 8 {
			s = append(s, fmt.Sprintf("and %d more", len(ps)-i))
			break
		}
		s = append(s, fmt.Sprintf("%s (process %d)", p.Name, p.PID))
	}
	return strings.Join(s, ", ")
}
