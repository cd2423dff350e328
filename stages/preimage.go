package stages

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/curi-store/curi/cas"
)

// Preimage is the readable text that the key is the hash of, one component a
// line; the first is the version.
//
// A line is words and quoted texts. In a quoted text, '"', '\', control
// characters and bytes that are no UTF-8 are escaped, so no value can end a
// line, forge a component or equal another.
type Preimage string

const preimageVersion = "curi stage key v1"

// quoteText never depends on Unicode tables, which change with versions of Go.
func quoteText(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
			i++
		case c == '\n':
			b.WriteString(`\n`)
			i++
		case c == '\t':
			b.WriteString(`\t`)
			i++
		case c < 0x20 || c == 0x7f:
			b.WriteString(`\x`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			i++
		case c < 0x80:
			b.WriteByte(c)
			i++
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			// U+0080–U+009F, line and paragraph separators and marks that turn
			// text around would fool whoever reads the line.
			if r == utf8.RuneError && size == 1 || r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
				for j := range size {
					b.WriteString(`\x`)
					b.WriteByte(hex[s[i+j]>>4])
					b.WriteByte(hex[s[i+j]&15])
				}
			} else {
				b.WriteString(s[i : i+size])
			}
			i += size
		}
	}
	b.WriteByte('"')
	return b.String()
}

// preimage writes the text of a bound plan. Not part of it: the stage's name,
// the names outputs are published under, operational parameters, time limits,
// and where, by whom and on which machine it runs.
func (p *Plan) preimage() Preimage {
	var lines []string
	add := func(words ...string) { lines = append(lines, strings.Join(words, " ")) }
	add(preimageVersion)
	if p.Shell {
		add("shell")
	}
	for _, a := range p.Command {
		add("argv", quoteText(a))
	}
	if dir := p.relDir(); dir != "." {
		add("dir", quoteText(dir))
	}
	if p.Stdin != "" {
		add("stdin", p.StdinBlob.String())
	}
	if p.CleanEnv {
		add("clean-env")
	}
	sorted := len(lines)
	for _, in := range p.In {
		words := []string{"input", quoteText(in.Name), in.Tree.String()}
		if in.Writable {
			words = append(words, "writable")
		}
		add(words...)
	}
	for _, q := range p.Params {
		if !q.Operational {
			add("param", quoteText(q.Name), q.Type, quoteText(q.Canonical))
		}
	}
	for _, c := range p.CodeFile {
		add("code", quoteText(c.Path), c.Digest.String())
	}
	for _, v := range p.EnvBound {
		if v.Value == nil {
			add("env", quoteText(v.Name), "unset")
		} else {
			add("env", quoteText(v.Name), "=", quoteText(*v.Value))
		}
	}
	for _, t := range p.Tool {
		add("tool", quoteText(t.Command), t.Digest.String(), quoteText(t.Line))
	}
	for _, o := range p.Outputs {
		addOutput(add, o)
	}
	for _, w := range p.Work {
		add("work", quoteText(w))
	}
	if p.ResumeFrom != "" {
		add("resume-from", quoteText(p.ResumeFrom))
	}
	// The order of options on the command line means nothing; that of argv does.
	slices.Sort(lines[sorted:])
	return Preimage(strings.Join(lines, "\n") + "\n")
}

func addOutput(add func(...string), o Output) {
	kind := "file"
	if o.Dir {
		kind = "dir"
	}
	words := []string{"output", quoteText(o.Name), kind, quoteText(o.Path)}
	if o.Optional {
		words = append(words, "optional")
	}
	if o.From != "" {
		words = append(words, "from", quoteText(o.From))
	}
	add(words...)
	for k, v := range o.Meta {
		add("meta", quoteText(o.Name), quoteText(k), quoteText(v))
	}
}

// Lines returns the components without the line ends.
func (p Preimage) Lines() []string {
	return strings.Split(strings.TrimSuffix(string(p), "\n"), "\n")
}

// CodeFile is a keyed file of the project.
type CodeFile struct {
	Path   string     `json:"path"` // slash-separated, relative to the project
	Digest cas.Digest `json:"digest"`
}
