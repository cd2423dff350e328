package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

// metricsDiffJSON is what `curi metrics diff --json` prints.
type metricsDiffJSON struct {
	A       string             `json:"a"`
	B       string             `json:"b"`
	Metrics []metricDifference `json:"metrics"`
	Params  []paramDifference  `json:"params"` // that differ
}

type metricDifference struct {
	Name   string  `json:"name"`
	A      *number `json:"a"` // the newest values; null where there is none
	B      *number `json:"b"`
	Change *number `json:"change"` // from a to b
}

type paramDifference struct {
	Name        string  `json:"name"`
	A           *string `json:"a"` // canonical; null where there is none
	B           *string `json:"b"`
	Operational bool    `json:"operational"`
}

func newMetricsDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff A B",
		Short: "Compare the metrics of two runs, and the parameters that differ",
		Long: `Compare the newest values of the metrics of two runs, and show which parameters
differ between them.`,
		Example: `  curi metrics diff train-7f3k2m train@last
  curi metrics diff 'train[lr=0.1]@last' 'train[lr=0.01]@last'`,
		Args:              nargs(2, 2, "two RUNs"),
		ValidArgsFunction: a.completeRuns,
		RunE:              func(c *cobra.Command, args []string) error { return a.diffMetrics(c.Context(), args) },
	}
}

func (a *app) diffMetrics(ctx context.Context, refs []string) error {
	list, err := a.measure(ctx, refs, nil)
	if err != nil {
		return err
	}
	d := compareMetrics(list[0], list[1])
	if a.json {
		return a.printJSON(d)
	}
	dash := func(n *number) string {
		if n == nil {
			return "-"
		}
		return word(float64(*n))
	}
	var rows [][]string
	for _, m := range d.Metrics {
		rows = append(rows, []string{m.Name, dash(m.A), dash(m.B), dash(m.Change)})
	}
	if len(rows) == 0 {
		a.say("neither run has metrics")
	} else if err := a.table([]string{"METRIC", ">" + d.A, ">" + d.B, ">CHANGE"}, rows); err != nil {
		return err
	}
	if a.quiet {
		return nil
	}
	if len(d.Params) == 0 {
		return a.write("\nno parameter differs\n")
	}
	rows = nil
	for _, p := range d.Params {
		row := []string{p.Name, "-", "-"}
		if p.A != nil {
			row[1] = *p.A
		}
		if p.B != nil {
			row[2] = *p.B
		}
		rows = append(rows, row)
	}
	if err := a.write("\n"); err != nil {
		return err
	}
	return a.table([]string{"PARAMETER", d.A, d.B}, rows)
}

func compareMetrics(x, y measured) metricsDiffJSON {
	d := metricsDiffJSON{A: x.run.ID, B: y.run.ID, Metrics: []metricDifference{}, Params: []paramDifference{}}
	value := func(m measured, name string) *number {
		s, ok := m.find(name)
		if !ok {
			return nil
		}
		n := number(s.Last().Value)
		return &n
	}
	for _, name := range metricNames([]measured{x, y}) {
		m := metricDifference{Name: name, A: value(x, name), B: value(y, name)}
		if m.A != nil && m.B != nil {
			change := *m.B - *m.A
			m.Change = &change
		}
		d.Metrics = append(d.Metrics, m)
	}
	for _, of := range []struct {
		a, b        map[string]string
		operational bool
	}{{x.run.Params, y.run.Params, false}, {x.run.OpParams, y.run.OpParams, true}} {
		d.Params = append(d.Params, compareParams(of.a, of.b, of.operational)...)
	}
	return d
}

func compareParams(a, b map[string]string, operational bool) (list []paramDifference) {
	names := map[string]bool{}
	for _, m := range []map[string]string{a, b} {
		for name := range m {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		p := paramDifference{Name: name, Operational: operational}
		if v, ok := a[name]; ok {
			p.A = &v
		}
		if v, ok := b[name]; ok {
			p.B = &v
		}
		if p.A == nil || p.B == nil || *p.A != *p.B {
			list = append(list, p)
		}
	}
	return list
}
