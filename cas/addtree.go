package cas

import (
	"fmt"
	"strings"
)

// treeShape says what the root of an added tree looks like.
type treeShape struct {
	as      string // the single file's path in the tree; "" is its own name
	attrs   Attrs  // of the root
	ownWins bool   // attributes that the files carry win over attrs
	mtimes  bool   // keep mtimes as attributes
}

// root stages the trees of the node and says what was added.
func (b *batch) root(n *node, shape treeShape) (*Added, error) {
	attrs, more := n.attrs, shape.attrs
	if shape.ownWins {
		attrs, more = more, attrs
	}
	for _, x := range more {
		attrs = attrs.With(x.Key, x.Value)
	}
	added := &Added{}
	n.files(func(f *node) {
		added.Files++
		added.Bytes += f.size
	})
	var err error
	if n.kind == KindDir {
		if shape.as != "" {
			return nil, fmt.Errorf("add %s: a name inside the tree (%q) can be given to a single file, this is a directory: %w", n.path(), shape.as, ErrInvalid)
		}
		added.Tree, err = b.dir(n, attrs, shape.mtimes)
		added.Digest = added.Tree
	} else {
		added.Single, added.Digest = true, n.digest
		added.Tree, err = b.single(n, attrs, shape)
	}
	if err != nil {
		return nil, fmt.Errorf("add %s: %w", n.path(), err)
	}
	return added, nil
}

// dir stages the tree of a directory, children first, and sets sizes.
func (b *batch) dir(n *node, attrs Attrs, mtimes bool) (Digest, error) {
	t := &Tree{Attrs: attrs, Entries: make([]Entry, 0, len(n.kids))}
	n.size = 0
	for _, k := range n.kids {
		if k.kind == KindDir {
			var err error
			if k.digest, err = b.dir(k, nil, mtimes); err != nil {
				return Digest{}, err
			}
		}
		n.size += k.size
		t.Entries = append(t.Entries, k.entry(mtimes))
	}
	d, err := b.tree(t)
	if err != nil {
		return d, fmt.Errorf("directory %s: %w", n.path(), err)
	}
	return d, nil
}

// entry is the node as its directory's tree names it.
func (n *node) entry(mtimes bool) Entry {
	e := Entry{Name: n.name, Kind: n.kind, Digest: n.digest, Target: n.target, Attrs: n.attrs}
	if n.kind != KindSymlink {
		e.Size = n.size
	}
	if mtimes && n.kind != KindSymlink {
		e.Attrs = e.Attrs.With(MtimeAttr, formatMtime(n.state.mtime))
	}
	return e
}

// single stages the tree of a single file and those of its parents.
func (b *batch) single(n *node, attrs Attrs, shape treeShape) (Digest, error) {
	as := shape.as
	if as == "" {
		as = n.name
	}
	parts, err := splitAs(as)
	if err != nil {
		return Digest{}, err
	}
	e := n.entry(shape.mtimes)
	// The metadata of the file is that of the artifact.
	e.Attrs = nil
	if v, ok := n.entry(shape.mtimes).Attrs.Get(MtimeAttr); ok {
		e.Attrs = e.Attrs.With(MtimeAttr, v)
	}
	for i := len(parts) - 1; ; i-- {
		e.Name = parts[i]
		t := &Tree{Entries: []Entry{e}}
		if i == 0 {
			t.Single, t.Attrs = true, attrs
		}
		d, err := b.tree(t)
		if err != nil || i == 0 {
			return d, err
		}
		e = Entry{Kind: KindDir, Size: n.size, Digest: d}
	}
}

// splitAs checks and splits the path of a single file inside its tree.
func splitAs(as string) ([]string, error) {
	parts := strings.Split(as, "/")
	for _, p := range parts {
		if CheckEntryName(p) != nil {
			return nil, fmt.Errorf("%q cannot be the path of a file inside a tree: it must be relative, without empty parts, . and ..: %w", as, ErrInvalid)
		}
	}
	return parts, nil
}
