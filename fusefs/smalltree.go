//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"sync"

	"github.com/curi-store/curi/cas"
)

// What makes a tree one of small files, whose opening costs more than their
// reading. Below smallTreeFiles nobody would notice; a mean above
// smallTreeMean, or one file above smallTreeLargest, is better off with
// passthrough, which neither copies nor caches a second time.
const (
	smallTreeFiles   = 100
	smallTreeMean    = 128 << 10 // bytes
	smallTreeLargest = 16 << 20  // bytes
)

// treeShape is what a whole tree is made of.
type treeShape struct {
	files   int64
	bytes   int64
	largest int64 // bytes of the largest file
	widest  int   // entries of the largest directory
}

func (s treeShape) small() bool {
	return s.files >= smallTreeFiles && s.bytes <= s.files*smallTreeMean &&
		s.largest <= smallTreeLargest && s.widest <= maxEntries
}

// maxCounted keeps the sums from running over: a few directories that hold each
// other many times over may show any number of files.
const maxCounted = 1 << 40

func (s *treeShape) add(t treeShape) {
	s.files = min(s.files+t.files, maxCounted)
	s.bytes = min(s.bytes+min(t.bytes, maxCounted*smallTreeMean), maxCounted*smallTreeMean)
	s.largest = max(s.largest, t.largest)
	s.widest = max(s.widest, t.widest)
}

// smallTrees remembers which trees are of small files.
type smallTrees struct {
	store *cas.Store

	mu    sync.Mutex
	known map[cas.Digest]bool
}

// maxKnownShapes bounds what is remembered of trees.
const maxKnownShapes = 10_000

// fit reports whether all of a tree may be served without asking at each open:
// it is of small files, and each is in the store itself. One that is a
// reference must be checked at each open, and what a verification found to be
// wrong may be in the page cache yet.
func (s *smallTrees) fit(ctx context.Context, tree cas.Digest) (bool, error) {
	if !s.store.HasTree(tree) {
		return false, nil
	}
	s.mu.Lock()
	small, ok := s.known[tree]
	s.mu.Unlock()
	if !ok {
		shape, err := s.shape(ctx, tree, map[cas.Digest]treeShape{}, 0)
		if err != nil {
			return false, err
		}
		small = shape.small()
		s.mu.Lock()
		if s.known == nil || len(s.known) >= maxKnownShapes {
			s.known = map[cas.Digest]bool{}
		}
		s.known[tree] = small
		s.mu.Unlock()
	}
	if !small {
		return false, nil
	}
	elsewhere, err := s.store.Elsewhere(ctx)
	if err != nil || len(elsewhere) == 0 {
		return err == nil, err
	}
	return s.local(ctx, tree, elsewhere, map[cas.Digest]bool{})
}

// maxTreeDepth bounds how deep trees nest: no path leads further.
const maxTreeDepth = 2048

// shape looks at each different directory once.
func (s *smallTrees) shape(ctx context.Context, tree cas.Digest, done map[cas.Digest]treeShape, depth int) (treeShape, error) {
	if sh, ok := done[tree]; ok {
		return sh, nil
	}
	if depth > maxTreeDepth {
		return treeShape{}, fmt.Errorf("tree %s: more than %d levels: %w", tree, maxTreeDepth, cas.ErrInvalid)
	}
	t, err := s.store.Tree(ctx, tree)
	if err != nil {
		return treeShape{}, err
	}
	sh := treeShape{widest: len(t.Entries)}
	for _, e := range t.Entries {
		switch {
		case e.Kind == cas.KindDir:
			below, err := s.shape(ctx, e.Digest, done, depth+1)
			if err != nil {
				return treeShape{}, err
			}
			sh.add(below)
		case e.IsRegular():
			sh.add(treeShape{files: 1, bytes: e.Size, largest: e.Size})
		}
	}
	done[tree] = sh
	return sh, nil
}

// local reports whether the store itself has those files of a tree that may
// be elsewhere.
func (s *smallTrees) local(ctx context.Context, tree cas.Digest, elsewhere, done map[cas.Digest]bool) (bool, error) {
	t, err := s.store.Tree(ctx, tree)
	if err != nil {
		return false, err
	}
	for _, e := range t.Entries {
		switch {
		case done[e.Digest]:
		case e.Kind == cas.KindDir:
			done[e.Digest] = true
			if ok, err := s.local(ctx, e.Digest, elsewhere, done); !ok {
				return false, err
			}
		case e.IsRegular() && elsewhere[e.Digest]:
			done[e.Digest] = true
			if !s.store.HasLocalBlob(e.Digest, e.Size) {
				return false, nil
			}
		}
	}
	return true, nil
}
