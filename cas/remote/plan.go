package remote

import (
	"context"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// plan is what a push has to bring, in the order of the streams of its recipe.
type plan struct {
	trees []*recipeTree
	small []cas.Entry // files in chunks that they share, in the order of the trees
	large []largeFile // then those with chunks of their own
	files int64       // as often as they are named
	bytes int64
	fresh int64 // bytes of the file stream
}

type largeFile struct {
	cas.Entry
	at int64 // in the file stream
}

// newPlan walks a stored tree. Equal directories and equal files are one.
func newPlan(ctx context.Context, s *cas.Store, root cas.Digest) (*plan, error) {
	p := &plan{}
	w := planWalk{p: p, s: s, trees: map[cas.Digest]*recipeTree{}, files: map[cas.Digest]int64{}, counts: map[cas.Digest]int64{}}
	n, err := w.tree(ctx, root)
	if err != nil {
		return nil, err
	}
	p.files = n
	p.bytes = p.trees[0].tree.Bytes()
	// The order in which files come first decides where they lie.
	at := int64(0)
	for i := range p.small {
		w.files[p.small[i].Digest] = at
		at += p.small[i].Size
	}
	for i := range p.large {
		p.large[i].at = at
		w.files[p.large[i].Digest] = at
		at += p.large[i].Size + nodesLen(p.large[i].Size)
	}
	p.fresh = at
	at = 0
	for _, t := range p.trees {
		t.at = at
		at += int64(len(t.enc))
	}
	for _, t := range p.trees {
		t.places = make([]place, len(t.tree.Entries))
		for i, e := range t.tree.Entries {
			switch {
			case e.IsRegular():
				t.places[i].at = w.files[e.Digest]
			case e.Kind == cas.KindDir:
				sub := w.trees[e.Digest]
				t.places[i] = place{sub.at, int64(len(sub.enc))}
			}
		}
	}
	return p, nil
}

type planWalk struct {
	p      *plan
	s      *cas.Store
	trees  map[cas.Digest]*recipeTree
	files  map[cas.Digest]int64
	counts map[cas.Digest]int64 // of files in a tree
}

// tree adds a directory and all below it, and returns how many files it has.
func (w *planWalk) tree(ctx context.Context, d cas.Digest) (int64, error) {
	if w.trees[d] != nil {
		return w.counts[d], nil
	}
	t, err := w.s.Tree(ctx, d)
	if err != nil {
		return 0, err
	}
	enc, err := t.Encode()
	if err != nil {
		return 0, err
	}
	rt := &recipeTree{digest: d, enc: enc, tree: t}
	w.trees[d] = rt
	w.p.trees = append(w.p.trees, rt)
	var n int64
	for _, e := range t.Entries {
		switch {
		case e.IsRegular():
			n++
			if err := w.file(e); err != nil {
				return 0, err
			}
		case e.Kind == cas.KindDir:
			k, err := w.tree(ctx, e.Digest)
			if err != nil {
				return 0, err
			}
			n += k
		}
	}
	w.counts[d] = n
	return n, nil
}

func (w *planWalk) file(e cas.Entry) error {
	if size, ok := w.files[e.Digest]; ok {
		if size != e.Size {
			return fmt.Errorf("file %s is said to have %d and %d bytes: %w", e.Digest, size, e.Size, cas.ErrCorrupt)
		}
		return nil
	}
	w.files[e.Digest] = e.Size
	if e.Size > cas.MinOutboard {
		w.p.large = append(w.p.large, largeFile{Entry: e})
	} else {
		w.p.small = append(w.p.small, e)
	}
	return nil
}
