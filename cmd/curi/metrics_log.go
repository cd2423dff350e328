package main

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// metricColumns are what `curi log` shows of the metrics of runs.
type metricColumns struct {
	names []string
	sort  string // by which; -NAME is the largest first
}

// all are the names, that of the order too.
func (c metricColumns) all() []string {
	names := slices.Clone(c.names)
	if by := strings.TrimPrefix(c.sort, "-"); by != "" && !slices.Contains(names, by) {
		names = append(names, by)
	}
	return names
}

// fill reads the newest values of a run; nil for what it does not have.
func (c metricColumns) fill(ctx context.Context, a *app, s *cas.Store, r stages.Run, l *loggedJSON) {
	names := c.all()
	if len(names) == 0 {
		return
	}
	l.Metrics = map[string]*number{}
	m, err := a.metricsOf(ctx, s, r)
	if err != nil {
		a.warn("%s", oneLine(err.Error()))
	}
	for _, name := range names {
		l.Metrics[name] = nil
		if of, ok := m.find(name); ok {
			v := number(of.Last().Value)
			l.Metrics[name] = &v
		}
	}
}

// order sorts, if that is asked for; runs without the metric come last.
func (c metricColumns) order(list []loggedJSON) {
	by, falling := strings.CutPrefix(c.sort, "-")
	if by == "" {
		return
	}
	slices.SortStableFunc(list, func(x, y loggedJSON) int {
		a, b := x.Metrics[by], y.Metrics[by]
		none := func(n *number) bool { return n == nil || math.IsNaN(float64(*n)) }
		switch {
		case none(a) && none(b):
			return 0
		case none(a):
			return 1
		case none(b):
			return -1
		case falling:
			return cmp.Compare(*b, *a)
		}
		return cmp.Compare(*a, *b)
	})
}

// cells are those of a table's row.
func (c metricColumns) cells(l loggedJSON) (cells []string) {
	for _, name := range c.all() {
		text := "-"
		if v := l.Metrics[name]; v != nil {
			text = word(float64(*v))
		}
		cells = append(cells, text)
	}
	return cells
}

// header are the names over them.
func (c metricColumns) header() (names []string) {
	for _, name := range c.all() {
		names = append(names, ">"+name)
	}
	return names
}
