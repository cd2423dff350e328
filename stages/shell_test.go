package stages

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// What a value is must arrive in the program, wherever in the shell text the
// placeholder stands.
func TestShellText(t *testing.T) {
	const value = `it's "so" $HOME`
	for text, want := range map[string]string{
		`printf '<%s>' {param.words}`:           "<" + value + ">",
		`printf '<%s>' "{param.words}"`:         "<" + value + ">",
		`printf '<%s>' '{param.words}'`:         "<" + value + ">",
		`printf '<%s>' "a b"{param.words}`:      "<a b" + value + ">",
		`printf '<%s>' \"{param.words}`:         `<"` + value + ">",
		`printf '<%s>' {param.lr} | cat`:        "<5e-2>",
		`printf '<%s>' 'a\'{param.words}`:       `<a\` + value + ">",
		`printf '<%s>' "a\\"{param.words}`:      `<a\` + value + ">",
		`x={param.words}; printf '<%s>' "$x"`:   "<" + value + ">",
		`printf '<%s>' "$(echo {param.lr})"`:    "<5e-2>",
		`printf '<%s>' "{in.data}" # a comment`: "</m/at/k/in/data>",
	} {
		p := testPlan(text)
		p.Shell = true
		if err := p.check(); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		argv, _, err := p.Argv(testPlaces, testSecret)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s: printed %q (%v), want %q", text, out, err, want)
		}
	}
	for _, text := range []string{
		`echo "$(echo {param.words})"`,
		`echo \{param.words}`, // the backslash would take away the quote of the value
		`echo "a\{param.words}"`,
		`echo a\\\{param.words}`,
	} {
		p := testPlan(text)
		p.Shell = true
		argv, _, err := p.Argv(testPlaces, testSecret)
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "$CURI_PARAM_words") {
			t.Errorf("%s: %q, %v", text, argv, err)
		}
	}
}

func TestShellQuote(t *testing.T) {
	argv := []string{"printf", "%s|", "plain", "two words", "it's", "", "$HOME", "~", "a*b", "ü", "-x=1"}
	out, err := exec.Command("/bin/sh", "-c", ShellQuote(argv)).Output()
	if want := strings.Join(argv[2:], "|") + "|"; err != nil || string(out) != want {
		t.Errorf("%s printed %q (%v), want %q", ShellQuote(argv), out, err, want)
	}
}
