package stages

import (
	"regexp"
	"strings"
)

// A placeholder is what stands between '{' and the next '}' when that is a
// word: it begins with a letter or '_' and has only letters, digits and
// "_.:-". Such a word must be a known placeholder, else it is an error that
// says to write {{word}} for the text itself. So {"a":1}, {1..3}, {a,b}, {}
// and { print $1 } are text, and so is ${WORD}, which belongs to the shell.
//
// "{{" is one literal brace. "}}" is one literal brace where it closes a "{{",
// else two: {"a":{"b":1}} stays what it is.
//
// segment is a literal text or a placeholder of an element.
type segment struct {
	text string // the literal; of a placeholder: as written, with braces
	kind string // "" for a literal; "in", "out", "work", "param", "meta", "secret", "root", "logs", "run", "resume"
	name string // the input, output, directory, parameter or variable
	key  string // {meta.IN.KEY}
	json bool   // {param.N:json}
}

var placeholderWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.:-]*$`)

// placeholderKinds says for each first word whether a name follows.
var placeholderKinds = map[string]bool{
	"in": true, "out": true, "work": true, "param": true, "meta": true, "secret": true,
	"root": false, "logs": false, "run": false, "resume": false,
}

// parseElement splits an element of the command. Errors wrap [ErrUsage].
func parseElement(element string) ([]segment, error) {
	var segs []segment
	var lit strings.Builder
	var open []byte // 'e' for "{{", 'b' for a bare '{' that is text
	flush := func() {
		if lit.Len() > 0 {
			segs = append(segs, segment{text: lit.String()})
			lit.Reset()
		}
	}
	for i := 0; i < len(element); {
		rest := element[i:]
		top := byte(0)
		if len(open) > 0 {
			top = open[len(open)-1]
		}
		switch {
		case strings.HasPrefix(rest, "{{"):
			lit.WriteByte('{')
			open = append(open, 'e')
			i += 2
		case rest[0] == '{':
			afterDollar := i > 0 && element[i-1] == '$'
			seg, size, err := parsePlaceholder(element, rest, afterDollar)
			if err != nil {
				return nil, err
			}
			if size == 0 {
				lit.WriteByte('{')
				open = append(open, 'b')
				i++
				break
			}
			flush()
			segs = append(segs, seg)
			i += size
		case rest[0] == '}' && top != 0:
			open = open[:len(open)-1]
			lit.WriteByte('}')
			i++
			if top == 'e' && strings.HasPrefix(rest, "}}") {
				i++
			}
		default:
			lit.WriteByte(rest[0])
			i++
		}
	}
	flush()
	return segs, nil
}

// parsePlaceholder parses the placeholder at the beginning of rest; size is 0
// where the brace is text.
func parsePlaceholder(element, rest string, afterDollar bool) (seg segment, size int, err error) {
	end := strings.IndexByte(rest, '}')
	word := rest[1:]
	if end > 0 {
		word = rest[1:end]
	}
	kind, name, dotted := strings.Cut(word, ".")
	named, known := placeholderKinds[kind]
	meant := known && named && dotted // {in. and the like are never text
	if end < 0 || !placeholderWord.MatchString(word) {
		if meant && !afterDollar {
			return segment{}, 0, usagef("%q: %q is no whole placeholder: write {%s.NAME}, or {{ for a brace", element, clip(rest), kind)
		}
		return segment{}, 0, nil
	}
	if afterDollar {
		if meant {
			return segment{}, 0, usagef("%q: ${%s} is neither a placeholder nor a shell variable: write {%s}, or ${{%s}} for the text", element, word, word, word)
		}
		return segment{}, 0, nil
	}
	seg = segment{text: rest[:end+1], kind: kind, name: name}
	if kind == "param" {
		if n, ok := strings.CutSuffix(name, ":json"); ok {
			seg.name, seg.json = n, true
		}
	}
	if kind == "meta" {
		seg.name, seg.key, _ = strings.Cut(name, ".")
	}
	switch {
	case !known:
		return segment{}, 0, usagef("%q: unknown placeholder {%s}%s; write {{%s}} for the text", element, word, suggest(word, placeholderForms(name), "{%s}"), word)
	case !named && dotted:
		return segment{}, 0, usagef("%q: unknown placeholder {%s}: {%s} takes no name; write {{%s}} for the text", element, word, kind, word)
	case named && (seg.name == "" || strings.Contains(seg.name, ":") || kind == "meta" && seg.key == ""):
		return segment{}, 0, usagef("%q: incomplete placeholder {%s}: write {%s}, or {{%s}} for the text", element, word, placeholderForm(kind), word)
	}
	return seg, end + 1, nil
}

func placeholderForm(kind string) string {
	switch {
	case kind == "meta":
		return "meta.IN.KEY"
	case kind == "secret":
		return "secret.VAR"
	case placeholderKinds[kind]:
		return kind + ".NAME"
	}
	return kind
}

// placeholderForms lists what a misspelt placeholder with this name may have meant.
func placeholderForms(name string) []string {
	var forms []string
	for kind, named := range placeholderKinds {
		if named && name != "" {
			kind += "." + name
		}
		forms = append(forms, kind)
	}
	return forms
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
