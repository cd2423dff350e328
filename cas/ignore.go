package cas

import (
	"bytes"
	"fmt"
	"strings"
)

// IgnoreFile is the name of the files that say what an add leaves out, in the
// syntax of .gitignore. One in a sub-directory counts below it.
const IgnoreFile = ".curiignore"

// maxIgnoreFile bounds what is read of one ignore file, in bytes.
const maxIgnoreFile = 1 << 20

// ignoreRules are the patterns of one file and, by parent, of those above it.
// A nil *ignoreRules ignores nothing.
type ignoreRules struct {
	parent   *ignoreRules
	base     string // the directory of the file, relative to the root; "" is the root
	patterns []ignorePattern
	given    bool // by options: they win over every file
}

// ignorePattern is one line.
type ignorePattern struct {
	text     string // without the marks below
	literal  int    // how many bytes at its begin are neither special nor escaped
	negated  bool   // "!": what matches is not ignored after all
	dirOnly  bool   // "…/"
	nameOnly bool   // no slash inside: matches a name at any depth
}

// with adds the lines of an ignore file that lies in the directory base.
func (r *ignoreRules) with(base string, content []byte) *ignoreRules {
	n := &ignoreRules{parent: r, base: base}
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		// As git does: nothing after a NUL counts.
		line, _, _ = strings.Cut(line, "\x00")
		if p, ok := parseIgnorePattern(line); ok {
			n.patterns = append(n.patterns, p)
		}
	}
	if len(n.patterns) == 0 {
		return r
	}
	return n
}

// givenRules are the patterns of options, which win over files.
func givenRules(patterns []string) (*ignoreRules, error) {
	n := &ignoreRules{given: true}
	for _, s := range patterns {
		if strings.ContainsAny(s, "\n\x00") {
			return nil, fmt.Errorf("exclude pattern %q: it has a line break or NUL in it: %w", s, ErrInvalid)
		}
		if p, ok := parseIgnorePattern(s); ok {
			n.patterns = append(n.patterns, p)
		}
	}
	if len(n.patterns) == 0 {
		return nil, nil
	}
	return n, nil
}

func parseIgnorePattern(line string) (p ignorePattern, ok bool) {
	if strings.HasPrefix(line, "#") {
		return p, false
	}
	p.text = trimIgnoreSpaces(line)
	p.text, p.negated = strings.CutPrefix(p.text, "!")
	p.text, p.dirOnly = strings.CutSuffix(p.text, "/")
	if p.text == "" {
		return p, false
	}
	p.nameOnly = !strings.Contains(p.text, "/")
	p.text = strings.TrimPrefix(p.text, "/")
	if p.literal = strings.IndexAny(p.text, `*?[\`); p.literal < 0 {
		p.literal = len(p.text)
	}
	return p, true
}

// trimIgnoreSpaces removes the spaces at the end that no backslash protects.
func trimIgnoreSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			continue
		case '\\':
			if i++; i == len(s) {
				return s
			}
		}
		end = i + 1
	}
	return s[:end]
}

// ignored reports whether the file or directory at rel, slash-separated below
// the root, is left out. Whoever asks has asked for its parents before: what
// lies in an ignored directory is ignored whatever the patterns say.
func (r *ignoreRules) ignored(rel string, isDir bool) bool {
	name := rel[strings.LastIndexByte(rel, '/')+1:]
	// The last pattern of the innermost file decides.
	decided, result := false, false
	for n := r; n != nil; n = n.parent {
		if decided && !n.given {
			continue
		}
		below := rel
		if n.base != "" {
			below = strings.TrimPrefix(rel, n.base+"/")
		}
		for i := len(n.patterns) - 1; i >= 0; i-- {
			if p := &n.patterns[i]; p.matches(below, name, isDir) {
				decided, result = true, !p.negated
				break
			}
		}
	}
	return result
}

// matches reports whether the pattern means the file at below, relative to
// the directory of the pattern's file, whose last part is name.
func (p *ignorePattern) matches(below, name string, isDir bool) bool {
	if p.dirOnly && !isDir {
		return false
	}
	if p.nameOnly {
		if p.literal == len(p.text) {
			return p.text == name
		}
		return matchWild(p.text, name, false)
	}
	// As in git, what comes before the first special byte is compared by
	// itself, so that "a**/b" is "a" and then "**/b".
	if !strings.HasPrefix(below, p.text[:p.literal]) {
		return false
	}
	return matchWild(p.text[p.literal:], below[p.literal:], true)
}
