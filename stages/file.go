package stages

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// FileName is what a project's file is called.
const FileName = "curi.yaml"

// File is a parsed curi.yaml: the stages of a project and their parameter
// sets. It is never changed.
type File struct {
	Path    string
	Project string // "" where the file does not say
	Capture string
	Stages  []*FileStage // in order of the file
	Sets    []Set        // likewise, grids taken apart; at least one
	HasSets bool         // the file has parameter_sets; else Sets is one without a name

	byName map[string]*FileStage
}

// FileStage is a stage of a file: what the options of `curi stage exec` say,
// and what only a file can.
type FileStage struct {
	// Stage is as the command line makes it, with the parameters that the
	// stage itself gives. Dir and Environ are not set.
	Stage

	Aggregate string // the stage over whose parameter sets this one runs once; ""
	ViaEnv    bool   // the command reads CURI_ variables, so it need not name everything
	Timeout   time.Duration
	Grace     time.Duration
	Snapshot  time.Duration
	Retries   int
	Resources map[string]string // by kind: a number, or {param.N}
	Launcher  *LauncherChoice
	Line      int

	at     map[string]*yaml.Node // where things stand: "in.data", "param.lr", "run.3"
	broken bool                  // it could not be read whole: what it lacks may be there
}

// LauncherChoice says what runs a stage, with options of its own as they are
// written, and where it stands.
type LauncherChoice struct {
	Name         string
	Options      map[string]string
	Line, Column int
}

// launchers are those that `launcher:` may name.
var launchers = []string{"local", "slurm"}

// Stage returns the stage called name, nil if there is none.
func (f *File) Stage(name string) *FileStage { return f.byName[name] }

// StageNames lists the stages in order of the file.
func (f *File) StageNames() []string {
	names := make([]string, len(f.Stages))
	for i, st := range f.Stages {
		names[i] = st.Name
	}
	return names
}

// LoadFile reads the curi.yaml of a project. What is wrong in it is a
// *[FileError]; a project without one is an error that wraps fs.ErrNotExist.
func LoadFile(p Project) (*File, error) {
	path := filepath.Join(p.Dir, FileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noFileError{fmt.Sprintf("there is no %s in %s or above it: curi init writes one", FileName, p.Dir)}
	}
	if err != nil {
		return nil, fmt.Errorf("read the project's file: %w", err)
	}
	return ParseFile(b, path)
}

// noFileError says that a project has no file.
type noFileError struct{ msg string }

func (e noFileError) Error() string { return e.msg }
func (e noFileError) Unwrap() error { return fs.ErrNotExist }

// fileKeys are the keys at the top of a file.
var fileKeys = []string{"project", "capture", "stages", "parameter_sets"}

// ParseFile parses a curi.yaml and checks all that can be said of it without a
// store. path is for messages. What is wrong is a *[FileError] with every
// problem at once.
func ParseFile(b []byte, path string) (*File, error) {
	r := newFileReader(len(b))
	doc, fault := parseYAML(b)
	if fault != nil {
		return nil, &FileError{Path: path, Problems: []Problem{*fault}}
	}
	f := &File{Path: path, byName: map[string]*FileStage{}}
	if len(doc.Content) > 0 { // else the file is empty
		f.read(r, doc.Content[0])
	}
	if !f.HasSets {
		f.Sets = []Set{{}}
	}
	if !r.full {
		f.check(r)
	}
	if err := r.error(path); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) read(r *fileReader, top *yaml.Node) {
	var sets *yaml.Node
	for _, p := range r.mapping(top, FileName) {
		switch p.name {
		case "project":
			f.Project, _ = r.text(p.value, "project")
		case "capture":
			if f.Capture = r.notEmpty(p.value, "capture"); f.Capture != "" && f.Capture != CaptureNone {
				r.problem(p.value, "capture: %q is unknown: write none, or leave the line out", f.Capture)
			}
		case "stages":
			for _, s := range r.mapping(p.value, "stages") {
				before := len(r.problems)
				st := r.stage(s)
				st.broken = len(r.problems) > before
				f.Stages = append(f.Stages, st)
				f.byName[st.Name] = st
			}
		case "parameter_sets":
			sets = p.value
		default:
			r.unknownKey(p, "", fileKeys)
		}
	}
	if sets != nil {
		f.HasSets = true
		f.Sets = r.sets(sets)
	}
}

// unknownKey reports a key that is none of keys. Those that begin with "x-" are
// left to people, for anchors.
func (r *fileReader) unknownKey(p pair, where string, keys []string) {
	if strings.HasPrefix(p.name, "x-") {
		return
	}
	if where != "" {
		where += ": "
	}
	hint := suggest(p.name, keys, "%s")
	if hint == "" {
		hint = ": the keys are " + strings.Join(keys, ", ")
	}
	r.problem(p.key, "%sunknown key %q%s", where, p.name, hint)
}
