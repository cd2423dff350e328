package stages

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// command keys the files that the command itself names: every element, or part
// after '=', that is a file of the project, and the module behind -m.
func (c *code) command() error {
	words := c.words()
	script := false // a Python file was named: later options are its own
	for i, word := range words {
		if name, ok := moduleOption(words, i); ok && !script {
			found, err := c.module(name, words[i+1:])
			if err != nil {
				return err
			}
			script = found
			continue
		}
		if i > 0 && words[i-1] == "cd" && c.enter(word) {
			continue
		}
		file, err := c.argument(word, i == 0)
		if err != nil {
			return err
		}
		if c.isPython(file) {
			script = true
			c.addScriptRoots(file)
		}
	}
	return nil
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
		if info, err := os.Stat(path); err == nil {
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

var shellNames = []string{"sh", "bash", "dash", "zsh", "ksh"}

var shellTextOption = regexp.MustCompile(`^-[a-z]*c$`)

// inlineText reports whether the element at i is a program's text: what stands
// behind the -c of a shell or of Python.
func inlineText(command []string, i int) (shell, python bool) {
	if i < 2 || !shellTextOption.MatchString(command[i-1]) {
		return false, false
	}
	for j := i - 2; j >= 0; j-- {
		if strings.HasPrefix(command[j], "-") {
			continue
		}
		base := filepath.Base(command[j])
		return slices.Contains(shellNames, base), pythonName.MatchString(base)
	}
	return false, false
}

// inShellText splits quotes and brackets off, so that the imports of a text
// for Python inside a text for a shell begin a line.
var inShellText = strings.NewReplacer("'", "\n", `"`, "\n", "(", " ", ")", " ")

// words are the elements of the command as text; of a shell text, roughly its
// words. An element with a placeholder is no path of the caller's. What Python
// text in the command imports is noted.
func (c *code) words() []string {
	var words []string
	for i, element := range c.plan.Command {
		segs, err := parseElement(element)
		if err != nil {
			continue // refused before
		}
		var text strings.Builder
		for _, s := range segs {
			if s.kind != "" {
				text.WriteByte(0) // in no path
				continue
			}
			text.WriteString(s.text)
		}
		shell, python := inlineText(c.plan.Command, i)
		switch {
		case c.plan.Shell || shell:
			c.imports[""] = append(c.imports[""], parseImports([]byte(inShellText.Replace(text.String())))...)
			words = append(words, strings.FieldsFunc(text.String(), func(r rune) bool {
				return strings.ContainsRune(" \t\r\n;|&<>()\"'`", r)
			})...)
		case python:
			c.imports[""] = append(c.imports[""], parseImports([]byte(text.String()))...)
			words = append(words, "\x00") // its words are no paths
		default:
			words = append(words, text.String())
		}
	}
	return words
}

// argument keys what an element names, and warns of a path that is not keyed.
// It returns the absolute path of a keyed file.
func (c *code) argument(word string, program bool) (string, error) {
	_, value, assigned := strings.Cut(word, "=")
	for _, text := range []string{word, value} {
		if text == "" || strings.ContainsRune(text, 0) || strings.HasPrefix(text, "-") {
			continue
		}
		if program && !strings.ContainsRune(text, '/') {
			if text == word && !assigned {
				return c.inPath(text)
			}
			continue
		}
		path, info := c.stat(text)
		if info == nil {
			if text == word && assigned {
				continue
			}
			return "", nil
		}
		if c.known(path) {
			return "", nil
		}
		if info.Mode().IsRegular() {
			if ok, err := c.add(path); ok || err != nil {
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
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		if installed(dir) || c.known(file) {
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
func installed(dir string) bool {
	for _, mark := range []string{"pyvenv.cfg", "conda-meta"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), mark)); err == nil {
			return true
		}
	}
	return strings.Contains(filepath.ToSlash(dir)+"/", "/node_modules/")
}

// known reports whether a path is neither keyed nor warned of: an output is
// written there (what an earlier try left is no code), or it is a device, a
// program of the system (--tool keys its version) or the directory itself.
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
	rel, ok := relativeTo(c.plan.Dir, path)
	return ok && rel == "."
}

var moduleName = regexp.MustCompile(`^[\pL_][\pL\pN_]*(\.[\pL_][\pL\pN_]*)*$`)

// moduleOption returns what stands behind -m or --module at words[i]. With
// torchrun it is a flag, and further options may stand between.
func moduleOption(words []string, i int) (string, bool) {
	if name, ok := strings.CutPrefix(words[i], "--module="); ok {
		return name, true
	}
	if words[i] != "-m" && words[i] != "--module" || i+1 >= len(words) {
		return "", false
	}
	return words[i+1], true
}

// launchModules start a script or module that is named later in the command.
var launchModules = []string{"torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch", "deepspeed.launcher.runner"}

// module keys a module by name. found says that what follows in the command
// are the module's own arguments.
func (c *code) module(name string, rest []string) (found bool, err error) {
	for _, launch := range launchModules {
		if name == launch {
			return false, nil
		}
	}
	if strings.HasPrefix(name, "-") {
		for _, word := range rest {
			if moduleName.MatchString(word) && strings.Contains(word, ".") && len(c.lookup(word)) > 0 {
				return c.addModule(word)
			}
		}
		return false, nil
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
