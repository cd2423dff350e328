package remote

import (
	"context"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// maxDepth bounds how deep directories nest, as the store does.
const maxDepth = 2048

// treeWalk visits each directory of a recipe once.
type treeWalk struct {
	rc   *Recipe
	seen map[cas.Digest]bool
	// dir is called for each directory when all below it was visited.
	dir func(t *cas.Tree, d cas.Digest) error
	// file is called for each entry that is a file.
	file func(Node) error
}

func (w *treeWalk) walk(ctx context.Context, dir Node, depth int) error {
	if w.seen[dir.Digest] {
		return nil
	}
	w.seen[dir.Digest] = true
	if depth > maxDepth {
		return fmt.Errorf("tree %s: more than %d levels: %w", dir.Digest, maxDepth, cas.ErrInvalid)
	}
	t, nodes, err := w.rc.Tree(ctx, dir)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		switch {
		case n.Kind == cas.KindDir:
			err = w.walk(ctx, n, depth+1)
		case n.IsRegular() && w.file != nil:
			err = w.file(n)
		}
		if err != nil {
			return err
		}
	}
	if w.dir != nil {
		return w.dir(t, dir.Digest)
	}
	return nil
}
