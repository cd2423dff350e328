package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// drawEvery is how often the lines of a terminal are drawn anew at most, and
// tickEvery how often the times in them go on.
const (
	drawEvery = 100 * time.Millisecond
	tickEvery = time.Second
)

func (v *graphView) tick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			v.mu.Lock()
			v.draw(true)
			v.mu.Unlock()
		case <-v.stop:
			return
		}
	}
}

// draw draws a line for each running stage, and one for all, over those that it
// drew the last time: in one write, so that nothing flickers.
func (v *graphView) draw(now bool) {
	if v.mode != viewLive || !now && time.Now().Before(v.next) {
		return
	}
	v.next = time.Now().Add(drawEvery)
	width, height := v.size()
	up := v.back(width)
	labels := 0
	for _, r := range v.running {
		labels = max(labels, columns(r.task.Label))
	}
	labels = min(labels, width/3)
	var b strings.Builder
	b.WriteString(up)
	row := func(text string) {
		text = clipped(text, width-1)
		b.WriteString(text + "\x1b[K\n")
		v.drawn = append(v.drawn, columns(text))
	}
	shown := min(len(v.running), max(height-2, 0))
	for _, r := range v.running[:shown] {
		row(fmt.Sprintf("  %s  %6s  %s", padded(clipped(r.task.Label, labels), labels), span(time.Since(r.began)), r.last))
	}
	status := fmt.Sprintf("  %d of %d done, %d of them cached", v.done, v.all, v.cached)
	if len(v.failed) > 0 {
		status += fmt.Sprintf(", %d failed", len(v.failed))
	}
	if more := len(v.running) - shown; more > 0 {
		status += fmt.Sprintf("; %d more run", more)
	}
	row(status)
	b.WriteString("\x1b[J")
	_, _ = io.WriteString(v.w, b.String())
}

// size is that of the terminal.
func (v *graphView) size() (width, height int) {
	if f, ok := v.w.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 10 && h > 2 {
			return w, h
		}
	}
	return 80, 24
}

// back goes back to the first of the lines that are drawn. A terminal that
// became narrower since broke each that does not fit any more into several.
func (v *graphView) back(width int) string {
	if len(v.drawn) == 0 {
		return ""
	}
	rows := 0
	for _, n := range v.drawn {
		rows += max(1, (n+width-1)/width)
	}
	v.drawn = v.drawn[:0]
	return fmt.Sprintf("\r\x1b[%dA", rows)
}

// erase takes away what is drawn.
func (v *graphView) erase() {
	if len(v.drawn) > 0 {
		width, _ := v.size()
		_, _ = io.WriteString(v.w, v.back(width)+"\x1b[J")
	}
}
