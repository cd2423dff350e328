package stages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/zeebo/blake3"

	"github.com/curi-store/curi/cas"
)

// code collects the keyed files of a stage.
type code struct {
	plan     *Plan
	storeDir string
	files    map[string]cas.Digest // by path relative to the project
	imports  map[string][]pyImport // of Python files whose imports are to be followed, by the same path; "" is text in the command
	bases    []string              // absolute: where the command looks for files, in order
	roots    []string              // absolute: where Python looks for modules
	seen     *sources              // what was looked at already: most imports are of the same few modules
	warnings []string
}

func newCode(p *Plan, storeDir string, seen *sources) *code {
	c := &code{plan: p, storeDir: storeDir, bases: []string{p.Dir}, files: map[string]cas.Digest{}, imports: map[string][]pyImport{}, seen: seen}
	c.addRoot(p.Dir)
	c.addRoot(filepath.Join(p.Dir, "src"))
	for _, d := range p.pythonPath() {
		c.addRoot(d)
	}
	c.addRoot(p.Project.Dir)
	c.addRoot(filepath.Join(p.Project.Dir, "src"))
	return c
}

func (c *code) warnf(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// find keys what the globs and the command name, then what that imports.
func (c *code) find() error {
	for _, glob := range c.plan.Code {
		if err := c.glob(glob); err != nil {
			return err
		}
	}
	if err := c.command(); err != nil {
		return err
	}
	return c.followImports()
}

func (c *code) sorted() []CodeFile {
	files := make([]CodeFile, 0, len(c.files))
	for path, d := range c.files {
		files = append(files, CodeFile{path, d})
	}
	slices.SortFunc(files, func(a, b CodeFile) int { return strings.Compare(a.Path, b.Path) })
	return files
}

// ChangedCode lists the keyed files that are not any more what was keyed, by
// their paths in the project.
func (p *Plan) ChangedCode() []string {
	var changed []string
	for _, f := range p.CodeFile {
		d, err := fileDigest(filepath.Join(p.Project.Dir, filepath.FromSlash(f.Path)))
		if err != nil || d != f.Digest {
			changed = append(changed, f.Path)
		}
	}
	return changed
}

// add keys a file; ok is false if it is no file of the project.
func (c *code) add(file string) (ok bool, err error) { return c.addScript(file, false) }

// addScript keys a file that may be Python source without looking like it.
func (c *code) addScript(file string, python bool) (ok bool, err error) {
	rel, ok := c.inProject(file)
	if !ok {
		return false, nil
	}
	if _, done := c.files[rel]; done {
		return true, nil
	}
	notebook := strings.HasSuffix(rel, ".ipynb")
	python = python || notebook || strings.HasSuffix(rel, ".py") || strings.HasSuffix(rel, ".pyw") || c.seen.python(file)
	source := c.seen.read(file, python)
	if source.err != nil {
		return false, fmt.Errorf("read the code %s: %w", rel, source.err)
	}
	c.files[rel] = source.digest
	if python {
		c.imports[rel] = source.imports
	}
	return true, nil
}

// inProject returns the path of a file relative to the project. What git, curi
// and Python keep for themselves is no file of the project.
func (c *code) inProject(file string) (string, bool) {
	rel, ok := relativeTo(c.plan.Project.Dir, file)
	if !ok || rel == "." {
		return "", false
	}
	if _, inStore := below(c.storeDir, file); inStore {
		return "", false
	}
	for _, part := range strings.Split(rel, "/") {
		if skippedDir(part) {
			return "", false
		}
	}
	return rel, true
}

func skippedDir(name string) bool {
	return name == ".git" || name == ".curi" || name == "__pycache__"
}

// pythonScript reports whether the first line of a file names Python.
func pythonScript(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	return bytes.HasPrefix(line, []byte("#!")) && bytes.Contains(line, []byte("python"))
}

func fileDigest(file string) (cas.Digest, error) {
	f, err := os.Open(file)
	if err != nil {
		return cas.Digest{}, err
	}
	defer f.Close()
	h := blake3.New()
	if _, err := io.Copy(h, f); err != nil {
		return cas.Digest{}, err
	}
	var d cas.Digest
	h.Sum(d[:0])
	return d, nil
}

// glob keys the files that a glob of --code matches.
func (c *code) glob(glob string) error {
	pattern := recursive(filepath.ToSlash(glob))
	if glob == "" || !doublestar.ValidatePattern(pattern) {
		return usagef("--code %q: not a valid glob", glob)
	}
	if !filepath.IsAbs(glob) {
		pattern = escapeGlob(filepath.ToSlash(c.plan.Dir)) + "/" + pattern
	}
	base, rest := doublestar.SplitPattern(pattern)
	if strings.Contains("/"+rest+"/", "/../") {
		return usagef("--code %q: '..' cannot follow a wildcard", glob)
	}
	base = filepath.Clean(filepath.FromSlash(unescapeGlob(base)))
	top := base
	if real, err := filepath.EvalSymlinks(base); err == nil {
		top = real // a walk does not enter a link, not even its own root
	}
	matched, outside := 0, ""
	found, err := c.seen.glob(base+"\x00"+rest, func() ([]string, error) { return c.walk(top, base, rest) })
	for _, path := range found {
		added, err := c.add(path)
		if err != nil {
			return err
		}
		if added {
			matched++
		} else {
			outside = path
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("--code %q: %w", glob, err)
	case matched > 0:
		return nil
	case outside != "":
		return usagef("--code %q: %s is not in the project %s: name what lies elsewhere as an input (--in)", glob, outside, c.plan.Project.Dir)
	}
	hint := ""
	if info, err := os.Stat(filepath.Join(base, rest)); err == nil && info.IsDir() {
		hint = fmt.Sprintf(": it is a directory, write %q", strings.TrimSuffix(glob, "/")+"/**")
	}
	return usagef("--code %q matches no file in %s%s", glob, c.plan.Dir, hint)
}

// walk finds the files below base that a pattern matches; top is base with its
// links followed.
func (c *code) walk(top, base, pattern string) (found []string, err error) {
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		path = base + strings.TrimPrefix(path, top)
		if err != nil {
			if path == base && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, ok := below(base, path)
		if !ok {
			return nil
		}
		if d.IsDir() {
			if path != base && c.prune(path, d.Name(), pattern) {
				return fs.SkipDir
			}
			return nil
		}
		if !doublestar.MatchUnvalidated(pattern, rel) {
			return nil
		}
		// Else a dangling link, a socket, a link to a directory.
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// prune keeps a walk out of directories that nobody means by "**".
func (c *code) prune(dir, name, pattern string) bool {
	if skippedDir(name) || dir == c.storeDir {
		return true
	}
	if strings.Contains(pattern, name) {
		return false
	}
	if name == "node_modules" {
		return true
	}
	_, err := os.Lstat(filepath.Join(dir, "pyvenv.cfg"))
	return err == nil
}

// recursive makes "**.py" mean "**/*.py".
func recursive(glob string) string {
	parts := strings.Split(glob, "/")
	for i, part := range parts {
		if rest, ok := strings.CutPrefix(part, "**"); ok && rest != "" {
			parts[i] = "**/*" + strings.TrimLeft(rest, "*")
		}
	}
	return strings.Join(parts, "/")
}

const globSpecial = `*?[]{}\`

func escapeGlob(path string) string {
	var b strings.Builder
	for _, r := range path {
		if strings.ContainsRune(globSpecial, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unescapeGlob(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+1 < len(path) {
			i++
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
