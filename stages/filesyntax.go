package stages

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML parses a file of one document; no content is an empty file. What
// keeps it from being one is a problem.
func parseYAML(b []byte) (doc yaml.Node, fault *Problem) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return doc, syntaxProblem(b, err)
	}
	var more yaml.Node
	switch err := d.Decode(&more); {
	case err == nil:
		return doc, &Problem{Line: max(more.Line, 1), Column: max(more.Column, 1), Text: "a second document begins here, and would not be read: a file is one"}
	case !errors.Is(err, io.EOF):
		return doc, syntaxProblem(b, err)
	}
	return doc, nil
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)
	// yamlBefore matches what the parser says with the number of the line before.
	yamlBefore = regexp.MustCompile(`^did not find expected (<|node content|key|',' or|'-' indicator)`)
	// yamlBlock matches what it says with the line where the block begins whose
	// indentation a later line breaks.
	yamlBlock  = regexp.MustCompile(`^did not find expected (key|'-' indicator|<)`)
	yamlAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// yamlHints say what to do about what the parser says.
var yamlHints = []struct{ says, hint string }{
	{"did not find expected key", "the line is indented unlike those above it, or something stands behind a closing quote or bracket"},
	{"did not find expected '-' indicator", "the line is indented unlike the elements above it"},
	{"did not find expected ',' or", "a bracket is not closed, or an element needs quotes"},
	{"found unexpected end of stream", "a quote is not closed"},
	{"mapping values are not allowed", "a text with \": \" in it stands in quotes, or the line is indented too far"},
	{"could not find expected ':'", "a line here is NAME: VALUE"},
	{"found character that cannot start any token", "what begins with a tab, @, % or ` stands in quotes; lines are indented by blanks"},
	{"did not find expected alphabetic or numeric character", "what begins with * or & stands in quotes"},
	{"unknown anchor", "what begins with * stands in quotes, where it is no alias"},
	{"found unknown escape character", "in double quotes a backslash is \\\\; in single quotes it is itself"},
	{"invalid ", "the file has to be UTF-8"},
	{"incomplete UTF-8", "the file has to be UTF-8"},
}

// syntaxProblem is what the YAML parser says, which knows lines at most, and of
// a block that is indented wrongly only where it begins.
func syntaxProblem(b []byte, err error) *Problem {
	m := yamlLine.FindStringSubmatch(strings.Join(strings.Fields(err.Error()), " "))
	if m == nil {
		return &Problem{Line: 1, Column: 1, Text: strings.Join(strings.Fields(err.Error()), " ")}
	}
	p := &Problem{Line: 1, Column: 1, Text: "no YAML: " + m[2]}
	for _, h := range yamlHints {
		if strings.HasPrefix(m[2], h.says) {
			p.Text += ": " + h.hint
			break
		}
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		if p.Line = n; yamlBefore.MatchString(m[2]) {
			p.Line++
		}
		if yamlBlock.MatchString(m[2]) {
			p.Line = max(p.Line, brokenLine(b, n))
		}
		p.Column = indentOf(b, p.Line) + 1
		return p
	}
	at := -1
	if m := yamlAnchor.FindStringSubmatch(m[2]); m != nil {
		at = bytes.Index(b, []byte("*"+m[1]))
	} else {
		at = bytes.IndexFunc(b, func(r rune) bool {
			return r == utf8.RuneError || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f
		})
	}
	if at >= 0 {
		p.Line = 1 + bytes.Count(b[:at], []byte("\n"))
		p.Column = 1 + utf8.RuneCount(b[bytes.LastIndexByte(b[:at], '\n')+1:at])
	}
	return p
}

// How far is looked for a line: in bytes that are parsed on the way, and in
// lines without a file that ends there.
const (
	maxReparsed = 8 << 20
	maxUnparsed = 100
)

// brokenLine finds the line, counted from 1, with which a file stops being YAML,
// from a line on up to which it is.
func brokenLine(b []byte, from int) int {
	good, end, parsed := from-1, 0, 0
	for line := 1; end < len(b) && line-good <= maxUnparsed && parsed < maxReparsed; line++ {
		if i := bytes.IndexByte(b[end:], '\n'); i >= 0 {
			end += i + 1
		} else {
			end = len(b)
		}
		if line < from {
			continue
		}
		parsed += end
		var doc yaml.Node
		if yaml.Unmarshal(b[:end], &doc) == nil {
			good = line
		}
	}
	return good + 1
}

// indentOf counts the blanks before a line.
func indentOf(b []byte, line int) int {
	for range line - 1 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	text, _, _ := bytes.Cut(b, []byte("\n"))
	return len(text) - len(bytes.TrimLeft(text, " "))
}
