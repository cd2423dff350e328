package stages

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// FindPython tells which Python a command uses and what is installed in it, by
// reading files only: nothing is started. argv is the resolved command,
// environ what it will get, dir where it will run. nil means that no Python
// was recognized.
func FindPython(argv, environ []string, dir string) *PythonEnv {
	f := pythonFinder{environ: environ, dir: dir}
	interpreter := ""
	for i, word := range argv {
		// Behind env, srun, nice or time the program comes a few words later.
		if i == pythonWords {
			break
		}
		if strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
			continue
		}
		if interpreter = f.interpreter(word); interpreter != "" {
			break
		}
	}
	if interpreter == "" {
		return nil
	}
	env := &PythonEnv{Path: interpreter, Packages: []PythonPackage{}}
	for _, site := range f.sites(interpreter) {
		env.Packages = append(env.Packages, distributions(site)...)
	}
	slices.SortStableFunc(env.Packages, func(a, b PythonPackage) int { return strings.Compare(a.Name, b.Name) })
	// Of two of one name Python takes the first it meets.
	env.Packages = slices.CompactFunc(env.Packages, func(a, b PythonPackage) bool { return a.Name == b.Name })
	return env
}

// pythonWords is how many words of a command are looked at.
const pythonWords = 12

type pythonFinder struct {
	environ []string
	dir     string
}

var pythonName = regexp.MustCompile(`^python[0-9.]*$`)

// interpreter returns the path of the Python that runs a program: itself, or
// what its first line names.
func (f pythonFinder) interpreter(program string) string {
	path := f.find(program)
	if path == "" {
		return ""
	}
	if pythonName.MatchString(filepath.Base(path)) {
		return path
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	head := make([]byte, 1024)
	n, _ := file.Read(head)
	lines := bytes.Split(head[:n], []byte("\n"))
	first, ok := bytes.CutPrefix(lines[0], []byte("#!"))
	if !ok {
		return ""
	}
	words := strings.Fields(string(first))
	// A path too long for #! stands in the second line: '''exec' "/…/python" "$0" "$@"
	if len(words) > 0 && filepath.Base(words[0]) == "sh" && len(lines) > 1 && bytes.HasPrefix(lines[1], []byte("'''exec'")) {
		words = strings.Fields(strings.TrimPrefix(string(lines[1]), "'''exec'"))
	}
	for _, word := range words {
		word = strings.Trim(word, `"'`)
		if pythonName.MatchString(filepath.Base(word)) {
			return f.find(word)
		}
	}
	return ""
}

// find looks a program up as the command's own shell would.
func (f pythonFinder) find(program string) string {
	candidates := []string{program}
	if !strings.ContainsRune(program, filepath.Separator) {
		candidates = nil
		path, _ := lookupEnv(f.environ, "PATH")
		for _, dir := range filepath.SplitList(path) {
			if dir != "" {
				candidates = append(candidates, filepath.Join(dir, program))
			}
		}
	}
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			c = filepath.Join(f.dir, c)
		}
		if info, err := os.Stat(c); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return c
		}
	}
	return ""
}

// sites lists the directories where a Python looks for installed packages, in
// its order.
func (f pythonFinder) sites(interpreter string) []string {
	var dirs []string
	if path, ok := lookupEnv(f.environ, "PYTHONPATH"); ok {
		for _, d := range filepath.SplitList(path) {
			if d != "" && !filepath.IsAbs(d) {
				d = filepath.Join(f.dir, d)
			}
			if d != "" {
				dirs = append(dirs, d)
			}
		}
	}
	prefix := filepath.Dir(filepath.Dir(interpreter))
	home, system := venvHome(prefix)
	if home == "" {
		if real, err := filepath.EvalSymlinks(interpreter); err == nil {
			prefix = filepath.Dir(filepath.Dir(real))
			interpreter = real
		}
		return append(append(dirs, f.userSites(interpreter)...), prefixSites(prefix)...)
	}
	dirs = append(dirs, prefixSites(prefix)...)
	if system {
		dirs = append(dirs, prefixSites(filepath.Dir(home))...)
	}
	return dirs
}

// venvHome reads pyvenv.cfg: the directory of the Python below a virtual
// environment, "" where prefix is none.
func venvHome(prefix string) (home string, system bool) {
	file, err := os.Open(filepath.Join(prefix, "pyvenv.cfg"))
	if err != nil {
		return "", false
	}
	defer file.Close()
	scan := bufio.NewScanner(file)
	for scan.Scan() {
		key, value, _ := strings.Cut(scan.Text(), "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "home":
			home = value
		case "include-system-site-packages":
			system = strings.EqualFold(value, "true")
		}
	}
	return home, system
}

func prefixSites(prefix string) []string {
	var dirs []string
	patterns := []string{"lib/python3*/site-packages", "lib64/python3*/site-packages"}
	if prefix == "/usr" {
		// Debian keeps packages of its own and those of pip apart.
		patterns = append([]string{"local/lib/python3*/dist-packages", "local/lib/python3*/site-packages", "lib/python3/dist-packages"}, patterns...)
	}
	for _, p := range patterns {
		found, _ := filepath.Glob(escapeGlob(prefix) + "/" + p)
		dirs = append(dirs, found...)
	}
	return dirs
}

func (f pythonFinder) userSites(interpreter string) []string {
	home, ok := lookupEnv(f.environ, "HOME")
	if _, off := lookupEnv(f.environ, "PYTHONNOUSERSITE"); !ok || off {
		return nil
	}
	version := strings.TrimPrefix(filepath.Base(interpreter), "python")
	if !strings.HasPrefix(version, "3.") {
		version = "3*"
	}
	found, _ := filepath.Glob(escapeGlob(home) + "/.local/lib/python" + version + "/site-packages")
	return found
}

// distributions lists what is installed in a directory by the names of its
// *.dist-info and *.egg-info entries: NAME-VERSION.
func distributions(dir string) []PythonPackage {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var packages []PythonPackage
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".dist-info")
		if !ok {
			if base, ok = strings.CutSuffix(e.Name(), ".egg-info"); !ok {
				continue
			}
		}
		name, version, ok := strings.Cut(base, "-")
		if !ok || name == "" || strings.HasPrefix(name, "~") {
			continue
		}
		version, _, _ = strings.Cut(version, "-py3")
		packages = append(packages, PythonPackage{strings.ToLower(strings.ReplaceAll(name, "_", "-")), version})
	}
	return packages
}
