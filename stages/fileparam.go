package stages

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// param reads NAME: VALUE. A value without quotes is what --param makes of the
// same text, one in quotes is a text, a sequence is a list.
func (r *fileReader) param(p pair, where string) (Param, bool) {
	where += ": " + p.name
	if _, err := ParseParam(p.name+"=", false); err != nil || strings.Contains(p.name, ":") {
		r.problem(p.key, "%s: a parameter's name is letters, digits, '_', '-', '.' beginning with a letter", where)
		return Param{}, false
	}
	return r.paramValue(p.name, p.value, where)
}

func (r *fileReader) paramValue(name string, n *yaml.Node, where string) (Param, bool) {
	typ, raw := "", ""
	switch n.Kind {
	case yaml.SequenceNode:
		v, ok := r.jsonValue(n, where, 0)
		if !ok {
			return Param{}, false
		}
		typ, raw = "list", v
	case yaml.ScalarNode:
		var ok bool
		if typ, raw, ok = r.scalar(n, where); !ok {
			return Param{}, false
		}
	default:
		r.problem(n, "%s: a parameter is a single value or a list, this is a mapping: write %s.KEY: VALUE for each", where, name)
		return Param{}, false
	}
	q, err := ParseParam(name+":"+typ+"="+raw, false)
	if err != nil {
		r.problem(n, "%s: %v", where, err)
		return Param{}, false
	}
	return q, true
}

// scalar returns type and text of a single value.
func (r *fileReader) scalar(n *yaml.Node, where string) (typ, raw string, ok bool) {
	quoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	switch {
	case n.Tag == "!!null":
		return "null", "", true
	case strings.ContainsRune(n.Value, 0) || n.Tag == "!!binary":
		r.problem(n, "%s: no argument of a program can hold a NUL byte or a binary value", where)
		return "", "", false
	case n.Style&yaml.TaggedStyle != 0:
		known, isKnown := map[string]string{"!!str": "str", "!!int": "int", "!!float": "float", "!!bool": "bool"}[n.Tag]
		if !isKnown {
			r.problem(n, "%s: a value of type %s cannot stand here", where, n.Tag)
		}
		return known, n.Value, isKnown
	case quoted:
		return "str", n.Value, true
	}
	typ, _ = inferParam(n.Value)
	if typ == "list" {
		typ = "str" // YAML would have made it a list itself
	}
	if typ == "str" && (n.Tag == "!!int" || n.Tag == "!!float") {
		if special := strings.ToLower(strings.TrimLeft(n.Value, "+-")); special == ".inf" || special == ".nan" {
			return "float", strings.Replace(strings.ToLower(n.Value), ".", "", 1), true
		}
		r.problem(n, "%s: %s is a number to YAML and a text to programs: put it in quotes for the text, or write the number in full", where, n.Value)
		return "", "", false
	}
	return typ, n.Value, true
}

// jsonValue writes a value as JSON, numbers as they are written where JSON has
// that form.
func (r *fileReader) jsonValue(n *yaml.Node, where string, depth int) (string, bool) {
	if depth > maxFileDepth {
		r.problem(n, "%s: nested too deep", where)
		return "", false
	}
	var parts []string
	switch n.Kind {
	case yaml.SequenceNode:
		for _, e := range r.sequence(n, where) {
			v, ok := r.jsonValue(e, where, depth+1)
			if !ok {
				return "", false
			}
			parts = append(parts, v)
		}
		return "[" + strings.Join(parts, ",") + "]", !r.full
	case yaml.MappingNode:
		for _, p := range r.mapping(n, where) {
			v, ok := r.jsonValue(p.value, where, depth+1)
			if !ok {
				return "", false
			}
			parts = append(parts, jsonString(p.name)+":"+v)
		}
		return "{" + strings.Join(parts, ",") + "}", !r.full
	}
	typ, raw, ok := r.scalar(n, where)
	if !ok {
		return "", false
	}
	switch typ {
	case "null":
		return "null", true
	case "bool":
		return strconv.FormatBool(strings.EqualFold(raw, "true")), true
	case "int", "float":
		if json.Valid([]byte(raw)) {
			return raw, true
		}
		canonical, isNumber := canonicalParam(typ, raw)
		if isNumber && json.Valid([]byte(canonical)) {
			return canonical, true
		}
		r.problem(n, "%s: a list cannot hold %s as a number: put it in quotes", where, raw)
		return "", false
	}
	return jsonString(raw), true
}

// sameType says whether a set may give this value to a parameter; null is no
// value yet, of any type.
func sameType(a, b Param) bool {
	return a.Type == b.Type || a.Type == "null" || b.Type == "null"
}

// describeParam words a value with its type, for messages.
func describeParam(q Param) string {
	if q.Type == "null" {
		return "null"
	}
	article := "a"
	if q.Type == "int" {
		article = "an"
	}
	return fmt.Sprintf("%s %s (%s)", article, q.Type, clip(q.Raw))
}
