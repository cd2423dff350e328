package stages

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Script is a Python program with options, as a stage might run it.
type Script struct {
	Stage   string // a name for its stage
	Path    string // relative, slash-separated
	Ranks   bool   // it is one of several processes, as torchrun starts them
	Options []ScriptOption
}

// ScriptOption is an option of a script, and what it seems to be for.
type ScriptOption struct {
	Flag    string // "--lr"; "" is an argument without one
	Name    string // "lr"
	Role    string // "in", "out", "work", "resume", "param", "flag"
	Default string // as it stands in the script, where that is a plain value; else ""
}

// The limits of a search for scripts.
const (
	maxScripts     = 12
	maxScriptDepth = 3
	maxScriptSize  = 1 << 20
)

// FindScripts finds the Python files of a project that take options by argparse
// or click, and its notebooks.
func FindScripts(dir string) ([]Script, error) {
	var scripts []Script
	names := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, ok := below(dir, path)
		if err != nil || !ok {
			return nil // what cannot be read is no project of this user's
		}
		if d.IsDir() {
			_, venv := os.Lstat(filepath.Join(path, "pyvenv.cfg"))
			if rel != "." && (skippedDir(d.Name()) || strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "tests" || venv == nil || strings.Count(rel, "/") >= maxScriptDepth) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(d.Name(), "test_") || info.Size() > maxScriptSize || len(scripts) == maxScripts {
			return nil
		}
		isNotebook := strings.HasSuffix(rel, ".ipynb")
		if !isNotebook && !strings.HasSuffix(rel, ".py") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		options := scriptOptions(string(source))
		if isNotebook {
			if options = nil; len(bytes.TrimSpace(notebookSource(source))) == 0 {
				return nil
			}
		} else if len(options) == 0 {
			return nil
		}
		s := Script{Stage: scriptStage(rel, names), Path: rel, Ranks: !isNotebook && ranksCall.Match(source), Options: options}
		names[s.Stage] = true
		scripts = append(scripts, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for scripts in %s: %w", dir, err)
	}
	return scripts, nil
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// scriptStage makes a name for a stage that none has yet.
func scriptStage(rel string, taken map[string]bool) string {
	name := notInName.ReplaceAllString(strings.TrimSuffix(strings.TrimSuffix(filepath.Base(rel), ".py"), ".ipynb"), "_")
	name = strings.TrimPrefix(strings.Trim(name, "-_"), "run_")
	if cas.CheckName(name) != nil || len(name) > 60 {
		name = "stage_" + fmt.Sprint(len(taken)+1)
	}
	for base, i := name, 2; taken[name]; i++ {
		name = fmt.Sprintf("%s_%d", base, i)
	}
	return name
}

// optionCall matches how argparse and click declare an option. What it declares
// goes up to where brackets close; a long one is cut.
var (
	optionCall    = regexp.MustCompile(`(?:add_argument|click\.(?:option|argument))\(`)
	quotedWord    = regexp.MustCompile(`^\s*["']([^"'\n]+)["']\s*(?:,|$)`)
	plainDefault  = regexp.MustCompile(`\bdefault\s*=\s*(-?[0-9][0-9._eE+-]*|"[^"\n\\]*"|'[^'\n\\]*'|True|False)\s*(?:,|$)`)
	storeTrue     = regexp.MustCompile(`store_true|store_false|is_flag\s*=\s*True`)
	otherAction   = regexp.MustCompile(`action\s*=\s*["'](?:version|help|count|append)`)
	inputOption   = regexp.MustCompile(`(?i)^(data|dataset|input|in|train|valid|val|test|source|src|corpus|images|pretrained)([-_]?(path|file|dir|root|folder|set))?s?$|^(input|dataset|data)[-_]`)
	outputOption  = regexp.MustCompile(`(?i)^(out|output|model|save|result|log|metric|report|export|dest|target)s?([-_]?(path|file|dir|root|folder))$|^(out|output)$`)
	workOption    = regexp.MustCompile(`(?i)(checkpoint|ckpt)s?[-_]?(dir|root|folder|path)`)
	resumeOption  = regexp.MustCompile(`(?i)^resume([-_](from|path|file|ckpt|checkpoint))*$`)
	ranksCall     = regexp.MustCompile(`\binit_process_group\(|environ(\.get\(|\[)["'](LOCAL_RANK|WORLD_SIZE)["']`)
	launchOptions = regexp.MustCompile(`(?i)^(help|version|local[-_]rank|rank)$`)
)

func scriptOptions(source string) []ScriptOption {
	var options []ScriptOption
	for _, at := range optionCall.FindAllStringIndex(source, 200) {
		call := callText(source[at[1]:])
		if otherAction.MatchString(call) {
			continue
		}
		o := ScriptOption{}
		for rest := call; ; {
			m := quotedWord.FindStringSubmatchIndex(rest)
			if m == nil {
				break
			}
			word := rest[m[2]:m[3]]
			rest = rest[m[1]:]
			if long := strings.HasPrefix(word, "--"); long || o.Name == "" && !strings.HasPrefix(word, "-") {
				o.Flag, o.Name = "", word
				if long {
					word, _, _ = strings.Cut(word, "/") // click's --shout/--no-shout
					o.Flag, o.Name = word, strings.TrimPrefix(word, "--")
					break
				}
			}
		}
		o.Name = strings.ReplaceAll(o.Name, "-", "_")
		if !paramName.MatchString(o.Name) || cas.CheckName(o.Name) != nil || strings.Contains(o.Name, ".") || launchOptions.MatchString(o.Name) ||
			slices.ContainsFunc(options, func(other ScriptOption) bool { return other.Name == o.Name }) {
			continue
		}
		if m := plainDefault.FindStringSubmatch(call); m != nil {
			o.Default = m[1]
		}
		switch {
		case storeTrue.MatchString(call):
			o.Role = "flag"
		case resumeOption.MatchString(o.Name):
			o.Role = "resume"
		case workOption.MatchString(o.Name):
			o.Role = "work"
		case outputOption.MatchString(o.Name):
			o.Role = "out"
		case inputOption.MatchString(o.Name), o.Flag == "" && o.Default == "": // it must be given
			o.Role = "in"
		default:
			o.Role = "param"
		}
		options = append(options, o)
	}
	tellResume(options)
	return options
}

// tellResume corrects the roles that depend on each other: beside a directory
// for checkpoints, the path of one is that to go on from; without a directory
// there is none.
func tellResume(options []ScriptOption) {
	dir := slices.ContainsFunc(options, func(o ScriptOption) bool { return o.Role == "work" && !strings.HasSuffix(o.Name, "path") })
	work := slices.ContainsFunc(options, func(o ScriptOption) bool { return o.Role == "work" })
	for i, o := range options {
		switch {
		case dir && o.Role == "work" && strings.HasSuffix(o.Name, "path"):
			options[i].Role = "resume"
		case !work && o.Role == "resume":
			options[i].Role = "param"
		}
	}
}

// callText is what stands between the brackets of a call.
func callText(s string) string {
	const most = 2000
	depth := 0
	for i := 0; i < len(s) && i < most; i++ {
		switch s[i] {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return s[:i]
			}
		}
	}
	return s[:min(len(s), most)]
}

const starterHead = `# The stages of this project. "curi help curi.yaml" and docs/curi-yaml.md tell all keys.
#
#   curi stage check             find every error in this file
#   curi stage exec NAME         bring a stage up to date, and first what it needs
#   curi stage exec --all        all of them, with all parameter sets
#   curi stage status            what is cached, what is stale, and why
`

const starterExample = `
stages:
  # A stage is a command with named inputs and outputs. Its result is taken from the
  # store as long as command, inputs, parameters and code are the same.
  hello:
    run: [sh, -c, "echo hello {param.name} > {out.greeting}"]
    params: {name: world}
    out: {greeting: greeting.txt}
`

const starterSets = `
# Parameter sets: values in place of those above. The first is the default.
# parameter_sets:
#   base: {}
#   small-lr: {lr: 0.001}
#   sweep: {grid: {lr: [0.1, 0.03, 0.01], seed: [1, 2]}}     # the product: six sets
`

const notebookStage = `
  # Found in %s, which is executed: the executed copy is the output. It finds
  # inputs and parameters in the environment (CURI_IN_…, CURI_PARAM_…).
  %s:
    run: [jupyter, nbconvert, --to, notebook, --execute, %s, --output, "{out.notebook}", --ExecutePreprocessor.record_timing=False]
    out: {notebook: executed.ipynb}
    via: env
`

// Starter is a curi.yaml to begin with. What the scripts' options are for is
// guessed, and said to be.
func Starter(project string, scripts []Script) string {
	var b strings.Builder
	b.WriteString(starterHead)
	if len(scripts) == 0 {
		b.WriteString(starterExample + starterSets)
		return b.String()
	}
	b.WriteString("\nstages:\n")
	for _, s := range scripts {
		s.write(&b)
	}
	b.WriteString(starterSets)
	return b.String()
}

func (s Script) write(b *strings.Builder) {
	if strings.HasSuffix(s.Path, ".ipynb") {
		fmt.Fprintf(b, notebookStage, s.Path, s.Stage, yamlWord(s.Path))
		return
	}
	fmt.Fprintf(b, "\n  # Found in %s; what is input, output and parameter is a guess.\n  %s:\n", s.Path, s.Stage)
	ins, outs, works, params := []string{}, []string{}, []string{}, []string{}
	run := []string{"python", yamlWord(s.Path)}
	if s.Ranks {
		run = []string{"torchrun", "--standalone", "--nproc_per_node", `"{param.num_gpus}"`, yamlWord(s.Path)}
		if !slices.ContainsFunc(s.Options, func(o ScriptOption) bool { return o.Name == "num_gpus" && o.Role == "param" && o.Default != "" }) {
			params = append(params, "num_gpus: 2")
		}
	}
	var left []string
	for _, o := range s.Options {
		value := ""
		switch o.Role {
		case "in":
			ins, value = append(ins, o.Name), "in"
		case "out":
			outs, value = append(outs, o.Name), "out"
		case "work":
			works, value = append(works, o.Name), "work"
		case "resume":
			if o.Flag != "" {
				run = append(run, o.Flag, `"{resume}"`)
			}
			continue
		case "param":
			if o.Default == "" {
				left = append(left, o.Flag)
				continue
			}
			params, value = append(params, o.Name+": "+yamlDefault(o.Default)), "param"
		default:
			left = append(left, o.Flag)
			continue
		}
		if o.Flag != "" {
			run = append(run, o.Flag)
		}
		run = append(run, fmt.Sprintf("%q", "{"+value+"."+o.Name+"}"))
	}
	b.WriteString("    run: [" + strings.Join(run, ", ") + "]\n")
	if len(left) > 0 {
		b.WriteString("    # not given, as no plain default value was found: " + strings.Join(left, " ") + "\n")
	}
	if len(ins) > 0 {
		b.WriteString("    in:\n")
		for _, name := range ins {
			fmt.Fprintf(b, "      %s: %s   # STAGE.OUTPUT, or an artifact (curi add PATH --name %s)\n", name, name, name)
		}
	}
	if len(outs) > 0 {
		b.WriteString("    out:\n")
		for _, name := range outs {
			slash := ""
			if strings.HasSuffix(name, "dir") || strings.HasSuffix(name, "folder") || strings.HasSuffix(name, "root") {
				slash = "/"
			}
			fmt.Fprintf(b, "      %s: %s%s   # a directory has a final slash\n", name, name, slash)
		}
	} else {
		b.WriteString("    # out: {result: result.txt}   # and \"{out.result}\" in run: without outputs nothing is kept but the log\n")
	}
	if len(works) > 0 {
		b.WriteString("    work: [" + strings.Join(works, ", ") + "]\n")
	}
	if len(params) > 0 {
		b.WriteString("    params: {" + strings.Join(params, ", ") + "}\n")
	}
	if s.Ranks {
		b.WriteString("    operational: [num_gpus]   # of no influence on the result: no part of the key\n")
	}
}

var plainYAML = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

func yamlWord(s string) string {
	if plainYAML.MatchString(s) {
		return s
	}
	return fmt.Sprintf("%q", s)
}

// yamlDefault writes a Python value as YAML.
func yamlDefault(value string) string {
	switch value {
	case "True":
		return "true"
	case "False":
		return "false"
	}
	if strings.HasPrefix(value, "'") || strings.HasPrefix(value, `"`) {
		return jsonString(value[1 : len(value)-1])
	}
	if typ, _ := inferParam(value); typ == "int" || typ == "float" {
		return value
	}
	return jsonString(value)
}
