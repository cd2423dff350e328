package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// node is one name below the path that is being added, and what is known of it.
type node struct {
	parent *node
	name   string
	src    string // absolute path, where it is not the parent's plus the name
	kind   Kind
	state  fileState
	target string // of a symlink
	attrs  Attrs
	kids   []*node // of a directory, sorted by name

	digest Digest    // once stored
	size   int64     // of a file, or of all files below a directory
	taken  fileState // of a file that Seal took, as it was then
	xattrs Attrs     // user.* of it
}

// path is where the node lies on disk, or in the fs.FS.
func (n *node) path() string {
	if n.src != "" || n.parent == nil {
		return n.src
	}
	return joinPath(n.parent.path(), n.name)
}

func joinPath(dir, name string) string {
	if strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// files calls fn for every regular file below n.
func (n *node) files(fn func(*node)) {
	switch n.kind {
	case KindFile, KindExecutable:
		fn(n)
	case KindDir:
		for _, k := range n.kids {
			k.files(fn)
		}
	}
}

// scanner lists what is to be stored, reading names and metadata only.
type scanner struct {
	ctx    context.Context
	follow bool
	ignore bool     // honour .curiignore
	always []string // gitignore patterns beside it
	root   string   // where links may not lead out of
	prefix string   // what comes before root's files in relative paths: "", or a followed link's path and a slash
	store  string   // the store's directory, which is never part of an add
	seal   bool     // a program's outputs are listed: other ways out
	pick   *picker  // what cannot be stored, or is not wanted, is left out
	above  []fileState
}

// scan lists path, a file or a directory. A symlink at path itself is followed.
func (sc *scanner) scan(name string) (*node, error) {
	if sc.seal {
		// What it leads to would be taken away, wherever that is.
		if st, err := lstatFile(name); err == nil && st.isSymlink() {
			return nil, fmt.Errorf("%s: it is a symbolic link: the program must write a file or a directory there: %w", name, ErrInvalid)
		}
	}
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, notFound(err))
	}
	if sc.seal {
		if err := sc.noWayOut(name, real); err != nil {
			return nil, err
		}
	}
	st, err := lstatFile(real)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	n := &node{name: filepath.Base(name), src: real, state: st}
	switch {
	case st.isRegular():
		n.kind, n.size = fileKind(st), st.size
		return n, nil
	case !st.isDir():
		return nil, fmt.Errorf("%s: it is %s, which cannot be stored: name a file or a directory: %w", name, st.special(), ErrInvalid)
	}
	sc.root = real
	rules, err := givenRules(sc.always)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return n, sc.dir(n, "", rules)
}

// noWayOut refuses a name in the store that leads elsewhere by a link above it.
func (sc *scanner) noWayOut(name, real string) error {
	abs, err := filepath.Abs(name)
	if err != nil || abs == real {
		return err
	}
	if rel, err := filepath.Rel(sc.store, abs); err != nil || !filepath.IsLocal(rel) {
		return nil
	}
	return fmt.Errorf("%s: a directory above it is a symbolic link, which leads to %s: the program must write there itself: %w", name, real, ErrInvalid)
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	}
	return err
}

func fileKind(st fileState) Kind {
	if st.isExecutable() {
		return KindExecutable
	}
	return KindFile
}

// dir lists the directory n, which lies at rel below the root.
func (sc *scanner) dir(n *node, rel string, rules *ignoreRules) error {
	if err := sc.ctx.Err(); err != nil {
		return err
	}
	n.kind = KindDir
	path := n.path()
	var err error
	if n.attrs, err = metaXattrs(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if sc.ignore {
		if rules, err = loadIgnore(os.DirFS(path), ".", rel, rules); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	sc.above = append(sc.above, n.state)
	defer func() { sc.above = sc.above[:len(sc.above)-1] }()
	n.kids = make([]*node, 0, len(entries))
	for _, e := range entries {
		k := &node{parent: n, name: e.Name()}
		kidRel := k.name
		if rel != "" {
			kidRel = rel + "/" + k.name
		}
		if rules.ignored(kidRel, e.IsDir()) {
			continue
		}
		if k.state, err = lstatFile(joinPath(path, k.name)); err != nil {
			if sc.pick != nil && noFile(err) {
				continue
			}
			return err
		}
		if sc.pick != nil && !sc.pick.takes(k) {
			continue
		}
		keep, err := sc.entry(k, kidRel, rules)
		if err != nil {
			return err
		}
		if keep {
			n.kids = append(n.kids, k)
		}
	}
	slices.SortFunc(n.kids, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return nil
}

// loadIgnore adds the patterns of the ignore file in the directory dir of
// fsys, which lies at rel below the root, if there is one.
func loadIgnore(fsys fs.FS, dir, rel string, rules *ignoreRules) (*ignoreRules, error) {
	f, err := fsys.Open(path.Join(dir, IgnoreFile))
	if errors.Is(err, fs.ErrNotExist) {
		return rules, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return rules, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIgnoreFile+1))
	if err == nil && len(b) > maxIgnoreFile {
		err = fmt.Errorf("%s is larger than %d bytes: %w", IgnoreFile, maxIgnoreFile, ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return rules.with(rel, b), nil
}

// entry fills in k, which lies at rel below the root.
func (sc *scanner) entry(k *node, rel string, rules *ignoreRules) (keep bool, err error) {
	switch {
	case k.state.isRegular():
		k.kind, k.size = fileKind(k.state), k.state.size
		return true, nil
	case k.state.isDir():
		if p := k.path(); p == sc.store {
			return false, nil
		}
		return true, sc.dir(k, rel, rules)
	case k.state.isSymlink():
		err := sc.link(k, rel, rules)
		if sc.pick != nil && errors.Is(err, ErrInvalid) {
			return false, nil
		}
		return true, err
	}
	return false, fmt.Errorf("%s: it is %s, which cannot be stored: %s: %w", k.path(), k.state.special(), sc.wayOut("remove it or name it in .curiignore or --exclude", "the program must remove it before it ends"), ErrInvalid)
}

// link keeps a symlink that stays inside the root, and with follow stores what
// one that leads out points to.
func (sc *scanner) link(k *node, rel string, rules *ignoreRules) error {
	path := k.path()
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if staysInside(strings.TrimPrefix(rel, sc.prefix), target, func(rel string) (string, bool) {
		t, err := os.Readlink(joinPath(sc.root, rel))
		return t, err == nil
	}) {
		k.kind, k.target = KindSymlink, target
		return nil
	}
	if !sc.follow {
		return fmt.Errorf("%s: the link leads out, to %s: %s: %w", path, target, sc.wayOut("--follow stores what it points to, --exclude leaves it out", "the program must write a file or a relative link inside its output instead"), ErrInvalid)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("%s: follow the link to %s: %w", path, target, notFound(err))
	}
	k.src = real
	if k.state, err = lstatFile(real); err != nil {
		return fmt.Errorf("%s: follow the link to %s: %w", path, target, err)
	}
	switch {
	case k.state.isRegular():
		k.kind, k.size = fileKind(k.state), k.state.size
		return nil
	case !k.state.isDir():
		return fmt.Errorf("%s: the link leads to %s, which is %s and cannot be stored: %w", path, real, k.state.special(), ErrInvalid)
	}
	if real == sc.store {
		return fmt.Errorf("%s: the link leads to the store %s itself: leave it out by --exclude: %w", path, real, ErrInvalid)
	}
	for _, up := range sc.above {
		if up.dev == k.state.dev && up.ino == k.state.ino {
			return fmt.Errorf("%s: the link leads to %s, which contains it: it cannot be followed: %w", path, real, ErrInvalid)
		}
	}
	// What lies there stays inside it or is followed in turn.
	oldRoot, oldPrefix := sc.root, sc.prefix
	sc.root, sc.prefix = real, rel+"/"
	defer func() { sc.root, sc.prefix = oldRoot, oldPrefix }()
	return sc.dir(k, rel, rules)
}

func (sc *scanner) wayOut(add, seal string) string {
	if sc.seal {
		return seal
	}
	return add
}

// maxLinks is how many symlinks are followed in one path, as in Linux.
const maxLinks = 40

// staysInside reports whether a link at rel, a slash-separated path below a
// root, leads to somewhere below the root, going the way that the kernel goes.
// Where it points to nothing it is judged by its words. readlink tells the
// target of a path below the root, if that is a link.
func staysInside(rel, target string, readlink func(rel string) (string, bool)) bool {
	var at []string
	if i := strings.LastIndexByte(rel, '/'); i >= 0 {
		at = strings.Split(rel[:i], "/")
	}
	todo := strings.Split(target, "/")
	if strings.HasPrefix(target, "/") {
		return false
	}
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(at) == 0 {
				return false
			}
			at = at[:len(at)-1]
			continue
		}
		at = append(at, part)
		t, ok := readlink(strings.Join(at, "/"))
		if !ok {
			continue
		}
		if links++; links > maxLinks || strings.HasPrefix(t, "/") {
			// A loop leads nowhere, so not out; an absolute link is an error of its own.
			return links > maxLinks
		}
		at = at[:len(at)-1]
		todo = append(strings.Split(t, "/"), todo...)
	}
	return true
}
