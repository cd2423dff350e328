package stages

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// check refuses what can never be right, before anything is looked up.
func (p *Plan) check() error {
	if err := checkName("the stage's name", p.Name); err != nil {
		return err
	}
	if len(p.Name) > 100-1-runIDLength {
		return usagef("the stage's name is longer than %d bytes", 100-1-runIDLength)
	}
	if len(p.Command) == 0 || p.Command[0] == "" {
		return usagef("there is no command: write it after --")
	}
	if p.Shell && len(p.Command) != 1 {
		return usagef("--shell takes one argument, the text for sh -c; there are %d: quote it", len(p.Command))
	}
	for _, a := range p.Command {
		if strings.ContainsRune(a, 0) {
			return usagef("an argument of the command holds a NUL byte")
		}
	}
	if !filepath.IsAbs(p.Dir) {
		return usagef("the directory %q is not absolute", p.Dir)
	}
	for _, f := range []func() error{p.checkNames, p.checkOutputs, p.checkEnv, p.checkResume, p.checkPlaceholders} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) checkNames() error {
	seen := map[string]bool{}
	name := func(what, n string) error {
		if err := checkName(what, n); err != nil {
			return err
		}
		if seen[what+n] {
			return usagef("%s %s is declared twice", what, n)
		}
		seen[what+n] = true
		return nil
	}
	for _, in := range p.Inputs {
		if err := name("input", in.Name); err != nil {
			return err
		}
		if in.Ref == "" {
			return usagef("input %s: the REF is empty: write %s=REF", in.Name, in.Name)
		}
	}
	for _, o := range p.Outputs {
		if err := name("output", o.Name); err != nil {
			return err
		}
		if o.Name == "work" {
			return usagef("output work: the name is taken, RUN.work/NAME are work directories: choose another")
		}
	}
	for _, w := range p.Work {
		if err := name("work directory", w); err != nil {
			return err
		}
	}
	for _, q := range p.Params {
		if seen["parameter"+q.Name] {
			return usagef("parameter %s is given twice", q.Name)
		}
		seen["parameter"+q.Name] = true
	}
	return p.checkVariables()
}

// checkVariables refuses names that would meet in one environment variable.
func (p *Plan) checkVariables() error {
	seen := map[string]string{}
	one := func(kind, n string) error {
		v := EnvironmentName(kind, n)
		if other, ok := seen[v]; ok && other != n {
			return usagef("%s and %s would both be the variable %s: rename one", other, n, v)
		}
		seen[v] = n
		return nil
	}
	for _, in := range p.Inputs {
		if err := one("IN", in.Name); err != nil {
			return err
		}
	}
	for _, o := range p.Outputs {
		if err := one("OUT", o.Name); err != nil {
			return err
		}
	}
	for _, w := range p.Work {
		if err := one("WORK", w); err != nil {
			return err
		}
	}
	for _, q := range p.Params {
		if err := one("PARAM", q.Name); err != nil {
			return err
		}
	}
	return nil
}

// EnvironmentName is the variable that hands a name over: kind is IN, OUT,
// WORK, PARAM or META. What no variable's name can hold becomes '_'.
func EnvironmentName(kind string, names ...string) string {
	v := "CURI_" + kind + "_" + strings.Join(names, "_")
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, v)
}

func (p *Plan) checkOutputs() error {
	froms := map[string]string{}
	for _, o := range p.Outputs {
		if o.Path == "" || path.IsAbs(o.Path) || strings.ContainsRune(o.Path, 0) {
			return usagef("output %s: the path %q is not relative: it names the file below the output's own directory", o.Name, o.Path)
		}
		clean := path.Clean(o.Path)
		if why := tooLong(clean); why != "" {
			return usagef("output %s: the path %.60q… %s: choose a shorter one", o.Name, o.Path, why)
		}
		if clean == "." && !o.Dir || clean == ".." || strings.HasPrefix(clean, "../") {
			return usagef("output %s: the path %q leads out of the output's own directory", o.Name, o.Path)
		}
		if o.From != "" {
			if strings.ContainsRune(o.From, 0) {
				return usagef("output %s: the path %q holds a NUL byte", o.Name, o.From)
			}
			if why := tooLong(filepath.ToSlash(o.From)); why != "" {
				return usagef("output %s: the path %.60q… %s: no program can write there", o.Name, o.From, why)
			}
			from := filepath.Clean(o.From)
			if !filepath.IsAbs(from) {
				from = filepath.Join(p.Dir, from)
			}
			if other, ok := froms[from]; ok {
				return usagef("outputs %s and %s both take over %s", other, o.Name, o.From)
			}
			froms[from] = o.Name
		}
		for k, v := range o.Meta {
			if k == "" || strings.ContainsAny(k, "\x00=") || strings.ContainsRune(v, 0) {
				return usagef("output %s: %q is no key of metadata", o.Name, k)
			}
		}
		if err := CheckMeta(o.Meta); err != nil {
			return usagef("output %s: its metadata cannot be stored: %v", o.Name, err)
		}
		for _, n := range o.Publish {
			if err := checkName("output "+o.Name+": publish", n); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxPath is how long the path of an output may be, in bytes: below a mount
// point it must stay within what a system call takes (4,096).
const (
	maxPath     = 2000
	maxPathPart = 255
)

// tooLong says what no file can be called; "" if it can.
func tooLong(path string) string {
	if len(path) > maxPath {
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(path), maxPath)
	}
	for part := range strings.SplitSeq(path, "/") {
		if len(part) > maxPathPart {
			return fmt.Sprintf("has a part of %d bytes, at most %d are allowed", len(part), maxPathPart)
		}
	}
	return ""
}

// CheckMeta reports why metadata cannot be stored with an output: too many
// keys, or too long ones. What the command may yet add is judged later.
func CheckMeta(meta map[string]string) error {
	_, err := (&cas.Tree{Attrs: cas.MetaAttrs(meta)}).Encode()
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "encode tree: ")
	return usagef("%s", strings.TrimSuffix(text, ": "+cas.ErrInvalid.Error()))
}

// rankVariables are set by whatever starts the ranks of a job, and differ
// from rank to rank and from try to try.
var rankVariables = struct{ names, prefixes []string }{
	names:    []string{"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"},
	prefixes: []string{"MASTER_", "TORCHELASTIC_", "OMPI_", "PMI", "SLURM_", "PET_"},
}

// IsRankVariable reports whether a launcher of ranks sets the variable: such
// are never keyed.
func IsRankVariable(name string) bool {
	return slices.Contains(rankVariables.names, name) || slices.ContainsFunc(rankVariables.prefixes, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}

func (p *Plan) checkEnv() error {
	seen := map[string]bool{}
	for _, v := range p.Env {
		switch {
		case !envName.MatchString(v.Name):
			return usagef("--env %q: not the name of an environment variable", v.Name)
		case seen[v.Name]:
			return usagef("--env %s is given twice", v.Name)
		case IsRankVariable(v.Name):
			return usagef("--env %s: the launcher of the ranks sets it, so it is never keyed: leave the option out, the command gets the variable anyway", v.Name)
		case v.Name == "TMPDIR":
			return usagef("--env TMPDIR: curi itself sets TMPDIR for the command, to a directory of the run: leave the option out")
		case strings.HasPrefix(v.Name, "CURI_"):
			return usagef("--env %s: curi itself sets CURI_ variables for the command: choose another name", v.Name)
		case v.Value != nil && strings.ContainsRune(*v.Value, 0):
			return usagef("--env %s: the value holds a NUL byte", v.Name)
		}
		seen[v.Name] = true
	}
	return nil
}

func (p *Plan) bindEnv() {
	for _, v := range p.Env {
		b := BoundEnv(v)
		if b.Value == nil {
			if inherited, ok := lookupEnv(p.Environ, v.Name); ok {
				b.Value = &inherited
			}
		}
		p.EnvBound = append(p.EnvBound, b)
	}
	slices.SortFunc(p.EnvBound, func(a, b BoundEnv) int { return strings.Compare(a.Name, b.Name) })
}

// lookupEnv finds a variable in "NAME=value" lines; the last one counts.
func lookupEnv(environ []string, name string) (string, bool) {
	for _, line := range slices.Backward(environ) {
		if n, v, ok := strings.Cut(line, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// variable is a variable of the command's environment, "" if it has none.
func (p *Plan) variable(name string) string {
	value, _ := lookupEnv(p.Environ, name)
	for _, v := range p.Env {
		if v.Name == name && v.Value != nil {
			value = *v.Value
		}
	}
	return value
}

// pythonPath is PYTHONPATH as the command will see it.
func (p *Plan) pythonPath() []string {
	value := p.variable("PYTHONPATH")
	if p.CleanEnv && !slices.ContainsFunc(p.Env, func(v EnvVar) bool { return v.Name == "PYTHONPATH" }) {
		value = ""
	}
	var dirs []string
	for _, d := range strings.Split(value, string(os.PathListSeparator)) {
		if d == "" {
			continue
		}
		if !filepath.IsAbs(d) {
			d = filepath.Join(p.Dir, d)
		}
		dirs = append(dirs, d)
	}
	return dirs
}
