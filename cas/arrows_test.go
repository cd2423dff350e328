package cas_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/curi-store/curi"

// arrows says which packages of the module each may import:
//
//	cmd/curi ──► launcher ──► stages ──► cas ◄── fusefs ◄── cmd/curifs
//	    └──────► cas/remote ──────────────┘                     │
//	                 ▲ ▲                                        │
//	cmd/curi-bucket ─┤ └────────────────────────────────────────┘
//	                 └► cas/remote/bucket
//
// and all of them internal/fault, which is empty but in test builds, and those
// that look at mounts internal/mounts.
//
// launcher and fusefs meet at a path of the mount only, so that a run goes on
// in a mount that another process serves, and without one.
var arrows = map[string][]string{
	"internal/fault":  {},
	"internal/mounts": {},
	"cas":             {"internal/fault", "internal/mounts"},
	"cas/remote":      {"cas", "internal/fault"},
	// The only one that imports libraries of object stores.
	"cas/remote/bucket": {"cas", "cas/remote"},
	"stages":            {"cas", "internal/fault"},
	"launcher":          {"cas", "stages", "internal/fault", "internal/mounts"},
	"fusefs":            {"cas", "internal/fault", "internal/mounts"},
	"cmd/curi":          {"cas", "cas/remote", "stages", "launcher", "internal/fault", "internal/mounts"},
	"cmd/curi-bucket":   {"cas/remote", "cas/remote/bucket"},
	"cmd/curifs":        {"cas", "cas/remote", "fusefs", "internal/fault"},
}

// modules that cas may import; it is a library for others, who get all of its
// dependencies.
var casImports = []string{
	module + "/internal/fault",
	module + "/internal/mounts",
	"golang.org/x/sys/",
	"github.com/zeebo/blake3",
	"lukechampine.com/blake3/",
	"github.com/klauspost/compress/",
}

// processStarters are the files of stages that may start a process, which the
// package otherwise leaves to launcher: the commands whose output is part of a
// key (--tool), and git, which is asked what the code is for the record. Both
// are short, have no places and no signals of their own, and explaining a key
// needs the first without any run.
var processStarters = []string{"stages/tool.go", "stages/capture.go"}

// objectStores are the libraries that only the helper program carries.
var objectStores = []string{"gocloud.dev/", "github.com/aws/", "cloud.google.com/", "google.golang.org/", "github.com/Azure/"}

type sourceFile struct {
	pkg  string // directory relative to the module, slash-separated
	name string // path relative to the module
	ast  *ast.File
}

// sources parses every Go file of the module that is not a test, for whatever
// system it is.
func sources(t *testing.T) []sourceFile {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var files []sourceFile
	set := token.NewFileSet()
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if n := e.Name(); name != root && (n == "testdata" || n[0] == '.' || n[0] == '_') {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, sourceFile{path.Dir(rel), rel, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (f sourceFile) imports() []string {
	var list []string
	for _, i := range f.ast.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		list = append(list, p)
	}
	return list
}

func isStandard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}

func TestArrows(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range sources(t) {
		seen[f.pkg] = true
		for _, imp := range f.imports() {
			if inside, ok := strings.CutPrefix(imp, module+"/"); ok {
				if allowed, known := arrows[f.pkg]; known && !slices.Contains(allowed, inside) {
					t.Errorf("%s imports %s; %s may import only %v of the module", f.name, inside, f.pkg, allowed)
				}
			}
			if f.pkg == "cas" && !isStandard(imp) && !slices.ContainsFunc(casImports, func(p string) bool { return strings.HasPrefix(imp, p) }) {
				t.Errorf("%s imports %s; cas may import only the standard library and %v", f.name, imp, casImports)
			}
			if imp == "os/exec" && (f.pkg == "cas" || f.pkg == "stages" && !slices.Contains(processStarters, f.name)) {
				t.Errorf("%s imports os/exec; %s starts no process", f.name, f.pkg)
			}
			if f.pkg != "cas/remote/bucket" && slices.ContainsFunc(objectStores, func(p string) bool { return strings.HasPrefix(imp, p) }) {
				t.Errorf("%s imports %s, which is for cas/remote/bucket alone: who needs no object store is not to pay for it", f.name, imp)
			}
			if imp == "C" || imp == "log" && strings.HasPrefix(f.pkg, "cas") {
				t.Errorf("%s imports %q", f.name, imp)
			}
		}
	}
	for pkg := range arrows {
		if !seen[pkg] {
			t.Errorf("no package %s", pkg)
		}
	}
}

// A library reads no environment and prints nothing: whoever uses it decides.
func TestQuietLibrary(t *testing.T) {
	banned := map[string][]string{
		"os":      {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Stdout", "Stderr", "Stdin", "Exit", "TempDir", "UserHomeDir", "UserCacheDir", "UserConfigDir", "StartProcess"},
		"fmt":     {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
		"syscall": {"Getenv", "Environ", "ForkExec", "Exec", "StartProcess", "Exit"},
		"unix":    {"Getenv", "Environ", "Exec", "Exit"},
		"slog":    {"Default", "Debug", "Info", "Warn", "Error", "Log"},
	}
	for _, f := range sources(t) {
		if f.pkg != "cas" && f.pkg != "cas/remote" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				// A package's name is not resolved to a declaration in the file.
				if x, ok := n.X.(*ast.Ident); ok && slices.Contains(banned[x.Name], n.Sel.Name) && isImported(f, x.Name) {
					t.Errorf("%s uses %s.%s", f.name, x.Name, n.Sel.Name)
				}
			case *ast.CallExpr:
				if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "println" || x.Name == "print") {
					t.Errorf("%s calls %s", f.name, x.Name)
				}
			}
			return true
		})
	}
}

func isImported(f sourceFile, name string) bool {
	return slices.ContainsFunc(f.imports(), func(imp string) bool { return path.Base(imp) == name })
}
