package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/curi-store/curi/cas"
)

// printJSON writes v as one indented JSON value. The types that commands hand
// over are the documented shapes: fields are only ever added.
func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JSON: %w", err)
	}
	return a.write(string(b) + "\n")
}

// printf writes a result for people to stdout.
func (a *app) printf(format string, args ...any) error {
	return a.write(fmt.Sprintf(format, args...))
}

func (a *app) write(s string) error {
	if _, err := io.WriteString(a.out, s); err != nil {
		return fmt.Errorf("writing to stdout: %w", err)
	}
	return nil
}

// table lines up columns; the last one is not padded. A column whose header
// begins with '>' is aligned to the right. With --quiet only the first column
// is printed, without a header: one name a line, ready for a script.
func (a *app) table(header []string, rows [][]string) error {
	var b strings.Builder
	if a.quiet {
		for _, r := range rows {
			b.WriteString(r[0] + "\n")
		}
		return a.write(b.String())
	}
	right := make([]bool, len(header))
	width := make([]int, len(header))
	for i, h := range header {
		h, right[i] = strings.CutPrefix(h, ">")
		header[i] = h
		width[i] = utf8.RuneCountInString(h)
	}
	for _, r := range rows {
		for i, c := range r {
			r[i] = visible(c)
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
		}
	}
	line := func(r []string) {
		var l strings.Builder
		for i, c := range r {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				c = pad + c
			} else {
				c += pad
			}
			if i > 0 {
				l.WriteString("  ")
			}
			l.WriteString(c)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	line(header)
	for _, r := range rows {
		line(r)
	}
	return a.write(b.String())
}

// size words bytes for people, in binary units.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1023.5 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %ciB", f, units[u])
	}
	return fmt.Sprintf("%.0f %ciB", f, units[u])
}

// files words a number of files.
func files(n int64) string { return count(n, "file") }

// count words a number of things whose plural takes an s.
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// age words how long ago t was.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	if d := time.Since(t); d >= 10*time.Second {
		return span(d) + " ago"
	}
	return "just now"
}

// span words a duration by its largest unit.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d d", d/(24*time.Hour))
}

// orDash stands in for an empty cell of a table.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func isNotFound(err error) bool { return errors.Is(err, cas.ErrNotFound) }

// isTerminal reports whether w is a terminal that a person looks at.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
