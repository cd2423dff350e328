package cas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Elsewhere lists the blobs that are recorded as references, and those that a
// verification put into quarantine. Any other blob that a tree names is in the
// store itself, or nowhere. Some of those listed may be in the store as well.
func (s *Store) Elsewhere(ctx context.Context) (map[Digest]bool, error) {
	found := map[Digest]bool{}
	list := func(dir string) ([]os.DirEntry, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ents, err := os.ReadDir(dir)
		if err != nil && !noFile(err) {
			return nil, fmt.Errorf("list the blobs outside the store: %w", err)
		}
		return ents, nil
	}
	bad, err := list(filepath.Join(s.dir, "quarantine"))
	if err != nil {
		return nil, err
	}
	for _, e := range bad {
		name, _, _ := strings.Cut(e.Name(), ".")
		if d, err := ParseDigest(name); err == nil {
			found[d] = true
		}
	}
	tops, err := list(filepath.Join(s.dir, "references"))
	if err != nil {
		return nil, err
	}
	for _, top := range tops {
		refs, err := list(filepath.Join(s.dir, "references", top.Name()))
		if err != nil {
			return nil, err
		}
		for _, e := range refs {
			if d, err := ParseDigest(e.Name()); err == nil {
				found[d] = true
			}
		}
	}
	return found, nil
}
