package stages

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing that is wrong in a curi.yaml, and where.
type Problem struct {
	Line   int    `json:"line"` // from 1
	Column int    `json:"column"`
	Text   string `json:"message"`
}

// FileError is all that is wrong in a curi.yaml, in order of its lines. It
// wraps [ErrUsage].
type FileError struct {
	Path     string
	Problems []Problem
}

// Error tells the first problem and how many more there are.
func (e *FileError) Error() string {
	text := e.Line(e.Problems[0])
	if n := len(e.Problems) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more: curi stage check lists them)", n)
	}
	return text
}

// Unwrap returns [ErrUsage].
func (e *FileError) Unwrap() error { return ErrUsage }

// Line words one problem as compilers do, for editors to jump to.
func (e *FileError) Line(p Problem) string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Path, p.Line, p.Column, p.Text)
}

// The limits of what is read from one file: a small file of aliases to aliases
// is not to eat the machine.
const (
	maxAliased      = 100_000 // nodes, aliases taken apart, beyond those that the file's length allows
	maxFileDepth    = 60
	maxFileProblems = 1000
)

// fileReader walks the nodes of a curi.yaml and collects what is wrong.
type fileReader struct {
	problems []Problem
	said     map[Problem]bool
	nodes    int
	most     int  // nodes
	full     bool // that was exceeded, and said so
}

func newFileReader(size int) *fileReader {
	// No node is shorter than a byte and what parts it from the next.
	return &fileReader{said: map[Problem]bool{}, most: size + maxAliased}
}

func (r *fileReader) problem(n *yaml.Node, format string, args ...any) {
	p := Problem{Line: max(n.Line, 1), Column: max(n.Column, 1), Text: fmt.Sprintf(format, args...)}
	if !r.said[p] && len(r.problems) < maxFileProblems {
		r.said[p] = true
		r.problems = append(r.problems, p)
	}
}

// error returns what was collected, nil if nothing was.
func (r *fileReader) error(path string) error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return &FileError{Path: path, Problems: r.problems}
}

// see follows an alias to its anchor, and counts; nil where there is too much.
func (r *fileReader) see(n *yaml.Node) *yaml.Node {
	if r.nodes++; r.nodes > r.most {
		if !r.full {
			r.full = true
			r.problem(n, "the file is too large with its aliases taken apart")
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	if n.Kind != yaml.ScalarNode && n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!map" && n.Tag != "!!seq" {
		r.unknownTag(n)
	}
	return n
}

func (r *fileReader) unknownTag(n *yaml.Node) {
	r.problem(n, "the type %s means nothing here: leave it out", n.Tag)
}

// A pair is a key of a mapping with its value.
type pair struct {
	key   *yaml.Node
	name  string
	value *yaml.Node // no alias
}

// mapping returns the pairs of a mapping in order, with what "<<" merges in;
// none where n is no mapping, which is a problem. Null is an empty one.
func (r *fileReader) mapping(n *yaml.Node, what string) []pair {
	return r.pairs(n, what, 0)
}

func (r *fileReader) pairs(n *yaml.Node, what string, depth int) []pair {
	if n = r.see(n); n == nil || isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.problem(n, "%s: want a mapping (name: value), this is %s", what, kindOf(n))
		return nil
	}
	if depth > maxFileDepth {
		r.problem(n, "%s: nested too deep", what)
		return nil
	}
	var own, merged []pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := r.see(n.Content[i]), r.see(n.Content[i+1])
		if key == nil || value == nil {
			return own
		}
		if key.Kind != yaml.ScalarNode {
			r.problem(key, "%s: a name is a single word, this is %s", what, kindOf(key))
			continue
		}
		if key.Tag == "!!merge" {
			sources := []*yaml.Node{value}
			if value.Kind == yaml.SequenceNode {
				sources = value.Content
			}
			for _, source := range sources {
				merged = append(merged, r.pairs(source, what+": <<", depth+1)...)
			}
			continue
		}
		if line, twice := lines[key.Value]; twice {
			r.problem(key, "%s: %s stands here a second time, after line %d", what, key.Value, line)
			continue
		}
		lines[key.Value] = key.Line
		own = append(own, pair{key, key.Value, value})
	}
	for _, m := range merged {
		if _, given := lines[m.name]; !given {
			lines[m.name] = m.key.Line
			own = append(own, m)
		}
	}
	return own
}

// sequence returns the elements of a list; none where n is no list, which is a
// problem.
func (r *fileReader) sequence(n *yaml.Node, what string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.problem(n, "%s: want a list ([a, b]), this is %s", what, kindOf(n))
		return nil
	}
	var elements []*yaml.Node
	for _, e := range n.Content {
		if e = r.see(e); e == nil {
			break
		}
		elements = append(elements, e)
	}
	return elements
}

// text returns a single value as it is written.
func (r *fileReader) text(n *yaml.Node, what string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || isNull(n):
		r.problem(n, "%s: want a single value, this is %s", what, kindOf(n))
	case n.Tag == "!!binary":
		r.problem(n, "%s: no binary value can stand here", what)
	case n.Style&yaml.TaggedStyle != 0 && !strings.HasPrefix(n.Tag, "!!"):
		r.unknownTag(n)
	case strings.ContainsRune(n.Value, 0):
		r.problem(n, "%s: no text here can hold a NUL byte", what)
	default:
		return n.Value, true
	}
	return "", false
}

// notEmpty returns a single value that says something; "" where it does not.
func (r *fileReader) notEmpty(n *yaml.Node, what string) string {
	text, ok := r.text(n, what)
	if ok && text == "" {
		r.problem(n, "%s: it is empty: leave the line out, or write what is meant", what)
	}
	return text
}

// texts returns a list of single values; one alone may stand for its list.
func (r *fileReader) texts(n *yaml.Node, what string) (list []string, nodes []*yaml.Node) {
	elements := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode || isNull(n) {
		elements = r.sequence(n, what)
	}
	for _, e := range elements {
		if t, ok := r.text(e, what); ok {
			list, nodes = append(list, t), append(nodes, e)
		}
	}
	return list, nodes
}

func (r *fileReader) boolean(n *yaml.Node, what string) bool {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Value != "true" && n.Value != "false" {
		r.problem(n, "%s: want true or false, this is %s", what, kindOf(n))
	}
	return n.Value == "true"
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// kindOf words what a node is.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	}
	return fmt.Sprintf("%q", clip(n.Value))
}
