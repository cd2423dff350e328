package stages

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Param is a parameter with its type.
type Param struct {
	Name        string
	Type        string // "int", "float", "bool", "str", "list", "null"
	Raw         string // as written: what placeholders and CURI_PARAM_ hand over
	Canonical   string // as keyed: 1e-2 and 0.01 are one value
	Operational bool   // recorded, not keyed
}

// A number with a leading zero is a string (a postcode, a padded id): a
// program may tell 007 from 7.
var (
	intPattern   = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	floatPattern = regexp.MustCompile(`^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	paramName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

var paramTypes = []string{"int", "float", "bool", "str", "list", "null"}

// ParseParam parses the text of --param: k=v or k:type=v. Without a type, an
// integer, a float, true or false, or a JSON list is what it looks like;
// everything else is a string. Errors wrap [ErrUsage].
func ParseParam(text string, operational bool) (Param, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return Param{}, usagef("parameter %q: want NAME=VALUE or NAME:TYPE=VALUE", text)
	}
	typ := ""
	if n, t, typed := strings.Cut(name, ":"); typed {
		name, typ = n, t
		if !slices.Contains(paramTypes, typ) {
			return Param{}, usagef("parameter %q: unknown type %q: use one of %s", text, typ, strings.Join(paramTypes, ", "))
		}
	}
	if !paramName.MatchString(name) || len(name) > 100 {
		return Param{}, usagef("parameter %q: the name %q is not letters, digits, '_', '-', '.' beginning with a letter", text, name)
	}
	if strings.ContainsRune(value, 0) {
		return Param{}, usagef("parameter %q: no argument of a program can hold a NUL byte", name)
	}
	p := Param{Name: name, Type: typ, Raw: value, Operational: operational}
	if typ == "" {
		p.Type, p.Canonical = inferParam(value)
		return p, nil
	}
	canonical, ok := canonicalParam(typ, value)
	if !ok {
		return Param{}, usagef("parameter %s: %q is no %s%s", name, value, typ, paramHint(typ))
	}
	p.Canonical = canonical
	return p, nil
}

func paramHint(typ string) string {
	switch typ {
	case "bool":
		return ": use true or false"
	case "list":
		return `: write it as JSON, such as [1,2] or ["a","b"]`
	case "null":
		return ": leave the value empty"
	}
	return ""
}

func inferParam(value string) (typ, canonical string) {
	for _, t := range []string{"int", "float", "bool", "list"} {
		if t == "float" && !floatPattern.MatchString(value) {
			continue // inf and nan are words unless said otherwise
		}
		if c, ok := canonicalParam(t, value); ok {
			return t, c
		}
	}
	return "str", value
}

func canonicalParam(typ, value string) (string, bool) {
	switch typ {
	case "str":
		return value, true
	case "null":
		return "null", value == "" || value == "null"
	case "bool":
		switch value {
		case "true", "True":
			return "true", true
		case "false", "False":
			return "false", true
		}
	case "int":
		if value == "-0" {
			return "0", true
		}
		return value, intPattern.MatchString(value)
	case "float":
		if strings.ContainsAny(value, "xXpP_") {
			return "", false
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return "", false
		}
		return canonicalFloat(f), true
	case "list":
		items, ok := parseList(value)
		if !ok {
			return "", false
		}
		var b strings.Builder
		writeCanonical(&b, items)
		// Half a character ("\ud800") is no text: different ones would be one value.
		if halfCharacter.MatchString(value) && strings.Contains(b.String(), "\ufffd") {
			return "", false
		}
		return b.String(), true
	}
	return "", false
}

var halfCharacter = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// canonicalFloat always looks like a float, so that 1.0 in a list differs from 1.
func canonicalFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

func parseList(value string) ([]any, bool) {
	if !strings.HasPrefix(strings.TrimSpace(value), "[") || !utf8.ValidString(value) {
		return nil, false
	}
	dec := json.NewDecoder(strings.NewReader(value))
	dec.UseNumber()
	var items []any
	if err := dec.Decode(&items); err != nil {
		return nil, false
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, false
	}
	return items, true
}

func writeCanonical(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case json.Number:
		b.WriteString(canonicalNumber(string(v)))
	case string:
		b.WriteString(jsonString(v))
	case []any:
		b.WriteByte('[')
		for i, x := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			writeCanonical(b, x)
		}
		b.WriteByte(']')
	case map[string]any:
		b.WriteByte('{')
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(jsonString(k))
			b.WriteByte(':')
			writeCanonical(b, v[k])
		}
		b.WriteByte('}')
	}
}

func canonicalNumber(s string) string {
	if c, ok := canonicalParam("int", s); ok {
		return c
	}
	if c, ok := canonicalParam("float", s); ok {
		return c
	}
	return s // beyond float64: keyed as written
}

func jsonString(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

// items returns what a list hands over, one argument each; numbers and nested
// values as written.
func (p Param) items() []string {
	var raw []json.RawMessage
	if json.Unmarshal([]byte(p.Raw), &raw) != nil {
		return nil
	}
	out := make([]string, len(raw))
	for i, r := range raw {
		var s string
		if json.Unmarshal(r, &s) == nil && len(r) > 0 && r[0] == '"' {
			out[i] = s
		} else {
			out[i] = string(r)
		}
	}
	return out
}

// JSON is the value as JSON, as written where that is JSON: for
// {param.N:json} and CURI_PARAMS. Floats that JSON lacks are strings.
func (p Param) JSON() json.RawMessage {
	switch p.Type {
	case "null":
		return json.RawMessage("null")
	case "bool":
		return json.RawMessage(p.Canonical)
	case "list":
		return json.RawMessage(strings.TrimSpace(p.Raw))
	case "int", "float":
		if json.Valid([]byte(p.Raw)) {
			return json.RawMessage(p.Raw)
		}
		if json.Valid([]byte(p.Canonical)) {
			return json.RawMessage(p.Canonical)
		}
	}
	return json.RawMessage(jsonString(p.Raw))
}
