package stages

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var shellNames = []string{"sh", "bash", "dash", "zsh", "ksh"}

var shellTextOption = regexp.MustCompile(`^-[a-z]*c$`)

// inlineText reports whether the element at i is a program's text: what stands
// behind the -c of a shell or of Python.
func inlineText(command []string, i int) (shell, python bool) {
	if i < 2 || !shellTextOption.MatchString(command[i-1]) {
		return false, false
	}
	for j := i - 2; j >= 0; j-- {
		if strings.HasPrefix(command[j], "-") {
			continue
		}
		base := filepath.Base(command[j])
		return slices.Contains(shellNames, base), pythonName.MatchString(base)
	}
	return false, false
}

// inShellText splits quotes and brackets off, so that the imports of a text
// for Python inside a text for a shell begin a line.
var inShellText = strings.NewReplacer("'", "\n", `"`, "\n", "(", " ", ")", " ")

// nextCommand stands between the words of a shell text where another command
// begins; it is no path.
const nextCommand = "\x00;"

// words are the elements of the command as text; of a shell text, roughly its
// words. An element with a placeholder is no path of the caller's. What Python
// text in the command imports is noted.
func (c *code) words() []string {
	var words []string
	for i, element := range c.plan.Command {
		segs, err := parseElement(element)
		if err != nil {
			continue // refused before
		}
		var text strings.Builder
		for _, s := range segs {
			if s.kind != "" {
				text.WriteByte(0) // in no path
				continue
			}
			text.WriteString(s.text)
		}
		shell, python := inlineText(c.plan.Command, i)
		switch {
		case c.plan.Shell || shell:
			c.imports[""] = append(c.imports[""], parseImports([]byte(inShellText.Replace(text.String())))...)
			if shell {
				words = append(words, nextCommand)
			}
			words = append(words, shellWords(text.String())...)
		case python:
			c.imports[""] = append(c.imports[""], parseImports([]byte(text.String()))...)
			words = append(words, "\x00") // its words are no paths
		default:
			words = append(words, text.String())
		}
	}
	return words
}

// shellWords splits a shell text roughly into words, without quotes.
func shellWords(text string) []string {
	var words []string
	var word strings.Builder
	end := func() {
		if word.Len() > 0 {
			words = append(words, word.String())
			word.Reset()
		}
	}
	for i, r := range text {
		switch {
		case r == '\'' || r == '"':
		case strings.ContainsRune(" \t\r<>", r), r == '&' && i > 0 && strings.IndexByte("<>", text[i-1]) >= 0: // 2>&1
			end()
		case strings.ContainsRune("\n;|&()`", r):
			end()
			words = append(words, nextCommand)
		default:
			word.WriteRune(r)
		}
	}
	end()
	return words
}
