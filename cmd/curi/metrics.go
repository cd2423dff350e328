package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// number is a value in JSON; what JSON has no number for is a string, as in the
// file of parameters.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if f := float64(n); !math.IsNaN(f) && !math.IsInf(f, 0) {
		return json.Marshal(f)
	}
	return json.Marshal(word(float64(n)))
}

// word writes a value for people.
func word(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e9 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// metricJSON is a metric of a run.
type metricJSON struct {
	Name   string      `json:"name"`
	Last   number      `json:"last"`
	Step   number      `json:"step"` // of the last
	Min    number      `json:"min"`
	Max    number      `json:"max"`
	Count  int         `json:"count"`
	Points [][2]number `json:"points,omitempty"` // step, value
}

// metricsJSON is an element of what `curi metrics --json` prints.
type metricsJSON struct {
	Run     string        `json:"run"`
	Status  stages.Status `json:"status"`
	Metrics []metricJSON  `json:"metrics"`
}

// measured is a run with its metrics.
type measured struct {
	run    stages.Run
	series []stages.Series
}

func (m measured) find(name string) (stages.Series, bool) {
	i := slices.IndexFunc(m.series, func(s stages.Series) bool { return s.Name == name })
	if i < 0 {
		return stages.Series{}, false
	}
	return m.series[i], true
}

// last words the newest value of a metric.
func (m measured) last(name string) string {
	if s, ok := m.find(name); ok {
		return word(s.Last().Value)
	}
	return "-"
}

func newMetrics(a *app) *cobra.Command {
	var o struct {
		names               []string
		plot, points, watch bool
	}
	c := &cobra.Command{
		Use:   "metrics RUN…",
		Short: "Show or compare the metrics that runs wrote",
		Long: `Show the metrics of runs, by name, with their newest values. They are read from the
outputs: CSV files (a column each; Lightning's version_N of one run are one series),
JSON files (numbers, nested names joined by dots), JSON lines, and event files of
TensorBoard. A run that is going on shows what it wrote so far, a failed one what it
left. The step is the column or field step, global_step, iteration, iter or epoch, else
the number of the line.`,
		Example: `  curi metrics train@last
  curi metrics train-7f3k2m train-9c1d0q --metric val_loss --plot
  curi metrics train@last --watch
  curi metrics train@last --json --points | jq '.[0].metrics[] | select(.name == "loss")'`,
		Args:              nargs(1, -1, "RUN…, such as train@last"),
		ValidArgsFunction: a.completeRuns,
		RunE: func(c *cobra.Command, args []string) error {
			if o.watch && a.json {
				return usagef("curi metrics --watch is for people; call it without --watch for --json")
			}
			for {
				list, err := a.measure(c.Context(), args, o.names)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(wordMetrics(list, o.points))
				}
				if o.watch && isTerminal(a.out) {
					if err := a.write("\x1b[H\x1b[2J"); err != nil {
						return err
					}
				}
				if err := a.showMetrics(list, o.plot); err != nil {
					return err
				}
				if !o.watch || !slices.ContainsFunc(list, func(m measured) bool { return m.run.Status == stages.Running }) {
					return nil
				}
				select {
				case <-c.Context().Done():
					return c.Context().Err()
				case <-time.After(watchEvery):
				}
			}
		},
	}
	f := c.Flags()
	f.StringArrayVar(&o.names, "metric", nil, "only the metric `NAME`, * for any text (repeatable)")
	f.BoolVar(&o.plot, "plot", false, "draw the metrics over their steps")
	f.BoolVar(&o.points, "points", false, "with --json: every point")
	f.BoolVar(&o.watch, "watch", false, "again every 2 s, while a run goes on")
	_ = c.RegisterFlagCompletionFunc("metric", cobra.NoFileCompletions)
	c.AddCommand(newMetricsDiff(a))
	return c
}

const watchEvery = 2 * time.Second

// measure reads the metrics of runs; names picks among them.
func (a *app) measure(ctx context.Context, refs, names []string) ([]measured, error) {
	var list []measured
	for _, ref := range refs {
		s, t, err := a.resolve(ctx, ref)
		if err != nil {
			return nil, err
		}
		if t.Run == nil {
			return nil, usagef("%s is no run; curi log lists them", t.Name)
		}
		run := a.asItIs(ctx, s, *t.Run)
		m, err := a.metricsOf(ctx, s, run)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			have := m.series
			m.series = slices.DeleteFunc(slices.Clone(have), func(s stages.Series) bool { return !namesMetric(names, s.Name) })
			if len(m.series) == 0 && len(have) > 0 && run.Status != stages.Running {
				return nil, fmt.Errorf("%s has no metric %s: it has %s: %w", run.ID, strings.Join(names, ", "), someMetrics(have), cas.ErrNotFound)
			}
		}
		list = append(list, m)
	}
	return list, nil
}

func (a *app) metricsOf(ctx context.Context, s *cas.Store, run stages.Run) (measured, error) {
	list, notes, err := stages.MetricsOf(ctx, s, run)
	if errors.Is(err, cas.ErrNotFound) { // a collection took the outputs
		a.warn("%s", oneLine(err.Error()))
		err = nil
	}
	for _, n := range notes {
		a.warn("%s: %s", run.ID, n)
	}
	return measured{run, list}, err
}

func namesMetric(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matchStars(p, name) })
}

// matchStars matches a pattern in which * stands for any text.
func matchStars(pattern, text string) bool {
	head, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == text
	}
	if !strings.HasPrefix(text, head) {
		return false
	}
	for i := len(head); i <= len(text); i++ {
		if matchStars(rest, text[i:]) {
			return true
		}
	}
	return false
}

func someMetrics(list []stages.Series) string {
	var names []string
	for i, s := range list {
		if i == 20 {
			names = append(names, "…")
			break
		}
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

func wordMetrics(list []measured, points bool) []metricsJSON {
	out := []metricsJSON{}
	for _, m := range list {
		r := metricsJSON{Run: m.run.ID, Status: m.run.Status, Metrics: []metricJSON{}}
		for _, s := range m.series {
			low, high := s.Range()
			j := metricJSON{Name: s.Name, Last: number(s.Last().Value), Step: number(s.Last().Step), Min: number(low), Max: number(high), Count: len(s.Points)}
			if points {
				for _, p := range s.Points {
					j.Points = append(j.Points, [2]number{number(p.Step), number(p.Value)})
				}
			}
			r.Metrics = append(r.Metrics, j)
		}
		out = append(out, r)
	}
	return out
}

// metricNames lists the names that any of the runs has.
func metricNames(list []measured) []string {
	names := map[string]bool{}
	for _, m := range list {
		for _, s := range m.series {
			names[s.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func (a *app) showMetrics(list []measured, plot bool) error {
	names := metricNames(list)
	if len(names) == 0 {
		a.say("no metrics: no output of %s is a CSV, JSON or JSON lines file with numbers, nor an event file", runNames(list))
		return nil
	}
	if plot {
		for _, name := range names {
			if err := a.write(plotMetric(name, list, a.width())); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]string
	if len(list) == 1 {
		for _, s := range list[0].series {
			low, high := s.Range()
			rows = append(rows, []string{s.Name, word(s.Last().Value), word(s.Last().Step), word(low), word(high), strconv.Itoa(len(s.Points))})
		}
		return a.table([]string{"METRIC", ">LAST", ">STEP", ">MIN", ">MAX", ">POINTS"}, rows)
	}
	for len(list) > 0 {
		n := a.fitting(names, list)
		if err := a.tableOfRuns(names, list[:n]); err != nil {
			return err
		}
		if list = list[n:]; len(list) > 0 {
			if err := a.write("\n"); err != nil {
				return err
			}
		}
	}
	return nil
}

// tableOfRuns has a column for each run.
func (a *app) tableOfRuns(names []string, list []measured) error {
	header := []string{"METRIC"}
	for _, m := range list {
		header = append(header, ">"+m.run.ID)
	}
	var rows [][]string
	for _, name := range names {
		row := []string{name}
		for _, m := range list {
			row = append(row, m.last(name))
		}
		rows = append(rows, row)
	}
	return a.table(header, rows)
}

// fitting is how many of the runs, one at least, have a place beside each other
// at a terminal. What is no terminal is as wide as need be.
func (a *app) fitting(names []string, list []measured) int {
	if a.quiet || !isTerminal(a.out) {
		return len(list)
	}
	left := a.width()
	for _, name := range names {
		left = min(left, a.width()-utf8.RuneCountInString(visible(name)))
	}
	for i, m := range list {
		column := utf8.RuneCountInString(m.run.ID)
		for _, name := range names {
			column = max(column, utf8.RuneCountInString(m.last(name)))
		}
		if left -= 2 + column; left < 0 && i > 0 {
			return i
		}
	}
	return len(list)
}

func runNames(list []measured) string {
	var names []string
	for _, m := range list {
		names = append(names, m.run.ID)
	}
	return strings.Join(names, ", ")
}
