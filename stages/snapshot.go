package stages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Snapshot is a copy of the work directories of a key that a run made when a
// checkpoint was complete: the ref work/<key>/<n>. Its tree has an entry for
// each work directory.
type Snapshot struct {
	Run        string    `json:"run"`
	Attempt    int       `json:"attempt"`    // of that run
	Checkpoint string    `json:"checkpoint"` // NAME/PATH of a work directory
	Time       time.Time `json:"time"`       // when the checkpoint's content was last changed

	N    int        `json:"-"` // the newest has the highest
	Tree cas.Digest `json:"-"`
}

// keptSnapshots is how many of a key stay.
const keptSnapshots = 2

func snapshotRefs(k Key) string { return "work/" + k.String() + "/" }

// Snapshots lists those of a key, newest first. One that cannot be read is
// passed over.
func Snapshots(ctx context.Context, s *cas.Store, k Key) ([]Snapshot, error) {
	var list []Snapshot
	for ref, err := range s.Refs(ctx, snapshotRefs(k)) {
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		n, nerr := strconv.Atoi(strings.TrimPrefix(ref.Name, snapshotRefs(k)))
		if err != nil || nerr != nil || n < 1 {
			continue
		}
		snap := Snapshot{N: n, Tree: ref.Tree}
		if json.Unmarshal(ref.Info, &snap) != nil || snap.Run == "" {
			continue
		}
		list = append(list, snap)
	}
	slices.SortFunc(list, func(a, b Snapshot) int { return b.N - a.N })
	return list, nil
}

// PutSnapshot names a snapshot as the newest of its key, and gives up all but
// the two newest. The caller holds the key's lock.
func PutSnapshot(ctx context.Context, s *cas.Store, k Key, snap Snapshot) (Snapshot, error) {
	old, err := Snapshots(ctx, s, k)
	if err != nil {
		return snap, err
	}
	snap.N = 1
	if len(old) > 0 {
		snap.N = old[0].N + 1
	}
	info, err := json.Marshal(snap)
	if err != nil {
		return snap, err
	}
	if err := s.SetRef(ctx, cas.Ref{Name: snapshotRefs(k) + strconv.Itoa(snap.N), Tree: snap.Tree, Info: info}); err != nil {
		return snap, fmt.Errorf("name the snapshot of the work directories: %w", err)
	}
	if len(old) >= keptSnapshots {
		err = dropSnapshots(ctx, s, k, old[keptSnapshots-1:])
	}
	return snap, err
}

// DropSnapshots gives up all snapshots of a key: its run has ended well.
func DropSnapshots(ctx context.Context, s *cas.Store, k Key) error {
	all, err := Snapshots(ctx, s, k)
	if err != nil {
		return err
	}
	return dropSnapshots(ctx, s, k, all)
}

func dropSnapshots(ctx context.Context, s *cas.Store, k Key, list []Snapshot) error {
	for _, snap := range list {
		if err := s.DeleteRef(ctx, snapshotRefs(k)+strconv.Itoa(snap.N)); err != nil && !errors.Is(err, cas.ErrNotFound) {
			return fmt.Errorf("give up a snapshot of work directories: %w", err)
		}
	}
	return nil
}
