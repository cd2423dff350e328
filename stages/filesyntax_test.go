package stages

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What is no YAML is told with the line that a person has to look at: the
// parser's own is often that of the block around it, or none.
func TestSyntaxProblems(t *testing.T) {
	const good = `# top
stages:
  a:
    run: [echo, "{out.o}"]
    out: {o: o}
  b:
    run: [echo, "{out.o}"]
    out: {o: o}
  c:
    run: [x]
`
	if _, err := ParseFile([]byte(good), "F"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, where, says string }{
		{"    out: {o: o}\n  b", "   out: {o: o}\n  b", "5:4", "indented"},
		{"    out: {o: o}\n  b", "      out: {o: o}\n  b", "5:7", "indented"},
		{"  b:", "   b:", "6:4", "indented"},
		{"  b:", " b:", "6:2", "indented"},
		{"[x]", "\n    - x\n   - y", "12:4", "indented"},
		{"\"]\n    out: {o: o}\n  c", "\"\n    out: {o: o}\n  c", "7:5", "bracket"},
		{"{o: o}\n  c", "{o: o\n  c", "8:5", "bracket"},
		{"\"]\n    out: {o: o}\n  c", "]\n    out: {o: o}\n  c", "7:5", "a quote is not closed"},
		{"    run: [x]", "\trun: [x]", "10:1", "a tab"},
		{"[x]", "[@x]", "10:5", "quotes"},
		{"run: [x]", "shell: echo a: b", "10:5", "quotes"},
		{"  c:", "  c", "9:3", "NAME: VALUE"},
		{"[x]", "*x", "10:10", "quotes"},
		{"[x]", "[x\x01]", "10:12", "control characters"},
		{"[x]", "[\xe9]", "10:11", "UTF-8"},
		{"[x]", `["\d"]`, "10:5", "backslash"},
		{"[x]", "[x]]", "10:5", "closing"},
	} {
		// Long files are not parsed line by line to their end.
		for _, more := range []string{"", strings.Repeat("  # more\n", 5000)} {
			_, err := ParseFile([]byte(strings.Replace(good, c.from, c.to, 1)+more), "F")
			var all *FileError
			if !errors.As(err, &all) || len(all.Problems) != 1 {
				t.Errorf("%q: %v", c.to, err)
				continue
			}
			p := all.Problems[0]
			if got := fmt.Sprintf("%d:%d", p.Line, p.Column); got != c.where && (more == "" || c.says != "a quote is not closed") {
				t.Errorf("%q: at %s, want %s: %s", c.to, got, c.where, p.Text)
			}
			if !strings.Contains(p.Text, c.says) {
				t.Errorf("%q does not say %q: %s", c.to, c.says, p.Text)
			}
		}
	}
}
