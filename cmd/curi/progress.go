package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/curi-store/curi/cas"
)

// Work that is done sooner shows no progress; without a terminal, a line
// comes much more rarely.
const (
	barAfter   = 400 * time.Millisecond
	barEvery   = 100 * time.Millisecond
	lineAfter  = 10 * time.Second
	linesEvery = 15 * time.Second
)

// progress shows how far long work is: a bar where stderr is a terminal,
// lines elsewhere, nothing with --quiet. It returns what the work calls and
// what clears the bar away once the work is over.
func (a *app) progress(what string) (cas.Progress, func()) {
	if a.quiet {
		return nil, func() {}
	}
	m := &meter{w: a.err, what: what, begin: time.Now(), bar: isTerminal(a.err)}
	m.next = m.begin.Add(lineAfter)
	if m.bar {
		m.next = m.begin.Add(barAfter)
	}
	return m.update, m.clear
}

type meter struct {
	w     io.Writer
	what  string
	begin time.Time
	bar   bool

	mu    sync.Mutex
	next  time.Time
	drawn bool
	done  bool
}

func (m *meter) update(bytes, totalBytes, files, totalFiles int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.done || now.Before(m.next) {
		return
	}
	text := m.words(now, bytes, totalBytes, files, totalFiles)
	if !m.bar {
		m.next = now.Add(linesEvery)
		fmt.Fprintf(m.w, "curi: %s\n", text)
		return
	}
	m.next = now.Add(barEvery)
	m.drawn = true
	width := 80
	if f, ok := m.w.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			width = w
		}
	}
	if share, ok := portion(bytes, totalBytes, files, totalFiles); ok && width-len(text) > 24 {
		n := min(width-len(text)-6, 40)
		full := int(share * float64(n))
		text += " [" + strings.Repeat("=", full) + strings.Repeat(" ", n-full) + "]"
	}
	if len(text) > width-1 {
		text = text[:max(width-1, 0)]
	}
	fmt.Fprintf(m.w, "\r%s\x1b[K", text)
}

// metered shows how much was read, unless a person types it.
func (a *app) metered(r io.Reader, what string) (io.Reader, func()) {
	progress, clear := a.progress(what)
	if progress == nil || isTerminal(a.in) {
		return r, clear
	}
	return &meteredReader{r: r, progress: progress}, clear
}

type meteredReader struct {
	r        io.Reader
	progress cas.Progress
	n        int64
}

func (m *meteredReader) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.progress(m.n, 0, 0, 0)
	return n, err
}

// clear takes the bar away, so that the result stands alone.
func (m *meter) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = true
	if m.drawn {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

func (m *meter) words(now time.Time, bytes, totalBytes, files, totalFiles int64) string {
	var b strings.Builder
	b.WriteString(m.what)
	if totalFiles > 1 {
		fmt.Fprintf(&b, "  %d/%d files", files, totalFiles)
	} else if totalFiles <= 0 && files > 1 {
		fmt.Fprintf(&b, "  %d files", files)
	}
	b.WriteString("  " + size(bytes))
	if totalBytes > 0 {
		b.WriteString(" of " + size(totalBytes))
	}
	took := now.Sub(m.begin).Seconds()
	if bytes > 0 && took > 0 {
		rate := float64(bytes) / took
		fmt.Fprintf(&b, "  %s/s", size(int64(rate)))
		if totalBytes > bytes {
			left := time.Duration(float64(totalBytes-bytes) / rate * float64(time.Second))
			fmt.Fprintf(&b, "  %s left", span(left))
		}
	}
	return b.String()
}

// portion is how much of the work is done, by bytes or else by files.
func portion(bytes, totalBytes, files, totalFiles int64) (float64, bool) {
	switch {
	case totalBytes > 0:
		return min(float64(bytes)/float64(totalBytes), 1), true
	case totalFiles > 1: // of one file, nothing is known until it is over
		return min(float64(files)/float64(totalFiles), 1), true
	}
	return 0, false
}
