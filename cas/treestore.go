package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/curi-store/curi/internal/fault"
)

// Tree reads and verifies a tree, a lazy one from its remote. Missing:
// [ErrNotFound]; bytes that do not match the digest: [ErrCorrupt]. The result
// is the caller's.
func (s *Store) Tree(ctx context.Context, d Digest) (*Tree, error) {
	t, err := s.storedTree(ctx, d)
	if !errors.Is(err, ErrNotFound) {
		return t, err
	}
	if t, lerr := s.lazyTree(ctx, d); !errors.Is(lerr, ErrNotFound) {
		return t, lerr
	}
	return nil, err
}

// storedTree is Tree for trees that are here whole.
func (s *Store) storedTree(ctx context.Context, d Digest) (*Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.readTree(d)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", d, err)
	}
	t, err := ParseTree(b)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", d, err)
	}
	return t, nil
}

// readTree returns the encoding of d, verified.
func (s *Store) readTree(d Digest) ([]byte, error) {
	f, err := os.Open(s.treePath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, storeError(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxTreeSize {
		return nil, fmt.Errorf("%d bytes are too many for a tree: %w", fi.Size(), ErrCorrupt)
	}
	b := make([]byte, fi.Size())
	if err = fault.In(fault.Read); err == nil {
		_, err = io.ReadFull(f, b)
	}
	if err != nil {
		return nil, err
	}
	if Sum(b) != d {
		return nil, fmt.Errorf("its bytes do not match the digest: %w", ErrCorrupt)
	}
	return b, nil
}

// PutTree stores t durably; everything that t names must be stored already
// ([ErrNotFound] names what lacks). Until something names it a collection may
// take it again: see [Store.AddTree].
func (s *Store) PutTree(ctx context.Context, t *Tree) (Digest, error) {
	release, err := s.shareCommit(ctx)
	if err != nil {
		return Digest{}, err
	}
	defer release()
	return s.putTree(t)
}

// AddTree is PutTree, and pins the tree until Release: between storing it and
// naming it no collection takes it. Of the result, Files counts those directly
// in t.
func (s *Store) AddTree(ctx context.Context, t *Tree) (*Added, error) {
	release, err := s.shareCommit(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	d, err := s.putTree(t)
	if err != nil {
		return nil, err
	}
	pin, err := s.Pin(ctx, "add", d)
	if err != nil {
		return nil, err
	}
	return &Added{Tree: d, Digest: d, Bytes: t.Bytes(), Files: t.Files(), pin: pin}, nil
}

// putTree stores t; the caller has the right to commit.
func (s *Store) putTree(t *Tree) (Digest, error) {
	b, err := t.Encode()
	if err != nil {
		return Digest{}, err
	}
	d := Sum(b)
	if err := s.checkWhole(t); err != nil {
		return Digest{}, fmt.Errorf("store tree %s: %w", d.Short(), err)
	}
	if s.HasTree(d) {
		return d, nil
	}
	if err := s.writeFileDurable(s.treePath(d), b, blobMode); err != nil {
		return Digest{}, fmt.Errorf("store tree %s: %w", d.Short(), err)
	}
	return d, nil
}

// checkWhole reports what of t's own level is not stored.
func (s *Store) checkWhole(t *Tree) error {
	for i := range t.Entries {
		e := &t.Entries[i]
		switch {
		case e.Kind == KindDir && !s.HasTree(e.Digest):
			return fmt.Errorf("%q names tree %s: %w", e.Name, e.Digest, ErrNotFound)
		case e.IsRegular() && !s.HasBlob(e.Digest):
			return fmt.Errorf("%q names blob %s: %w", e.Name, e.Digest, ErrNotFound)
		}
	}
	return nil
}

// Lookup follows a slash-separated path inside the tree; "" or "." is the tree
// itself as a KindDir entry. Symlinks are not followed. Missing: [ErrNotFound].
func (s *Store) Lookup(ctx context.Context, tree Digest, name string) (Entry, error) {
	if parts := splitPath(name); len(parts) > 0 && !s.HasTree(tree) && s.HasLazyTree(tree) {
		e, err := s.lazyLookup(ctx, tree, parts)
		if err != nil {
			err = fmt.Errorf("look up %q: %w", name, err)
		}
		return e, err
	}
	t, err := s.Tree(ctx, tree)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Kind: KindDir, Size: t.Bytes(), Digest: tree, Attrs: t.Attrs}
	done := ""
	for rest := strings.Trim(name, "/"); rest != "" && rest != "."; {
		var elem string
		elem, rest, _ = strings.Cut(rest, "/")
		if elem == "" || elem == "." {
			continue
		}
		if e.Kind != KindDir {
			return Entry{}, fmt.Errorf("look up %q: %q is a %s, not a directory: %w", name, done, e.Kind, ErrNotFound)
		}
		if done != "" {
			if t, err = s.Tree(ctx, e.Digest); err != nil {
				return Entry{}, err
			}
		}
		done = path.Join(done, elem)
		var ok bool
		if e, ok = t.Lookup(elem); !ok {
			return Entry{}, fmt.Errorf("look up %q: no %q in tree %s: %w", name, done, tree.Short(), ErrNotFound)
		}
	}
	return e, nil
}

// splitPath lists the elements of a slash-separated path that say something.
func splitPath(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(elem string) bool { return elem == "" || elem == "." })
}
