package main

import (
	"regexp"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// columns is how many columns of a terminal a text takes. What [visible] makes
// of control characters has to be made of it before.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

// runeColumns counts what is put over the character before as nothing, and
// Chinese, Japanese and Korean characters and most emoji as two.
func runeColumns(r rune) int {
	switch {
	case r < 0x300: // below are no such characters
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// clipped cuts a text to a number of columns.
func clipped(text string, n int) string {
	if columns(text) <= n {
		return text
	}
	used := 0
	for i, r := range text {
		if used += runeColumns(r); used > n-1 {
			return text[:i] + "…"
		}
	}
	return text
}

// padded fills a text up to a number of columns.
func padded(text string, n int) string {
	return text + strings.Repeat(" ", max(n-columns(text), 0))
}

// sequences are the control sequences of terminals: of colours, of moves of the
// cursor, of titles.
var sequences = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78cM])`)

// oneRow is a line of a command's output as it can stand in one row between
// others.
func oneRow(line string) string {
	return visible(sequences.ReplaceAllString(strings.ReplaceAll(line, "\t", "    "), ""))
}
