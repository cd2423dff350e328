package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// stagingAge is how long staging that nobody holds is left alone: a machine
// that shares the store may be slow, not dead.
const stagingAge = day

// policy is what `curi gc` may take.
type policy struct {
	keep, keepWork   time.Duration
	maxSize, minFree int64 // 0: no limit
}

// placeAge is keepWork as cas wants it, for which 0 is for ever.
func (p policy) placeAge() time.Duration { return max(p.keepWork, 1) }

// collect removes what the policy gives up and whatever nothing needs then.
//
// An unnamed result is a stage/<key> whose run no version of an artifact came
// from, and the tree of a run that is no such result. A run itself stays in
// the log: only its tree is given up.
func collect(ctx context.Context, s *cas.Store, p policy, dry bool, progress cas.Progress) (collectedJSON, error) {
	out := collectedJSON{DryRun: dry}
	named, err := namedRuns(ctx, s)
	if err != nil {
		return out, err
	}
	lastUse, err := unnamedResults(ctx, s, named)
	if err != nil {
		return out, err
	}
	old := fault.Now().Add(-p.keep)
	order := slices.SortedFunc(maps.Keys(lastUse), func(x, y string) int { return lastUse[x].Compare(lastUse[y]) })
	n := sort.Search(len(order), func(i int) bool { return lastUse[order[i]].After(old) })
	if p.maxSize > 0 || p.minFree > 0 {
		if n, err = enough(ctx, s, p, order, n); err != nil {
			return out, err
		}
	}
	expired := map[string]bool{}
	for _, run := range order[:n] {
		expired[run] = true
	}
	if !dry {
		if err := dropTrees(ctx, s, expired); err != nil {
			return out, err
		}
	}
	o := p.options(expired, lastUse)
	o.DryRun, o.Progress = dry, progress
	if out.CollectReport, err = s.Collect(ctx, o); err != nil {
		return out, err
	}
	if !dry {
		if err := restoreTrees(ctx, s, expired); err != nil {
			return out, err
		}
	}
	out.RemovedResults = int64(n)
	return out, nil
}

// options of a collection that gives up the results of some runs.
func (p policy) options(expired map[string]bool, lastUse map[string]time.Time) cas.CollectOptions {
	old, oldWork := time.Now().Add(-p.keep), time.Now().Add(-p.keepWork)
	return cas.CollectOptions{
		PlaceAge: p.placeAge(), StagingAge: stagingAge, PartialAge: max(p.keep, time.Nanosecond),
		Expire: func(r cas.Ref, used time.Time) bool {
			if strings.HasPrefix(r.Name, pulledRefs) {
				return used.Before(old) // a pull brings it again
			}
			if strings.HasPrefix(r.Name, "work/") {
				return used.Before(oldWork) // as the work directories themselves
			}
			run := runOf(r)
			// Somebody took the result since it was looked at.
			if !expired[run] || used.After(lastUse[run]) {
				return false
			}
			return strings.HasPrefix(r.Name, "stage/") || strings.HasPrefix(r.Name, "part/") || strings.HasPrefix(r.Name, "run/") && !r.Tree.IsZero()
		},
	}
}

// runOf is the run that a ref belongs to, or "".
func runOf(r cas.Ref) string {
	if id, ok := strings.CutPrefix(r.Name, "run/"); ok {
		return id
	}
	if part, ok := strings.CutPrefix(r.Name, "part/"); ok {
		id, _, _ := strings.Cut(part, "/")
		return id
	}
	if !strings.HasPrefix(r.Name, "stage/") {
		return ""
	}
	var info struct {
		Run string `json:"run"`
	}
	if json.Unmarshal(r.Info, &info) != nil {
		return ""
	}
	return info.Run
}

// namedRuns are the runs that a version of an artifact came from.
func namedRuns(ctx context.Context, s *cas.Store) (map[string]bool, error) {
	named := map[string]bool{}
	for v, err := range s.Artifacts(ctx, "") {
		if err != nil {
			return nil, fmt.Errorf("looking for what is named (nothing was removed): %w", err)
		}
		all, err := s.Versions(ctx, v.Name)
		if isNotFound(err) {
			continue // it was just removed
		}
		if err != nil {
			return nil, err
		}
		for _, w := range all {
			run, _, _ := strings.Cut(w.MadeBy, ".")
			named[run] = true
		}
	}
	return named, nil
}

// unnamedResults finds the runs whose trees may go, with their last use.
func unnamedResults(ctx context.Context, s *cas.Store, named map[string]bool) (map[string]time.Time, error) {
	lastUse := map[string]time.Time{}
	busy := map[string]bool{}
	for r, err := range stages.Runs(ctx, s) {
		if err != nil {
			return nil, fmt.Errorf("reading the runs (nothing was removed): %w", err)
		}
		// A result that differs from one elsewhere is evidence, until it is withdrawn.
		if r.Status == stages.Running || r.Status == stages.Queued || r.Status.HasResult() && len(r.Differs) > 0 {
			busy[r.ID] = true
		}
	}
	// A dry collection tells the last use of every ref and removes nothing.
	_, err := s.Collect(ctx, cas.CollectOptions{DryRun: true, Expire: func(r cas.Ref, used time.Time) bool {
		run := runOf(r)
		if run != "" && !r.Tree.IsZero() && !named[run] && !busy[run] && used.After(lastUse[run]) {
			lastUse[run] = used
		}
		return false
	}})
	return lastUse, err
}

// enough finds how many results must go, n at least, so that the store and
// the free space are as the policy wants: fewer than all if that suffices.
func enough(ctx context.Context, s *cas.Store, p policy, order []string, n int) (int, error) {
	var used int64
	if p.maxSize > 0 {
		used = diskBytes(filepath.Join(s.Dir(), "blobs"))
	}
	free := int64(0)
	if p.minFree > 0 {
		facts, err := s.Facts(ctx)
		if err != nil {
			return 0, fmt.Errorf("asking how much space is free at %s: %w", s.Dir(), err)
		}
		free = facts.Free
	}
	var failed error
	k := sort.Search(len(order)-n, func(i int) bool {
		expired := map[string]bool{}
		for _, run := range order[:n+i] {
			expired[run] = true
		}
		r, err := s.Collect(ctx, cas.CollectOptions{DryRun: true, PlaceAge: p.placeAge(), StagingAge: stagingAge,
			Expire: func(r cas.Ref, _ time.Time) bool { return expired[runOf(r)] }})
		if err != nil {
			failed = err
			return true
		}
		return (p.maxSize == 0 || used-r.RemovedBytes <= p.maxSize) && (p.minFree == 0 || free+r.RemovedBytes >= p.minFree)
	})
	return n + k, failed
}

// dropTrees gives up the trees of expired runs and keeps the runs in the log.
func dropTrees(ctx context.Context, s *cas.Store, expired map[string]bool) error {
	for run := range expired {
		ref, err := s.Ref(ctx, "run/"+run)
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		ref.Tree = cas.Digest{}
		if err := s.SetRef(ctx, ref); err != nil {
			return fmt.Errorf("giving up the result of %s: %w", run, err)
		}
	}
	return nil
}

// restoreTrees gives runs their trees back whose result somebody took while
// it was being collected: stage/<key> still names it.
func restoreTrees(ctx context.Context, s *cas.Store, expired map[string]bool) error {
	for ref, err := range s.Refs(ctx, "stage/") {
		run := runOf(ref)
		if err != nil || !expired[run] {
			continue
		}
		r, err := s.Ref(ctx, "run/"+run)
		if err != nil || !r.Tree.IsZero() {
			continue
		}
		r.Tree = ref.Tree
		if err := s.SetRef(ctx, r); err != nil {
			return fmt.Errorf("keeping the result of %s: %w", run, err)
		}
	}
	return nil
}
