package cas

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// scanFS lists fsys, which knows nothing of devices, attributes and the rest.
func scanFS(ctx context.Context, fsys fs.FS, exclude []string) (*node, error) {
	rules, err := givenRules(exclude)
	if err != nil {
		return nil, fmt.Errorf("add: %w", err)
	}
	root := &node{name: ".", src: ".", kind: KindDir}
	return root, scanFSDir(ctx, fsys, root, "", rules)
}

func scanFSDir(ctx context.Context, fsys fs.FS, n *node, rel string, rules *ignoreRules) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := fs.ReadDir(fsys, n.src)
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	if rules, err = loadIgnore(fsys, n.src, rel, rules); err != nil {
		return fmt.Errorf("add %s: %w", n.src, err)
	}
	for _, e := range entries {
		kidRel := path.Join(rel, e.Name())
		if rules.ignored(kidRel, e.IsDir()) {
			continue
		}
		k := &node{parent: n, name: e.Name(), src: kidRel}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("add: %w", err)
		}
		switch m := info.Mode(); {
		case m.IsDir():
			k.kind = KindDir
			err = scanFSDir(ctx, fsys, k, kidRel, rules)
		case m.IsRegular():
			k.kind, k.size = KindFile, info.Size()
			if m&0o111 != 0 {
				k.kind = KindExecutable
			}
		case m&fs.ModeSymlink != 0:
			err = scanFSLink(fsys, k)
		default:
			err = fmt.Errorf("add %s: it is neither file, directory nor link and cannot be stored: %w", kidRel, ErrInvalid)
		}
		if err != nil {
			return err
		}
		n.kids = append(n.kids, k)
	}
	slices.SortFunc(n.kids, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return nil
}

func scanFSLink(fsys fs.FS, k *node) (err error) {
	k.kind = KindSymlink
	if k.target, err = fs.ReadLink(fsys, k.src); err != nil {
		return fmt.Errorf("add %s: %w", k.src, err)
	}
	if !staysInside(k.src, k.target, func(rel string) (string, bool) {
		t, err := fs.ReadLink(fsys, rel)
		return t, err == nil
	}) {
		return fmt.Errorf("add %s: the link leads out, to %s: %w", k.src, k.target, ErrInvalid)
	}
	return nil
}
