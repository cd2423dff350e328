package stages

import (
	"context"
	"io"

	"github.com/curi-store/curi/cas"
)

// Stage is one stage as it was asked for, on the command line or in
// curi.yaml, before anything is looked up.
type Stage struct {
	Name     string
	Command  []string // placeholders unresolved
	Shell    bool     // Command is one element, run by sh -c
	Inputs   []Input
	Outputs  []Output
	Work     []string
	Params   []Param
	Code     []string // globs relative to the caller's directory
	Tools    []string // shell commands whose output is keyed
	Env      []EnvVar // keyed variables
	CleanEnv bool
	Stdin    string  // "", "-", or a REF
	StdinIs  *Target // what that REF means, where the caller has looked it up

	// Resume says what a checkpoint is, for {resume}; nil: by its form.
	Resume *ResumeRule
	// ResumeFrom names a run, with a copy of whose work directories the first
	// try begins, whatever its key; "" for none. In a plan it is the run's id.
	ResumeFrom string

	Dir string // the caller's directory, absolute: the command runs there

	// Environ is where --env without a value, --tool commands and PYTHONPATH
	// look; nil is the environment of this process. It may hold secrets, and is
	// not stored with a plan.
	Environ []string `json:"-"`
	// Elsewhere, if it is set, finds what a REF means on a remote.
	Elsewhere Elsewhere `json:"-"`
	// StdinReader is what Stdin "-" reads, to its end; nil is the standard
	// input of this process.
	StdinReader io.Reader `json:"-"`
}

// Elsewhere finds what a REF means on a remote, and keeps that until release,
// which is nil where the REF names none.
type Elsewhere func(ctx context.Context, ref string) (t Target, release func(), err error)

// Input binds a name to what a REF means when the stage is bound.
type Input struct {
	Name     string
	Ref      string
	Writable bool    // --in-rw
	Is       *Target // what Ref means, where the caller has looked it up; a root tree or a path inside one
}

// Output is a declared output.
type Output struct {
	Name     string
	Path     string // relative, slash-separated; a directory output's has no final slash
	Dir      bool
	Optional bool
	From     string            // --out-from: the path that the program insists on, absolute or relative to Dir
	Meta     map[string]string // keys without "user.curi."
	Publish  []string          // artifact names; not part of the key
}

// EnvVar is a keyed variable: with Value as given, else as inherited.
type EnvVar struct {
	Name  string
	Value *string
}

// BoundInput is an Input with the tree that its REF means now.
type BoundInput struct {
	Input
	Tree   cas.Digest
	Single string // path of the one file inside the tree; "" for a directory
	Meta   map[string]string
	From   string   // "digits@2", "train-7f3k2m.model": where it came from
	Of     []string // outputs of which it was made, for an aggregate
}
