package main

import (
	"fmt"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/curi-store/curi/stages"
)

// The size of a plot, in characters.
const (
	plotHeight   = 12
	plotMaxWidth = 100
	plotMinWidth = 20
)

// plotMarks tell the runs of one plot apart.
var plotMarks = []rune("•×+o*#%@")

// width is that of the terminal, else the usual one.
func (a *app) width() int {
	if f, ok := a.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// plotMetric draws a metric of several runs over its steps. What is no finite
// number is left out.
func plotMetric(name string, list []measured, width int) string {
	var of []stages.Series
	var ids []string
	low, high, first, last := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, m := range list {
		s, ok := m.find(name)
		if !ok {
			continue
		}
		of, ids = append(of, s), append(ids, m.run.ID)
		for _, p := range s.Points {
			if finite(p.Value) && finite(p.Step) {
				low, high = min(low, p.Value), max(high, p.Value)
				first, last = min(first, p.Step), max(last, p.Step)
			}
		}
	}
	var b strings.Builder
	line := visible(name)
	for i, id := range ids {
		if len(list) == 1 {
			break
		}
		mark := fmt.Sprintf("  %c %s", plotMarks[i%len(plotMarks)], id)
		if utf8.RuneCountInString(line+mark) > width {
			b.WriteString(line + "\n")
			line = ""
		}
		line += mark
	}
	b.WriteString(line + "\n")
	if low > high {
		return b.String() + "  no finite values\n\n"
	}
	top, bottom := word(high), word(low)
	label := max(utf8.RuneCountInString(top), utf8.RuneCountInString(bottom))
	columns := min(max(width-label-3, plotMinWidth), plotMaxWidth)
	grid := make([][]rune, plotHeight)
	for y := range grid {
		grid[y] = []rune(strings.Repeat(" ", columns))
	}
	for i, s := range of {
		drawSeries(grid, s, plotMarks[i%len(plotMarks)], func(p stages.Point) (x, y int) {
			return scale(p.Step, first, last, columns), plotHeight - 1 - scale(p.Value, low, high, plotHeight)
		})
	}
	for y, line := range grid {
		text := ""
		switch y {
		case 0:
			text = top
		case plotHeight - 1:
			text = bottom
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%*s │%s", label, text, string(line)), " ") + "\n")
	}
	from, to := word(first), word(last)
	gap := max(columns-len(from)-len(to), 1)
	fmt.Fprintf(&b, "%*s └%s\n%*s  %s%s%s\n\n", label, "", strings.Repeat("─", columns), label, "", from, strings.Repeat(" ", gap), to)
	return b.String()
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// scale is where v lies between low and high, of n places; in the middle where
// these are the same.
func scale(v, low, high float64, n int) int {
	part := 0.5
	if high > low {
		part = (v - low) / (high - low)
		if !finite(part) { // the range is larger than a number can be
			part = (v/2 - low/2) / (high/2 - low/2)
		}
	}
	return min(max(int(math.Round(part*float64(n-1))), 0), n-1)
}

// drawSeries marks the points, and the columns between them.
func drawSeries(grid [][]rune, s stages.Series, mark rune, at func(stages.Point) (x, y int)) {
	lastX, lastY := -1, 0
	for _, p := range s.Points {
		if !finite(p.Value) || !finite(p.Step) {
			lastX = -1
			continue
		}
		x, y := at(p)
		if lastX >= 0 {
			for between := lastX + 1; between < x; between++ {
				by := lastY + int(math.Round(float64((y-lastY)*(between-lastX))/float64(x-lastX)))
				if grid[by][between] == ' ' {
					grid[by][between] = '·'
				}
			}
		}
		grid[y][x] = mark
		lastX, lastY = x, y
	}
}
