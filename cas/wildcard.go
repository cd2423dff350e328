package cas

import "strings"

// matchWild reports whether the whole of text matches pattern as in git's
// ignore files: '?' is one byte, '*' any number, '[…]' one of a set, '\' takes
// the next byte as it is. With paths, none of these match '/', and "**" as a
// whole part between slashes means any number of directories.
func matchWild(pattern, text string, paths bool) bool {
	w := wildcard{pattern: pattern, text: text, paths: paths}
	return w.match(0, 0)
}

// wildcard is one match under way.
type wildcard struct {
	pattern, text string
	paths         bool
	failed        map[[2]int]struct{} // where the rest is known not to match, which bounds the work
}

// match reports whether text from t matches pattern from p.
func (w *wildcard) match(p, t int) bool {
	for p < len(w.pattern) {
		c := w.pattern[p]
		if c == '*' {
			return w.star(p, t)
		}
		if t == len(w.text) {
			return false
		}
		switch c {
		case '?':
			if w.paths && w.text[t] == '/' {
				return false
			}
			p++
		case '[':
			in, next, ok := matchSet(w.pattern, p, w.text[t])
			if !ok || !in || w.paths && w.text[t] == '/' {
				return false
			}
			p = next
		case '\\':
			if p++; p == len(w.pattern) || w.pattern[p] != w.text[t] {
				return false
			}
			p++
		default:
			if c != w.text[t] {
				return false
			}
			p++
		}
		t++
	}
	return t == len(w.text)
}

// star matches from the asterisks at p.
func (w *wildcard) star(p, t int) bool {
	if _, ok := w.failed[[2]int{p, t}]; ok {
		return false
	}
	next := p
	for next < len(w.pattern) && w.pattern[next] == '*' {
		next++
	}
	slashes := !w.paths
	if w.paths && next-p >= 2 && (p == 0 || w.pattern[p-1] == '/') {
		rest := w.pattern[next:]
		if rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`) {
			slashes = true
			if rest != "" && rest[0] == '/' && w.match(next+1, t) {
				return true // "a/**/b" means "a/b" too
			}
		}
	}
	for i := t; ; i++ {
		if w.match(next, i) {
			return true
		}
		if i == len(w.text) || !slashes && w.text[i] == '/' {
			break
		}
	}
	if w.failed == nil {
		w.failed = map[[2]int]struct{}{}
	}
	w.failed[[2]int{p, t}] = struct{}{}
	return false
}

// matchSet reports whether c is in the set that begins at pattern[p], and
// where the pattern goes on; ok is false if the set is malformed.
func matchSet(pattern string, p int, c byte) (in bool, next int, ok bool) {
	p++
	negated := false
	if p < len(pattern) && (pattern[p] == '!' || pattern[p] == '^') {
		negated = true
		p++
	}
	var low byte // the byte before, which may begin a range; 0 if it cannot
	for first := true; ; first = false {
		if p >= len(pattern) {
			return false, 0, false
		}
		b := pattern[p]
		switch {
		case b == ']' && !first:
			return in != negated, p + 1, true
		case b == '-' && low != 0 && p+1 < len(pattern) && pattern[p+1] != ']':
			if p++; pattern[p] == '\\' {
				if p++; p == len(pattern) {
					return false, 0, false
				}
			}
			in = in || low <= c && c <= pattern[p]
			low = 0
			p++
			continue
		case b == '[' && p+1 < len(pattern) && pattern[p+1] == ':':
			end := strings.IndexByte(pattern[p+2:], ']')
			if end < 0 {
				return false, 0, false
			}
			name := pattern[p+2 : p+2+end]
			if class, isClass := strings.CutSuffix(name, ":"); isClass {
				is, known := inClass(class, c)
				if !known {
					return false, 0, false
				}
				in = in || is
				low = 0
				p += 2 + end + 1
				continue
			}
		case b == '\\':
			if p++; p == len(pattern) {
				return false, 0, false
			}
			b = pattern[p]
		}
		in = in || b == c
		low = b
		p++
	}
}

// inClass reports whether c is in a named class, of ASCII only.
func inClass(class string, c byte) (in, known bool) {
	lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch class {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	}
	return false, false
}
