package cas

import (
	"context"
	"fmt"
	"os"
)

// Usage of disk by trees.
type Usage struct {
	Own    int64 // bytes only these roots hold
	Shared int64 // bytes that others hold too
}

// Usage returns what the roots hold, against everything else that refs and
// versions name. A blob counts once however often it is named; files that are
// only referred to count nothing, as they lie outside the store.
func (s *Store) Usage(ctx context.Context, roots ...Digest) (Usage, error) {
	u, err := s.usage(ctx, roots)
	if err != nil {
		return Usage{}, fmt.Errorf("add up what trees hold: %w", err)
	}
	return u, nil
}

func (s *Store) usage(ctx context.Context, roots []Digest) (Usage, error) {
	ours := s.newMarker()
	own := map[Digest]bool{}
	for _, d := range roots {
		own[d] = true
		if err := ours.tree(ctx, d, 0); err != nil {
			return Usage{}, err
		}
	}
	named, _ := s.scanNames(ctx)
	others := s.newMarker()
	for _, r := range named {
		if own[r.tree] {
			continue
		}
		if err := others.tree(ctx, r.tree, 0); err != nil {
			if ctx.Err() != nil {
				return Usage{}, err
			}
			// What cannot be read holds nothing that could be freed or kept.
			s.log.Warn("not counted", "ref", r.by, "err", err)
		}
	}
	var u Usage
	for d := range ours.blobs {
		fi, err := os.Lstat(s.blobPath(d))
		if err != nil {
			continue
		}
		if others.blobs[d] {
			u.Shared += fi.Size()
		} else {
			u.Own += fi.Size()
		}
	}
	return u, nil
}
