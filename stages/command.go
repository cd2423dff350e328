package stages

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// command keys the files that the command itself names: every element, or part
// after '=', that is a file of the project, and the module behind -m.
func (c *code) command() error {
	words := c.words()
	var of wordsOf
	for i, word := range words {
		if word == nextCommand {
			of = wordsOf{}
			continue
		}
		if name, ok := moduleOption(words, i, of.python); ok && !of.script {
			found, err := c.module(name, words[i+1:], of.starter)
			if err != nil {
				return err
			}
			of.script = found
			continue
		}
		if i > 0 && words[i-1] == "cd" && c.enter(word) {
			continue
		}
		if dirs, ok := strings.CutPrefix(word, "PYTHONPATH="); ok {
			c.addPythonPath(dirs)
			continue
		}
		file, err := c.argument(word, i == 0, of.python && !of.script)
		if err == nil && file == "" && i > 0 && !of.begun && !strings.ContainsRune(word, '/') {
			file, err = c.inPath(word)
		}
		if err != nil {
			return err
		}
		if c.isPython(file) {
			of.script = true
			c.addScriptRoots(file)
		}
		of.note(word)
	}
	return nil
}

// wordsOf is what the words before say of a command; a shell text has several.
type wordsOf struct {
	begun   bool // the program was named
	python  bool // it is Python, or starts Python
	starter bool // it is torchrun or like it: --module is a flag
	script  bool // a Python file or module was named: later options are its own
}

var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

func (of *wordsOf) note(word string) {
	base := filepath.Base(word)
	of.begun = of.begun || !assignment.MatchString(word)
	of.starter = of.starter || slices.Contains(pythonStarters, base) || slices.Contains(launchModules, word)
	of.python = of.python || of.starter || pythonName.MatchString(base)
}

// pythonStarters run a Python file or module that they are told of.
var pythonStarters = []string{"torchrun", "faketorchrun", "accelerate", "deepspeed", "ipython"}

// addPythonPath looks for modules where the command itself says that Python is
// to look (env PYTHONPATH=lib python -m …).
func (c *code) addPythonPath(dirs string) {
	for _, d := range filepath.SplitList(dirs) {
		for _, pwd := range []string{"$PWD", "${PWD}"} {
			if rest, ok := strings.CutPrefix(d, pwd); ok && (rest == "" || rest[0] == '/') {
				d = "." + rest
			}
		}
		if d == "" || strings.ContainsAny(d, "\x00$") {
			continue
		}
		for _, base := range c.bases {
			if filepath.IsAbs(d) {
				base = ""
			}
			c.addRoot(filepath.Join(base, d))
		}
	}
}

// enter looks for what follows in the directory of a shell's cd, too; it
// reports whether there is such a directory.
func (c *code) enter(dir string) bool {
	path, info := c.stat(dir)
	if info == nil || !info.IsDir() {
		return false
	}
	c.bases = append(c.bases, path)
	c.addRoot(path)
	return true
}

// stat finds what a word of the command names, from where the command runs.
func (c *code) stat(word string) (path string, info fs.FileInfo) {
	for _, base := range c.bases {
		path = word
		if !filepath.IsAbs(word) {
			path = filepath.Join(base, word)
		}
		if info := c.seen.stat(path); info != nil {
			return path, info
		}
	}
	return path, nil
}

// isPython reports whether a keyed file is Python source.
func (c *code) isPython(file string) bool {
	rel, ok := relativeTo(c.plan.Project.Dir, file)
	_, python := c.imports[rel]
	return ok && python
}

// addScriptRoots adds the directory where a script's imports are looked for:
// that of the file itself, which may not be that of a link to it.
func (c *code) addScriptRoots(file string) {
	c.addRoot(filepath.Dir(file))
	if real, err := filepath.EvalSymlinks(file); err == nil {
		c.addRoot(filepath.Dir(real))
	}
}

// openFile matches the paths of open files but the standard ones.
var openFile = regexp.MustCompile(`^/(dev|proc/(self|thread-self|[0-9]+))/fd/([3-9]|[1-9][0-9]+)$`)

// argument keys what an element names, and warns of a path that is not keyed.
// It returns the absolute path of a keyed file. script says that Python runs
// the file, whatever its name is.
func (c *code) argument(word string, program, script bool) (string, error) {
	texts := []string{word}
	for rest, ok := word, true; ok; {
		if _, rest, ok = strings.Cut(rest, "="); ok {
			texts = append(texts, rest)
		}
	}
	for i, text := range texts {
		if text == "" || strings.ContainsRune(text, 0) || strings.HasPrefix(text, "-") {
			continue
		}
		if program && !strings.ContainsRune(text, '/') {
			if len(texts) == 1 {
				return c.inPath(text)
			}
			continue
		}
		path, info := c.stat(text)
		if info == nil {
			continue
		}
		if openFile.MatchString(path) {
			c.warnf("%s is an open file of the caller's, a <(…) of the shell's perhaps: what comes through it goes unseen (--stdin - keys what is piped in)", text)
			return "", nil
		}
		if c.known(path) {
			return "", nil
		}
		if info.Mode().IsRegular() {
			ok, err := c.addScript(path, script && i == 0 && filepath.Ext(path) == "")
			if ok || err != nil {
				return path, err
			}
		}
		if main := c.existing(filepath.Join(path, "__main__.py")); info.IsDir() && main != nil {
			if ok, err := c.add(main[0]); ok || err != nil { // python DIR
				return main[0], err
			}
		}
		if !program {
			c.warnf("%s is neither an input, an output nor code: changes in it go unseen (--in NAME=REF after curi add, or --code)", text)
		}
		return "", nil
	}
	return "", nil
}

// inPath keys a program that PATH finds in the project. Installed ones, of a
// virtual environment or of node, are no code of the project's.
func (c *code) inPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(c.plan.variable("PATH")) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(c.plan.Dir, dir)
		}
		file := filepath.Join(dir, name)
		info := c.seen.stat(file)
		if info == nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if c.known(file) {
			return "", nil
		}
		ok, err := c.add(file)
		if !ok {
			file = ""
		}
		return file, err
	}
	return "", nil
}

// installed reports whether a directory of programs is that of an environment.
func installed(dir string, seen *sources) bool {
	for _, mark := range []string{"pyvenv.cfg", "conda-meta"} {
		if seen.stat(filepath.Join(filepath.Dir(dir), mark)) != nil {
			return true
		}
	}
	return strings.Contains(filepath.ToSlash(dir)+"/", "/node_modules/")
}

// known reports whether a path is neither keyed nor warned of: an output is
// written there (what an earlier try left is no code), or it is a device, a
// program of the system or of an environment (--tool keys its version) or the
// directory itself.
func (c *code) known(path string) bool {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/bin", "/sbin", "/usr/bin", "/usr/sbin"} {
		if _, ok := below(dir, path); ok {
			return true
		}
	}
	for _, o := range c.plan.Outputs {
		from := o.From
		if from != "" && !filepath.IsAbs(from) {
			from = filepath.Join(c.plan.Dir, from)
		}
		if from != "" {
			if _, ok := below(from, path); ok {
				return true
			}
		}
	}
	if rel, ok := relativeTo(c.plan.Dir, path); ok && rel == "." {
		return true
	}
	return installed(filepath.Dir(path), c.seen)
}

var moduleName = regexp.MustCompile(`^[\pL_][\pL\pN_]*(\.[\pL_][\pL\pN_]*)*$`)

// pythonModule matches the -m of Python itself, alone or behind other letters,
// and the name where it is joined to it.
var pythonModule = regexp.MustCompile(`^-[bBdEhiIOPqsSuvVx?]*m(.*)$`)

// moduleOption returns what stands behind -m or --module at words[i]; python
// says that the word is one of Python's. With torchrun it is a flag, and
// further options may stand between.
func moduleOption(words []string, i int, python bool) (string, bool) {
	if name, ok := strings.CutPrefix(words[i], "--module="); ok {
		return name, true
	}
	if m := pythonModule.FindStringSubmatch(words[i]); python && m != nil && m[1] != "" {
		return m[1], true
	} else if words[i] != "-m" && words[i] != "--module" && (!python || m == nil) || i+1 >= len(words) {
		return "", false
	}
	return words[i+1], true
}

// launchModules start a script or module that is named later in the command.
var launchModules = []string{"torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch", "deepspeed.launcher.runner"}

// module keys a module by name; rest are the words behind the option. found
// says that what follows in the command are the module's own arguments.
func (c *code) module(name string, rest []string, starter bool) (found bool, err error) {
	for _, launch := range launchModules {
		if name == launch {
			return false, nil
		}
	}
	if strings.HasPrefix(name, "-") {
		if !starter {
			return false, nil // not Python's -m
		}
		_, own := TorchrunOptions(rest)
		if len(own) == 0 {
			return false, nil
		}
		name = own[0]
	}
	if strings.ContainsRune(name, 0) {
		return false, nil
	}
	if base, ok := strings.CutSuffix(name, ".py"); ok {
		right := strings.ReplaceAll(strings.TrimPrefix(filepath.ToSlash(base), "./"), "/", ".")
		if moduleName.MatchString(right) && len(c.lookup(right)) > 0 {
			return false, usagef("-m %s: a module is named without .py and with dots: write -m %s", name, right)
		}
		if moduleName.MatchString(right) {
			return false, usagef("-m %s: a module is named without .py: write -m %s (no such file was found), or leave -m out to run the file", name, right)
		}
	}
	if !moduleName.MatchString(name) {
		return false, nil // not Python's -m
	}
	return c.addModule(name)
}

func (c *code) addModule(name string) (bool, error) {
	files := c.lookup(name)
	if len(files) == 0 {
		c.warnf("module %s was not found in %s, its src or PYTHONPATH: changes in it go unseen (--code names its files)", name, c.plan.Dir)
		return false, nil
	}
	keyed := false
	for _, f := range files {
		ok, err := c.add(f)
		if err != nil {
			return true, err
		}
		keyed = keyed || ok
		if strings.HasSuffix(f, string(filepath.Separator)+"__init__.py") {
			for _, main := range c.existing(filepath.Join(filepath.Dir(f), "__main__.py")) {
				if _, err := c.add(main); err != nil {
					return true, err
				}
			}
		}
	}
	if !keyed {
		c.warnf("module %s is %s, outside the project %s: changes in it go unseen", name, files[0], c.plan.Project.Dir)
	}
	return true, nil
}
