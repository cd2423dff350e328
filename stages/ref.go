package stages

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/curi-store/curi/cas"
)

// refParts is a REF taken apart: NAME[PARAMS]@SELECTOR.OUTPUT/PATH, or a digest.
type refParts struct {
	digest   string // 8 to 64 lower-case hex digits, else name is set
	name     string
	params   []Param // of STAGE[lr=0.05]
	selector string  // behind '@'
	output   string  // behind '.'
	path     string  // behind the first '/', clean
}

// parseRef takes a REF apart. Errors wrap [ErrUsage].
func parseRef(ref string) (refParts, error) {
	var r refParts
	bad := func(why string) (refParts, error) { return refParts{}, usagef("%q names nothing: %s", ref, why) }
	if ref == "" {
		return bad("it is empty")
	}
	if strings.ContainsRune(ref, 0) {
		return bad("it holds a NUL byte")
	}
	end := strings.IndexAny(ref, "[@./")
	if end < 0 {
		end = len(ref)
	}
	name, rest := ref[:end], ref[end:]
	if name == "" {
		return bad("a REF begins with a name or a digest; a file of your own is stored first (curi add)")
	}
	isDigest := len(name) >= cas.MinPrefix && strings.Trim(name, "0123456789abcdefABCDEF") == ""
	if isDigest {
		if len(name) > 2*cas.DigestSize {
			return bad("a digest has 64 hex digits")
		}
		r.digest = strings.ToLower(name)
	} else if err := checkName(fmt.Sprintf("%q", ref), name); err != nil {
		return refParts{}, err
	} else {
		r.name = name
	}
	var err error
	if strings.HasPrefix(rest, "[") {
		text, after, ok := bracket(rest)
		if !ok {
			return bad("']' is missing")
		}
		if r.params, err = parseSelection(text); err != nil {
			return refParts{}, usagef("%q: %v", ref, err)
		}
		rest = after
	}
	if after, ok := strings.CutPrefix(rest, "@"); ok {
		end := strings.IndexAny(after, "./[@")
		if end < 0 {
			end = len(after)
		}
		if r.selector, rest = after[:end], after[end:]; r.selector == "" {
			return bad("a version or tag follows '@'")
		}
	}
	if after, ok := strings.CutPrefix(rest, "."); ok {
		end := strings.IndexAny(after, "/[@.")
		if end < 0 {
			end = len(after)
		}
		r.output, rest = after[:end], after[end:]
		if err := checkName(fmt.Sprintf("%q: the output behind '.'", ref), r.output); err != nil {
			return refParts{}, err
		}
	}
	if after, ok := strings.CutPrefix(rest, "/"); ok {
		r.path = strings.TrimSuffix(after, "/")
		if r.path == "" && after != "" || r.path != "" && (path.Clean(r.path) != r.path || path.IsAbs(r.path) || r.path == "." || r.path == ".." || strings.HasPrefix(r.path, "../")) {
			return bad("the path behind '/' has an empty, '.' or '..' part")
		}
		rest = ""
	}
	switch {
	case rest != "":
		return bad("a REF is NAME, NAME@VERSION, STAGE.OUTPUT, STAGE[k=v].OUTPUT, RUN, RUN.OUTPUT or a digest, and /PATH behind it")
	case r.digest != "" && (r.params != nil || r.selector != "" || r.output != ""):
		return bad("only /PATH can follow a digest")
	case r.params != nil && r.output == "" && r.selector == "":
		return bad("an output follows STAGE[…]: STAGE[…].OUTPUT")
	}
	return r, nil
}

// bracket splits "[text]rest"; brackets and quotes inside are passed over.
func bracket(s string) (text, rest string, ok bool) {
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return s[1:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}

// parseSelection parses lr=0.05,epochs=3 of STAGE[lr=0.05,epochs=3]. A value in
// double quotes is a text.
func parseSelection(text string) ([]Param, error) {
	var params []Param
	for _, part := range outsideQuotes(text) {
		part = strings.TrimSpace(part)
		if name, quoted, ok := strings.Cut(part, "="); ok && strings.HasPrefix(quoted, `"`) {
			// A text as JSON: commas and brackets may stand in it.
			var text string
			if json.Unmarshal([]byte(quoted), &text) == nil {
				part = strings.TrimSuffix(name, ":str") + ":str=" + text
			}
		}
		p, err := ParseParam(part, false)
		if err != nil {
			return nil, err
		}
		params = append(params, p)
	}
	return params, nil
}

// outsideQuotes splits at commas that stand in no quotes and brackets.
func outsideQuotes(text string) []string {
	var parts []string
	depth, quoted, begin := 0, false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}
