package stages

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// RecordFormat is the newest format of a record that this package writes.
const RecordFormat = 1

// Record is record.json of a result: what was given, run and written. Fields
// of a later version are kept in Unknown and written again.
//
// Format, Key and Preimage come first in the JSON, so that a look-up can
// check them without reading the rest.
type Record struct {
	Format   int      `json:"format"`
	Key      string   `json:"key"`
	Preimage Preimage `json:"preimage"`

	Run     string  `json:"run"`
	Project string  `json:"project"`
	Stage   string  `json:"stage"`
	Status  Status  `json:"status"`
	Exit    int     `json:"exit_status"`
	Attempt int     `json:"attempt"`
	Seconds float64 `json:"seconds"`

	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	User    string    `json:"user"`
	Curi    string    `json:"curi"` // version of curi

	Dir      string       `json:"dir"`     // where it ran, relative to the project
	Command  []string     `json:"command"` // placeholders unresolved
	Argv     []string     `json:"argv"`    // resolved; secrets by name
	Shell    bool         `json:"shell"`
	CleanEnv bool         `json:"clean_env"`
	Stdin    *RecordStdin `json:"stdin"`

	Params  []RecordParam  `json:"params"`
	Inputs  []RecordInput  `json:"inputs"`
	Code    []CodeFile     `json:"code"`
	Tools   []ToolResult   `json:"tools"`
	Env     []RecordEnv    `json:"env"`
	Outputs []RecordOutput `json:"outputs"`
	Work    []string       `json:"work"`

	Git         *GitState   `json:"git"`
	Python      *PythonEnv  `json:"python"`
	ResumedFrom *RecordLink `json:"resumed_from"`
	Accepted    *Acceptance `json:"accepted"`
	Nodes       []Node      `json:"nodes"`

	// Reads is what the command was seen to read; null while nobody looks.
	Reads json.RawMessage `json:"reads"`

	Unknown map[string]json.RawMessage `json:"-"`
}

// RecordStdin is what the command read as its standard input.
type RecordStdin struct {
	Ref    string     `json:"ref"` // "-" for the caller's
	Digest cas.Digest `json:"digest"`
}

// RecordParam is a parameter as it was given and as it was keyed.
type RecordParam struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	Value       string `json:"value"` // canonical
	Raw         string `json:"raw"`
	Operational bool   `json:"operational"`
}

// RecordInput is an input as it was bound.
type RecordInput struct {
	Name     string     `json:"name"`
	Ref      string     `json:"ref"`
	From     string     `json:"from"`
	Tree     cas.Digest `json:"tree"`
	File     string     `json:"file,omitempty"` // of a single file: its path in the tree
	Writable bool       `json:"writable"`
	Of       []string   `json:"of,omitempty"` // of an aggregate: the outputs that it was made of
}

// RecordEnv is a keyed variable; Value is null if it was not set.
type RecordEnv struct {
	Name  string  `json:"name"`
	Value *string `json:"value"`
}

// ToolResult is what a --tool command said.
type ToolResult struct {
	Command string     `json:"command"`
	Digest  cas.Digest `json:"digest"` // of its whole output
	Line    string     `json:"line"`   // the first line, at most 200 bytes
}

// RecordOutput is a declared output and, after success, what was written.
type RecordOutput struct {
	Name     string            `json:"name"`
	Path     string            `json:"path"`
	Dir      bool              `json:"dir"`
	Optional bool              `json:"optional"`
	From     string            `json:"from,omitempty"`
	Meta     map[string]string `json:"meta"`
	Publish  []string          `json:"publish"`
	Tree     cas.Digest        `json:"tree"`   // "" if it was not written
	Digest   cas.Digest        `json:"digest"` // of a single file: the file's own, else Tree
	Bytes    int64             `json:"bytes"`
	Files    int64             `json:"files"`
}

// RecordLink names another run's record.
type RecordLink struct {
	Run        string     `json:"run"`
	Record     cas.Digest `json:"record"`               // of its record.json
	Checkpoint string     `json:"checkpoint,omitempty"` // of it, that {resume} was: NAME/PATH of a work directory
	Snapshot   cas.Digest `json:"snapshot,omitzero"`    // of its work directories, if what they left came from one
}

// Acceptance says that nothing ran: the outputs are another run's, published
// under this key by a person.
type Acceptance struct {
	Run     string     `json:"run"`
	Key     string     `json:"key"` // under which it ran
	Record  cas.Digest `json:"record"`
	Message string     `json:"message"`
}

// Node is one machine that took part.
type Node struct {
	Host   string   `json:"host"`
	Exit   int      `json:"exit_status"`
	OS     string   `json:"os"`
	Arch   string   `json:"arch"`
	Kernel string   `json:"kernel"`
	CPUs   int      `json:"cpus"`
	GPUs   []string `json:"gpus"`   // models
	Driver string   `json:"driver"` // of the GPUs
	// Log is what the command printed there, a path in the run's tree; "" for
	// the first, whose is log.txt, and where it is not known.
	Log string `json:"log,omitempty"`
}

// GitState is the state of the project's repository when the run began.
type GitState struct {
	Commit    string      `json:"commit"`
	Branch    string      `json:"branch"`
	Remote    string      `json:"remote"`
	Dirty     bool        `json:"dirty"`
	Diff      string      `json:"diff"` // against Commit
	DiffNote  string      `json:"diff_note,omitempty"`
	Untracked []Untracked `json:"untracked"`
}

// Untracked is a file that git neither tracks nor ignores: Text or Base64
// hold it whole, or neither where it exceeds a limit.
type Untracked struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Text   string `json:"text,omitempty"`
	Base64 []byte `json:"base64,omitempty"`
	Note   string `json:"note,omitempty"` // why the content is not here
}

// PythonEnv is the Python that the command uses.
type PythonEnv struct {
	Path     string          `json:"path"`
	Packages []PythonPackage `json:"packages"`
}

// PythonPackage is an installed distribution.
type PythonPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// NewRecord is the record of a plan before it ran: all that the plan knows.
func NewRecord(p *Plan) *Record {
	r := &Record{
		Format: RecordFormat, Key: p.Key.String(), Preimage: p.Preimage,
		Project: p.Project.Name, Stage: p.Name, Dir: p.relDir(),
		Command: slices.Clone(p.Command), Shell: p.Shell, CleanEnv: p.CleanEnv,
		Code: slices.Clone(p.CodeFile), Tools: slices.Clone(p.Tool),
		Work: slices.Clone(p.Work),
	}
	if p.Stdin != "" {
		r.Stdin = &RecordStdin{Ref: p.Stdin, Digest: p.StdinBlob}
	}
	for _, q := range p.Params {
		r.Params = append(r.Params, RecordParam{q.Name, q.Type, q.Canonical, q.Raw, q.Operational})
	}
	for _, in := range p.In {
		r.Inputs = append(r.Inputs, RecordInput{in.Name, in.Ref, in.From, in.Tree, in.Single, in.Writable, in.Of})
	}
	for _, v := range p.EnvBound {
		r.Env = append(r.Env, RecordEnv(v))
	}
	for _, o := range p.Outputs {
		r.Outputs = append(r.Outputs, RecordOutput{Name: o.Name, Path: o.Path, Dir: o.Dir,
			Optional: o.Optional, From: o.From, Meta: o.Meta, Publish: o.Publish})
	}
	return r
}

// Output returns the output called name, to be filled; nil if there is none.
func (r *Record) Output(name string) *RecordOutput {
	for i := range r.Outputs {
		if r.Outputs[i].Name == name {
			return &r.Outputs[i]
		}
	}
	return nil
}

// Encode returns the JSON, indented, with a final newline.
func (r *Record) Encode() ([]byte, error) {
	w := *r
	w.fillEmpty()
	b, err := json.MarshalIndent((*recordFields)(&w), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the record of %s: %w", r.Run, err)
	}
	if len(r.Unknown) == 0 {
		return append(b, '\n'), nil
	}
	extra, err := json.MarshalIndent(r.Unknown, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the record of %s: %w", r.Run, err)
	}
	// Both are objects with one member at least: join them.
	b = bytes.TrimSuffix(b, []byte("\n}"))
	extra = bytes.TrimPrefix(extra, []byte("{"))
	return append(append(append(b, ','), extra...), '\n'), nil
}

// recordFields has the fields of a Record without its methods.
type recordFields Record

// fillEmpty makes lists "[]" instead of "null": readers need not tell them apart.
func (r *Record) fillEmpty() {
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() == reflect.Slice && f.IsNil() && f.Type() != reflect.TypeFor[json.RawMessage]() {
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
	r.Outputs = slices.Clone(r.Outputs)
	for i := range r.Outputs {
		o := &r.Outputs[i]
		if o.Meta == nil {
			o.Meta = map[string]string{}
		}
		if o.Publish == nil {
			o.Publish = []string{}
		}
	}
}

// ParseRecord parses record.json. Fields of a known name must have the right
// type; unknown ones are kept. The error wraps cas.ErrCorrupt, or
// cas.ErrFormat for a record of a later format.
func ParseRecord(b []byte) (*Record, error) {
	var all map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("record: %w: %v", cas.ErrCorrupt, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("record: %w: more than one JSON value", cas.ErrCorrupt)
	}
	if all == nil {
		return nil, fmt.Errorf("record: %w: not a JSON object", cas.ErrCorrupt)
	}
	// encoding/json matches names whatever their case; ours are exact.
	known := map[string]json.RawMessage{}
	t := reflect.TypeFor[Record]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if v, ok := all[name]; ok && name != "-" {
			known[name] = v
			delete(all, name)
		}
	}
	b, err := json.Marshal(known)
	if err != nil {
		return nil, fmt.Errorf("record: %w: %v", cas.ErrCorrupt, err)
	}
	r := new(Record)
	if err := json.Unmarshal(b, (*recordFields)(r)); err != nil {
		return nil, fmt.Errorf("record: %w: %v", cas.ErrCorrupt, err)
	}
	if r.Format > RecordFormat {
		return nil, fmt.Errorf("record of format %d, this curi reads up to %d: %w; use a newer curi", r.Format, RecordFormat, cas.ErrFormat)
	}
	if r.Format < 1 || r.Key == "" || r.Run == "" {
		return nil, fmt.Errorf("record: %w: format, key or run is missing", cas.ErrCorrupt)
	}
	if err := r.checkNames(); err != nil {
		return nil, fmt.Errorf("record: %w: %v", cas.ErrCorrupt, err)
	}
	if len(all) > 0 {
		r.Unknown = all
	}
	return r, nil
}

// checkNames refuses names that no stage could have declared: whoever makes the
// places of a run again would follow them out of its directory.
func (r *Record) checkNames() error {
	for _, in := range r.Inputs {
		if err := cas.CheckName(in.Name); err != nil {
			return err
		}
		if in.File != "" && !filepath.IsLocal(in.File) {
			return fmt.Errorf("input %s: the path %q leads out of its tree", in.Name, in.File)
		}
	}
	for _, o := range r.Outputs {
		if err := cas.CheckName(o.Name); err != nil {
			return err
		}
		if !filepath.IsLocal(o.Path) {
			return fmt.Errorf("output %s: the path %q leads out of its directory", o.Name, o.Path)
		}
	}
	for _, w := range r.Work {
		if err := cas.CheckName(w); err != nil {
			return err
		}
	}
	return nil
}
