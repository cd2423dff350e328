package stages

import "strings"

// ShellQuote returns argv as one line to paste into a POSIX shell.
func ShellQuote(argv []string) string {
	quoted := make([]string, len(argv))
	for i, a := range argv {
		quoted[i] = shellWord(a)
	}
	return strings.Join(quoted, " ")
}

func shellWord(s string) string {
	if s != "" && shellSafe(s) && !strings.HasPrefix(s, "~") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// shellSafe reports whether s means itself wherever it stands in a shell text.
func shellSafe(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		case strings.IndexByte("_-./:=@%+,", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// shell fills a shell text. A value never becomes syntax: it is quoted for
// where it stands (bare, in '…' or in "…"). Where a look at the quotes cannot
// tell (inside $(…), `…`, a here-document or after a comment sign), a value
// that is not plain is an error that names the variable to use instead.
func (f *filler) shell(segs []segment) (text, shown string, err error) {
	var b, sb strings.Builder
	quote, certain := byte(0), true
	for _, s := range segs {
		if s.kind == "" {
			quote, certain = shellState(s.text, quote, certain)
			b.WriteString(s.text)
			sb.WriteString(s.text)
			continue
		}
		value, shownValue, err := f.value(s)
		if err != nil {
			return "", "", err
		}
		if !shellSafe(value) {
			if !certain {
				return "", "", usagef(`placeholder %s: its value is not plain and stands where the shell's quotes are unclear: use "$%s" there, or move it out of the substitution`, s.text, s.variable())
			}
			value = quoteFor(value, quote)
			if s.kind != "secret" {
				shownValue = value
			}
		}
		b.WriteString(value)
		sb.WriteString(shownValue)
	}
	return b.String(), sb.String(), nil
}

// shellState follows the quotes through a piece of text.
func shellState(text string, quote byte, certain bool) (byte, bool) {
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote == '\'':
			if c == '\'' {
				quote = 0
			}
		case c == '\\':
			if i++; i == len(text) {
				certain = false // it would escape the value's own quote
			}
		case c == '`', c == '$' && i+1 < len(text) && text[i+1] == '(':
			certain = false
		case quote == '"':
			if c == '"' {
				quote = 0
			}
		case c == '"', c == '\'':
			quote = c
		case c == '#', c == '<' && i+1 < len(text) && text[i+1] == '<':
			certain = false
		}
	}
	return quote, certain
}

func quoteFor(value string, quote byte) string {
	switch quote {
	case '\'':
		return strings.ReplaceAll(value, "'", `'\''`)
	case '"':
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value)
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// variable is the environment variable that holds what the placeholder means.
func (s segment) variable() string {
	switch s.kind {
	case "in", "out", "work", "param":
		return "CURI_" + strings.ToUpper(s.kind) + "_" + s.name
	case "meta":
		return "CURI_META_" + s.name + "_" + s.key
	case "secret":
		return s.name
	}
	return "CURI_" + strings.ToUpper(s.kind)
}
