package stages

import (
	"path/filepath"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Plan is a stage with everything that its key depends on looked up.
type Plan struct {
	Stage
	Project   Project
	In        []BoundInput
	CodeFile  []CodeFile // sorted by path
	Tool      []ToolResult
	EnvBound  []BoundEnv // sorted by name
	StdinBlob cas.Digest // what the command reads; zero: nothing (/dev/null)
	StdinTree cas.Digest // a tree with that blob, for a pin; zero without one
	StdinFrom string     // where it came from, for people
	ResumeRun Run        // what ResumeFrom names; zero without
	Lacks     []Lack     // what of the inputs is not in the store, see Bring
	Preimage  Preimage
	Key       Key
	Warnings  []string // for the person, one line each

	release []func()
}

// BoundEnv is a keyed variable as it is now; Value is nil if it is not set.
type BoundEnv struct {
	Name  string
	Value *string
}

// Release lets go of what Bind stored for the plan (what was read from
// standard input, a tree for a file inside another tree). Until then it cannot
// be collected. Call it when the run has pins of its own; the end of the
// process does it too.
func (p *Plan) Release() {
	for _, f := range p.release {
		f()
	}
	p.release = nil
}

// relDir is where the command runs, relative to the project, slash-separated.
func (p *Plan) relDir() string {
	rel, ok := relativeTo(p.Project.Dir, p.Dir)
	if !ok {
		return "."
	}
	return rel
}

// relativeTo returns path below dir, slash-separated. Symlinks in both are
// followed first where that is needed to tell.
func relativeTo(dir, path string) (string, bool) {
	if rel, ok := below(dir, path); ok {
		return rel, true
	}
	realDir, err1 := filepath.EvalSymlinks(dir)
	realPath, err2 := filepath.EvalSymlinks(path)
	if err1 != nil || err2 != nil {
		return "", false
	}
	return below(realDir, realPath)
}

func below(dir, path string) (string, bool) {
	rel, err := filepath.Rel(dir, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return "", false
	}
	return filepath.ToSlash(rel), true
}
