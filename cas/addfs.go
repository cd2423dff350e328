package cas

import (
	"context"
	"fmt"
	"io/fs"
	"path"
)

// AddFS stores everything in fsys; o.Exclude applies, .curiignore files do
// too. Links need fsys to be an [fs.ReadLinkFS]. Move, Reference and As do not
// apply, and with Follow links that lead out are an error still.
func (s *Store) AddFS(ctx context.Context, fsys fs.FS, o AddOptions) (*Added, error) {
	root, err := scanFS(ctx, fsys, o.Exclude)
	if err != nil {
		return nil, err
	}
	b, err := s.newBatch()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	a := &adder{s: s, b: b}
	a.count(root, o.Progress)
	added, err := a.run(ctx, root, treeShape{attrs: o.Attrs}, func(ctx context.Context, n *node) error {
		name := path.Clean(n.path())
		f, err := fsys.Open(name)
		if err != nil {
			return fmt.Errorf("add: %w", err)
		}
		defer f.Close()
		if n.digest, n.size, err = b.stream(ctx, f, a.meter.bytes); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		a.meter.file()
		return nil
	})
	if err != nil {
		return nil, noSpace(err, s.dir)
	}
	return added, nil
}
