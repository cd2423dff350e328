package stages

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pyImport is one import of a Python file.
type pyImport struct {
	level  int      // dots before the name
	module string   // "a.b"; "" in "from . import x"
	names  []string // of "from module import names": may be submodules
}

func (c *code) addRoot(dir string) {
	if !slices.Contains(c.roots, dir) {
		c.roots = append(c.roots, dir)
	}
}

// followImports keys the project's Python files that keyed ones import, to
// the end. Of a module that lies in several roots each one is keyed: which of
// them Python takes can change with files that are not there yet.
func (c *code) followImports() error {
	for len(c.imports) > 0 {
		now := c.imports
		c.imports = map[string][]pyImport{}
		for _, rel := range slices.Sorted(maps.Keys(now)) {
			file := filepath.Join(c.plan.Project.Dir, filepath.FromSlash(rel))
			for _, imp := range now[rel] {
				for _, found := range c.importFiles(file, imp) {
					if _, err := c.add(found); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// importFiles finds the files that an import in file would run.
func (c *code) importFiles(file string, imp pyImport) []string {
	roots := c.roots
	if imp.level > 0 {
		dir := filepath.Dir(file)
		for range imp.level - 1 {
			dir = filepath.Dir(dir)
		}
		roots = []string{dir}
	}
	var files []string
	for _, root := range roots {
		files = append(files, c.moduleFiles(root, imp.module)...)
		for _, name := range imp.names {
			if name == "*" {
				files = append(files, c.starFiles(root, imp.module)...)
				continue
			}
			full := name
			if imp.module != "" {
				full = imp.module + "." + name
			}
			files = append(files, c.moduleFiles(root, full)...)
		}
	}
	if imp.level > 0 && imp.module == "" {
		files = append(files, c.existing(filepath.Join(roots[0], "__init__.py"))...)
	}
	return files
}

// starFiles are the modules of a package that "from package import *" runs:
// those that its __init__.py names in a string, as __all__ does.
func (c *code) starFiles(root, module string) []string {
	dir := filepath.Join(root, filepath.FromSlash(strings.ReplaceAll(module, ".", "/")))
	init, err := os.ReadFile(filepath.Join(dir, "__init__.py"))
	if err != nil || !bytes.Contains(init, []byte("__all__")) {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	var files []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".py")
		if bytes.Contains(init, []byte(`"`+name+`"`)) || bytes.Contains(init, []byte("'"+name+"'")) {
			files = append(files, c.moduleFiles(dir, name)...)
		}
	}
	return files
}

// lookup finds a module by its whole name in every root: the files of the
// packages above it, and its own. Empty if the module itself is nowhere.
func (c *code) lookup(name string) []string {
	var files []string
	for _, root := range c.roots {
		found := c.moduleFiles(root, name)
		if len(found) > 0 && isModule(root, name, found[len(found)-1]) {
			files = append(files, found...)
		}
	}
	return files
}

func isModule(root, name, file string) bool {
	path := filepath.Join(root, filepath.FromSlash(strings.ReplaceAll(name, ".", "/")))
	return file == path+".py" || file == filepath.Join(path, "__init__.py") || file == filepath.Join(path, "__main__.py")
}

// moduleFiles returns the files below root that importing the dotted name
// runs: __init__.py of the packages on the way (namespace packages have none),
// then the module's own.
func (c *code) moduleFiles(root, name string) []string {
	if name == "" {
		return nil
	}
	var files []string
	dir := root
	parts := strings.Split(name, ".")
	for i, part := range parts {
		pkg := filepath.Join(dir, part)
		isDir := c.exists(pkg, fs.FileMode.IsDir)
		if isDir {
			if found := c.existing(filepath.Join(pkg, "__init__.py")); found != nil {
				files = append(files, found...)
				dir = pkg
				continue
			}
		}
		if found := c.existing(pkg + ".py"); found != nil {
			return append(files, found...) // what follows are names inside it
		}
		if !isDir {
			return files
		}
		if i == len(parts)-1 {
			files = append(files, c.existing(filepath.Join(pkg, "__main__.py"))...)
		}
		dir = pkg
	}
	return files
}

func (c *code) existing(file string) []string {
	if c.exists(file, fs.FileMode.IsRegular) {
		return []string{file}
	}
	return nil
}

func (c *code) exists(path string, kind func(fs.FileMode) bool) bool {
	info := c.seen.stat(path)
	return info != nil && kind(info.Mode())
}

// parseImports reads the import statements of Python source, wherever they
// stand: inside functions, conditions, after ';', over several lines. Text in
// strings and comments is skipped. It never fails: what is no Python has no
// imports.
func parseImports(source []byte) []pyImport {
	tokens := pyTokens(strings.TrimPrefix(string(source), "\ufeff"))
	var imports []pyImport
	start := true
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		if start && (t == "import" || t == "from") {
			end := i
			for end < len(tokens) && tokens[end] != "\n" && tokens[end] != ";" {
				end++
			}
			if t == "import" {
				imports = append(imports, plainImports(tokens[i+1:end])...)
			} else if imp, ok := fromImport(tokens[i+1 : end]); ok {
				imports = append(imports, imp)
			}
			i = end
			start = true
			continue
		}
		start = t == "\n" || t == ";" || t == ":"
	}
	return imports
}

// plainImports parses what follows "import": a.b as c, d.
func plainImports(tokens []string) []pyImport {
	var imports []pyImport
	for _, clause := range splitTokens(tokens, ",") {
		if name, _ := dottedName(clause); name != "" {
			imports = append(imports, pyImport{module: name})
		}
	}
	return imports
}

// fromImport parses what follows "from": ..a.b import (c as d, e).
func fromImport(tokens []string) (pyImport, bool) {
	var imp pyImport
	for len(tokens) > 0 && tokens[0] == "." {
		imp.level++
		tokens = tokens[1:]
	}
	imp.module, tokens = dottedName(tokens)
	if len(tokens) == 0 || tokens[0] != "import" || imp.level == 0 && imp.module == "" {
		return imp, false
	}
	for _, clause := range splitTokens(tokens[1:], ",") {
		for _, t := range clause {
			if t != "(" && t != ")" {
				if name, _ := dottedName([]string{t}); name != "" || t == "*" {
					if t == "*" {
						name = t
					}
					imp.names = append(imp.names, name)
				}
				break
			}
		}
	}
	return imp, true
}

func dottedName(tokens []string) (string, []string) {
	var b strings.Builder
	for i, t := range tokens {
		wantName := i%2 == 0
		if wantName != (t != ".") || wantName && (!isPyWord(t) || t == "import") {
			return strings.TrimSuffix(b.String(), "."), tokens[i:]
		}
		b.WriteString(t)
	}
	return strings.TrimSuffix(b.String(), "."), nil
}

func splitTokens(tokens []string, sep string) [][]string {
	var parts [][]string
	for {
		i := slices.Index(tokens, sep)
		if i < 0 {
			return append(parts, tokens)
		}
		parts = append(parts, tokens[:i])
		tokens = tokens[i+1:]
	}
}

func isPyWord(t string) bool {
	r, _ := utf8.DecodeRuneInString(t)
	return r == '_' || unicode.IsLetter(r)
}

// importLine is a line that cannot stand in brackets.
var importLine = regexp.MustCompile(`^[ \t]*(import[ \t]|from[ \t]+[^ \t\r\n]+[ \t]+import[ \t(])`)

// pyTokens splits Python source into words and single signs; "\n" ends a
// logical line. Strings and comments are left out.
func pyTokens(src string) []string {
	var tokens []string
	depth := 0
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == '#':
			if n := strings.IndexByte(src[i:], '\n'); n >= 0 {
				i += n
			} else {
				i = len(src)
			}
		case c == '\'' || c == '"':
			i = skipPyString(src, i)
			tokens = append(tokens, `""`)
		case c == '\\' && strings.HasPrefix(src[i:], "\\\n"):
			i += 2
		case c == '\\' && strings.HasPrefix(src[i:], "\\\r\n"):
			i += 3
		case c == '\n' || c == '\r':
			i++
			if depth > 0 && importLine.MatchString(src[i:]) {
				depth = 0 // a bracket that was none, as in an f-string within an f-string
			}
			if depth == 0 {
				tokens = append(tokens, "\n")
			}
		case c == ' ' || c == '\t' || c == '\f':
			i++
		case strings.IndexByte("([{", c) >= 0:
			depth++
			tokens = append(tokens, string(c))
			i++
		case strings.IndexByte(")]}", c) >= 0:
			depth = max(0, depth-1)
			tokens = append(tokens, string(c))
			i++
		default:
			end := i
			for end < len(src) {
				r, size := utf8.DecodeRuneInString(src[end:])
				if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
					break
				}
				end += size
			}
			if end == i {
				_, size := utf8.DecodeRuneInString(src[i:])
				end = i + size
			}
			tokens = append(tokens, src[i:end])
			i = end
		}
	}
	return tokens
}

// skipPyString returns the index behind the string that begins at i.
func skipPyString(src string, i int) int {
	quote := src[i : i+1]
	if strings.HasPrefix(src[i:], strings.Repeat(quote, 3)) {
		quote = src[i : i+3]
	}
	for i += len(quote); i < len(src); i++ {
		switch {
		case src[i] == '\\':
			i++
		case src[i] == '\n' && len(quote) == 1:
			return i // not closed: no Python, go on with the next line
		case strings.HasPrefix(src[i:], quote):
			return i + len(quote)
		}
	}
	return len(src)
}
