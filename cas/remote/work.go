package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// workRoom has a series for each stage key whose run has not ended well: the
// snapshots of its work directories.
const workRoom = "refs/work/"

// keptWork is how many of a key stay.
const keptWork = 2

// WorkInfo is what a ref of a snapshot says.
type WorkInfo struct {
	RefInfo
	Attempt    int       `json:"attempt"`
	Checkpoint string    `json:"checkpoint"` // NAME/PATH of a work directory
	Changed    time.Time `json:"changed"`    // when the checkpoint's content was last changed
}

func (r *Remote) work(key string) (series, error) {
	if _, err := cas.ParseDigest(key); err != nil {
		return series{}, fmt.Errorf("key %q: %w", key, cas.ErrInvalid)
	}
	return series{r.b, workRoom + key}, nil
}

// Work is the newest snapshot of the work directories of a key;
// [cas.ErrNotFound].
func (r *Remote) Work(ctx context.Context, key string) (WorkInfo, error) {
	s, err := r.work(key)
	if err != nil {
		return WorkInfo{}, err
	}
	ns, err := s.numbers(ctx)
	if err != nil {
		return WorkInfo{}, err
	}
	for _, n := range slices.Backward(ns) {
		b, err := s.read(ctx, n)
		if errors.Is(err, cas.ErrNotFound) {
			continue // given up since it was listed
		}
		var info WorkInfo
		if err == nil {
			info.RefInfo, err = parseRef(s.key(n), b)
		}
		if err == nil {
			if err = json.Unmarshal(b, &info); err != nil {
				err = fmt.Errorf("%s: %w: %w", s.key(n), err, cas.ErrCorrupt)
			}
		}
		return info, err
	}
	return WorkInfo{}, fmt.Errorf("work directories of key %s: %w", key, cas.ErrNotFound)
}

// PublishWork makes info.Tree, whose recipe is there, the newest snapshot of a
// key, and gives up all but the two newest.
func (r *Remote) PublishWork(ctx context.Context, key string, info WorkInfo) error {
	s, err := r.work(key)
	if err != nil {
		return err
	}
	info.Token = newToken()
	info.Time = time.Now().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(info)
	if err != nil {
		return err
	}
	for {
		ns, err := s.current(ctx)
		if err != nil {
			return err
		}
		next := 1
		if len(ns) > 0 {
			next = ns[len(ns)-1] + 1
		}
		err = s.create(ctx, next, line)
		if errors.Is(err, cas.ErrExists) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
		return dropWork(ctx, s, ns[:max(0, len(ns)-keptWork+1)])
	}
}

// DropWork gives up the snapshots of a key: its run has ended well.
func (r *Remote) DropWork(ctx context.Context, key string) error {
	s, err := r.work(key)
	if err != nil {
		return err
	}
	ns, err := s.numbers(ctx)
	if err != nil {
		return err
	}
	return dropWork(ctx, s, ns)
}

func dropWork(ctx context.Context, s series, ns []int) error {
	for _, n := range ns {
		if err := s.b.Delete(ctx, s.key(n)); err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	return nil
}

// sweepWork gives up snapshots of keys that have a result, which whoever
// published that did not live to do: those that are older than a grace, as a
// run may be about to make a result anew.
func (r *Remote) sweepWork(ctx context.Context, now time.Time, grace time.Duration, done *Collected) error {
	old := now.Add(-grace)
	ended := map[string]bool{}
	for o, err := range r.b.List(ctx, workRoom, "") {
		if err != nil {
			return err
		}
		key, n, ok := strings.Cut(strings.TrimPrefix(o.Key, workRoom), "/")
		if !ok || seriesNumber(n) == 0 || o.ModTime.After(old) {
			continue
		}
		if _, asked := ended[key]; !asked {
			_, err := r.b.Stat(ctx, stageRoom+key)
			if err != nil && !errors.Is(err, cas.ErrNotFound) {
				return err
			}
			ended[key] = err == nil
		}
		if !ended[key] {
			continue
		}
		if err := r.b.Delete(ctx, o.Key); err != nil && !errors.Is(err, cas.ErrNotFound) {
			return err
		}
		done.Removed++
		done.RemovedBytes += o.Size
	}
	return nil
}
