package cas

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// gitKeeps returns which of the files below dir git would not ignore, with
// every IgnoreFile also standing as .gitignore.
func gitKeeps(t testing.TB, dir string, files []string) []string {
	t.Helper()
	cmd := exec.Command("git", "check-ignore", "--no-index", "-z", "--stdin")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME="+dir, "XDG_CONFIG_HOME="+dir, "GIT_DIR="+filepath.Join(dir, ".git"), "GIT_WORK_TREE="+dir)
	cmd.Stdin = strings.NewReader(strings.Join(files, "\x00") + "\x00")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 {
		t.Fatalf("git check-ignore: %v\n%s", err, &stderr)
	}
	ignored := map[string]bool{}
	for f := range strings.SplitSeq(string(out), "\x00") {
		ignored[f] = true
	}
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return ignored[f] })
}

// curiKeeps returns which regular files below dir an add would store.
func curiKeeps(t testing.TB, dir string) []string {
	t.Helper()
	sc := &scanner{ctx: t.Context(), ignore: true}
	root, err := sc.scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	root.files(func(n *node) {
		rel, _ := filepath.Rel(root.src, n.path())
		if !strings.HasPrefix(rel, ".git/") && n.name != ".gitignore" {
			kept = append(kept, rel)
		}
	})
	return kept
}

// needGit skips where git is missing, except in CI.
func needGit(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("git is needed")
		}
		t.Skip("git is needed to compare with")
	}
}

func gitInit(t testing.TB, dir string) {
	t.Helper()
	cmd := exec.Command("git", "init", "-q", dir)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TEMPLATE_DIR=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
}

// compareWithGit makes files and ignore files and compares what is kept.
func compareWithGit(t testing.TB, dir string, files []string, rules map[string]string) {
	t.Helper()
	for where, text := range rules {
		writeFiles(t, dir, map[string]string{filepath.Join(where, ".gitignore"): text, filepath.Join(where, IgnoreFile): text})
	}
	all := slices.Clone(files)
	for where := range rules {
		all = append(all, filepath.Join(where, IgnoreFile))
	}
	slices.Sort(all)
	want, got := gitKeeps(t, dir, all), curiKeeps(t, dir)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("rules %q:\nkept %q\ngit  %q", rules, got, want)
	}
	for where := range rules {
		os.Remove(filepath.Join(dir, where, ".gitignore"))
		os.Remove(filepath.Join(dir, where, IgnoreFile))
	}
}

func TestIgnoreLikeGit(t *testing.T) {
	needGit(t)
	dir := t.TempDir()
	gitInit(t, dir)
	files := []string{
		"a.txt", "b.txt", "a/x", "a/b/x", "a/b/c/x", "a/b/c/y.txt", "foo/bar", "foo/a/bar", "foo/a/b/bar", "foox/bar", "fooy/z/bar",
		"build/out.o", "src/build/out.o", "src/main.c", "logs/a.log", "logs/keep.log", "logs/deep/a.log", "sp ace ", "hash#", "#hash", "!bang",
		"back\\slash", "star*", "q?", "[x]", "new\nline", "é", "x-y", "A", "]", "x/!bang", "-", "tab\t",
	}
	for _, f := range files {
		writeFiles(t, dir, map[string]string{f: f})
	}
	for _, rules := range []map[string]string{
		{"": "*.txt\n"}, {"": "/a.txt\n"}, {"": "a/\n"}, {"": "a\n"}, {"": "build/\n"}, {"": "/build\n"}, {"": "src/build\n"},
		{"": "x\n!a/b/x\n"}, {"": "a/*\n!a/b\n"}, {"": "a/**\n!a/b/\n"}, {"": "**/x\n"}, {"": "a/**/x\n"}, {"": "a/**\n"}, {"": "**\n!a.txt\n"},
		{"": "foo**/bar\n"}, {"": "foo/**/bar\n"}, {"": "foo/**bar\n"}, {"": "**foo\n"}, {"": "foo*/bar\n"}, {"": "**/b/**/x\n"}, {"": "a/**/**/x\n"},
		{"": "logs/*\n!logs/keep.log\n"}, {"": "*.log\n", "logs": "!keep.log\n"}, {"": "!a.log\n", "logs": "*.log\n"}, {"": "*.log\n", "logs/deep": "!*\n"},
		{"logs": "/a.log\n"}, {"logs": "deep/\n"}, {"a": "b/c\n"}, {"a/b": "/c/x\n"},
		{"": "sp ace \n"}, {"": "sp ace\\ \n"}, {"": "#hash\n"}, {"": "\\#hash\n"}, {"": "\\!bang\n"}, {"": "!bang\n"}, {"": "hash#\n"},
		{"": "back\\slash\n"}, {"": "back\\\\slash\n"}, {"": "star\\*\n"}, {"": "q\\?\n"}, {"": "\\[x]\n"}, {"": "[[]x]\n"}, {"": "[]]\n"}, {"": "[!]]\n"},
		{"": "[a-c].txt\n"}, {"": "[!a].txt\n"}, {"": "[^a].txt\n"}, {"": "x[-]y\n"}, {"": "x[a-]y\n"}, {"": "[[:upper:]]\n"}, {"": "[[:alpha:]].txt\n"},
		{"": "[[:nope:]]\n"}, {"": "[a\n"}, {"": "a[/]b\n"}, {"": "a?b\n"}, {"": "a*b/x\n"}, {"": "\xef\xbb\xbf*.txt\n"}, {"": "*.txt\r\n"}, {"": "*.txt"},
		{"": "\n\n#\n \n*.o\n"}, {"": "/\n"}, {"": "//\n"}, {"": "a//b\n"}, {"": "/*\n!/foo\n"}, {"": "\\\n"}, {"": "a\\\n"}, {"": "?\n"}, {"": "??\n"}, {"": "é\n"},
		{"": "/**/x\n"}, {"": "x/**/\n"}, {"": "/a/b/\n"}, {"": "./a\n"}, {"": "a/../a\n"}, {"": "tab\t\n"}, {"": "***/x\n"}, {"": "a/***/x\n"}, {"": "!\n"},
		{"": "a**b/x\n"}, {"": "**/\n"}, {"": "*/\n"}, {"": "*\n!*/\n!*.txt\n"}, {"": "[a-\\c].txt\n"}, {"": "**\\/x\n"},
	} {
		compareWithGit(t, dir, files, rules)
	}
}

// TestIgnoreLikeGitRandom compares random rules over random trees.
func TestIgnoreLikeGitRandom(t *testing.T) {
	needGit(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "b", "ab", "ba", "aab", "c", "a.b", "bc"}
	tokens := []string{"a", "b", "c", "a", "b", "*", "*", "**", "?", "/", "/", "**/", "/**", "[ab]", "[!a]", "[a-b]", "\\a", ".", "ab", "]", "[", "\\", " "}
	dir := t.TempDir()
	gitInit(t, dir)
	files := map[string]bool{}
	for range 60 {
		depth := 1 + rnd.IntN(4)
		parts := make([]string, depth)
		for i := range parts {
			parts[i] = names[rnd.IntN(len(names))]
		}
		p := filepath.Join(parts...)
		if os.MkdirAll(filepath.Join(dir, filepath.Dir(p)), 0o755) != nil {
			continue // a file is there
		}
		if os.WriteFile(filepath.Join(dir, p), nil, 0o644) == nil {
			files[p] = true
		}
	}
	list := slices.Sorted(maps.Keys(files))
	rules := func() string {
		var b strings.Builder
		for range 1 + rnd.IntN(4) {
			if rnd.IntN(4) == 0 {
				b.WriteString("!")
			}
			for range 1 + rnd.IntN(5) {
				b.WriteString(tokens[rnd.IntN(len(tokens))])
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	for range 200 {
		r := map[string]string{"": rules()}
		if rnd.IntN(2) == 0 {
			if sub := filepath.Dir(list[rnd.IntN(len(list))]); sub != "." {
				r[sub] = rules()
			}
		}
		compareWithGit(t, dir, list, r)
		if t.Failed() {
			return
		}
	}
}

func TestAddExclude(t *testing.T) {
	s := addStore(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"keep": "1", "a.log": "2", "sub/b.log": "3", "sub/c": "4", "sub/" + IgnoreFile: "!*.log\nc\n"})
	a := mustAdd(t, s, dir, AddOptions{Exclude: []string{"*.log", IgnoreFile}})
	got := contents(t, s, a.Tree)
	if len(got) != 2 || got["keep"] != "1" || got["sub"] != "dir" {
		t.Errorf("stored %q", got)
	}
	fromFS, err := s.AddFS(t.Context(), os.DirFS(dir), AddOptions{Exclude: []string{"*.log", IgnoreFile}})
	if err != nil {
		t.Fatal(err)
	}
	defer fromFS.Release()
	if fromFS.Tree != a.Tree {
		t.Errorf("from the fs.FS %s, from the path %s", fromFS.Tree, a.Tree)
	}
}

func FuzzIgnore(f *testing.F) {
	f.Add("a/**/b\n!c[a-z]*\n", "a/x/b", false)
	f.Add("[[:alpha:]\n**\\/", "a", true)
	f.Add("*a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false)
	f.Fuzz(func(t *testing.T, rules, path string, dir bool) {
		path = strings.Trim(path, "/")
		if path == "" || len(rules) > 200 || len(path) > 200 {
			return
		}
		var none *ignoreRules
		r := none.with("", []byte(rules))
		plain := r.ignored(path, dir)
		if r.with("", []byte("\n# nothing\n")).ignored(path, dir) != plain {
			t.Error("a comment changed the result")
		}
		if !strings.ContainsAny(path, "*?[\\\n\r\x00") && !strings.HasSuffix(path, " ") {
			if !r.with("", []byte("/"+path)).ignored(path, dir) {
				t.Errorf("%q does not match itself", path)
			}
			if r.with("", []byte("!/"+path)).ignored(path, dir) {
				t.Errorf("%q is not kept by its own negation", path)
			}
		}
	})
}
