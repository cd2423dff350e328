package stages

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Point is one value of a metric.
type Point struct {
	Step  float64 // of training, or the number of the line, from 0
	Value float64
}

// Series is a metric over the steps of a run, in order; it has a point at least.
type Series struct {
	Name   string
	Points []Point
}

// Last is the newest point.
func (s Series) Last() Point { return s.Points[len(s.Points)-1] }

// Range returns the smallest and the largest value. NaN is passed over where
// there is another value.
func (s Series) Range() (low, high float64) {
	low, high = math.NaN(), math.NaN()
	for _, p := range s.Points {
		if math.IsNaN(low) || p.Value < low {
			low = p.Value
		}
		if math.IsNaN(high) || p.Value > high {
			high = p.Value
		}
	}
	return low, high
}

// Limits of what is read as metrics, so that a data set is not.
const (
	maxMetricFiles = 2000
	maxMetricBytes = 256 << 20 // of one file
	maxMetricNames = 1000      // of one file; one that has more is no metrics
	maxMetrics     = 4 << 20   // points of one run
)

// errNotMetrics is a file of the right name that holds none.
var errNotMetrics = errors.New("it holds no metrics")

// ReadMetrics finds the metrics in a run's outputs: CSV files (a column each),
// JSON files (numbers, nested names joined by dots), JSON lines, and event
// files of TensorBoard. notes tells, one line each, of files that were passed
// over or that end within a line.
//
// What stands in directories version_N beside each other, and in several event
// files of one directory, is one series: where a later one begins, it replaces
// what an earlier one has from that step on. A name that several files have is
// told apart by the file.
//
// Where whole is false, a run goes on, or did not come to its end: a last line
// that does not end is then half a line.
func ReadMetrics(fsys fs.FS, whole bool) (list []Series, notes []string, err error) {
	m := metrics{fsys: fsys, whole: whole, groups: map[string][]metricFile{}, left: maxMetrics}
	if err := fs.WalkDir(fsys, ".", m.visit); err != nil {
		return nil, nil, err
	}
	return m.series(), m.notes, nil
}

// metrics gathers those of one run.
type metrics struct {
	fsys   fs.FS
	whole  bool
	groups map[string][]metricFile // by path less version_N
	files  int
	left   int // points that can still be read
	notes  []string
}

// metricFile is what one file has.
type metricFile struct {
	path   string
	series map[string][]Point
}

func (m *metrics) visit(name string, d fs.DirEntry, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a run goes on
	}
	if err != nil {
		return err
	}
	read := metricReader(name)
	if !d.Type().IsRegular() || read == nil {
		return nil
	}
	if m.files++; m.files > maxMetricFiles {
		m.note(name, fmt.Errorf("more than %d files look like metrics: the rest is passed over", maxMetricFiles))
		return fs.SkipAll
	}
	series, err := m.read(name, read)
	if len(series) > 0 {
		group := metricGroup(name)
		m.groups[group] = append(m.groups[group], metricFile{name, series})
	}
	if err != nil && !errors.Is(err, errNotMetrics) && !errors.Is(err, fs.ErrNotExist) {
		m.note(name, err)
	}
	return nil
}

func (m *metrics) note(name string, err error) {
	m.notes = append(m.notes, name+": "+strings.Join(strings.Fields(err.Error()), " "))
}

func (m *metrics) read(name string, read func(*metricScan) error) (map[string][]Point, error) {
	f, err := m.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxMetricBytes {
		return nil, fmt.Errorf("it is larger than %d MiB: passed over", maxMetricBytes>>20)
	}
	sc := newMetricScan(f, m.left)
	sc.whole = m.whole
	err = read(sc)
	if errors.Is(err, errNotMetrics) {
		return nil, err
	}
	m.left = sc.left
	return sc.series, err
}

// metricReader tells by the name how a file is read; nil if it is none.
func metricReader(name string) func(*metricScan) error {
	base := path.Base(name)
	switch {
	case strings.Contains(base, ".tfevents."):
		return (*metricScan).events
	case strings.HasPrefix(base, "."):
		return nil
	}
	switch strings.ToLower(path.Ext(base)) {
	case ".csv":
		return (*metricScan).csv
	case ".json":
		return (*metricScan).json
	case ".jsonl", ".ndjson":
		return (*metricScan).jsonLines
	}
	return nil
}

var versionDir = regexp.MustCompile(`^version_([0-9]+)$`)

// metricGroup is the path of a file less version_N: files of one group are one
// after the other. Event files are grouped by their directory.
func metricGroup(name string) string {
	if strings.Contains(path.Base(name), ".tfevents.") {
		name = path.Dir(name)
	} else {
		name = strings.TrimSuffix(name, path.Ext(name))
	}
	parts := slices.DeleteFunc(strings.Split(name, "/"), versionDir.MatchString)
	return strings.Join(parts, "/")
}

// versionOf orders files of one group: by the numbers of their versions.
func versionOf(name string) (ns []int) {
	for part := range strings.SplitSeq(name, "/") {
		if v := versionDir.FindStringSubmatch(part); v != nil {
			n, _ := strconv.Atoi(v[1])
			ns = append(ns, n)
		}
	}
	return ns
}

// series joins the files of each group, and names what they have.
func (m *metrics) series() []Series {
	joined := map[string]map[string][]Point{}
	holders := map[string]int{} // groups that have a name
	for group, files := range m.groups {
		slices.SortFunc(files, func(a, b metricFile) int {
			if c := slices.Compare(versionOf(a.path), versionOf(b.path)); c != 0 {
				return c
			}
			return strings.Compare(a.path, b.path)
		})
		all := map[string][]Point{}
		for _, f := range files {
			for name, points := range f.series {
				all[name] = joinPoints(all[name], points)
			}
		}
		joined[group] = all
		for name := range all {
			holders[name]++
		}
	}
	var list []Series
	for group, all := range joined {
		for name, points := range all {
			if holders[name] > 1 {
				name = group + ":" + name
			}
			list = append(list, Series{name, points})
		}
	}
	slices.SortFunc(list, func(a, b Series) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// joinPoints adds what a later try wrote: from its first step on it is right.
func joinPoints(before, after []Point) []Point {
	if len(after) == 0 {
		return before
	}
	first := after[0].Step
	for _, p := range after {
		first = min(first, p.Step)
	}
	before = slices.DeleteFunc(slices.Clone(before), func(p Point) bool { return p.Step >= first })
	return append(before, after...)
}

// stepNames are the names that say at which step the others are.
var stepNames = []string{"step", "global_step", "iteration", "iter", "epoch"}

// add adds the values of one line: at the step that one of them is, else at
// the number of the line.
func (sc *metricScan) add(line int, values map[string]float64) error {
	step, of := float64(line), ""
	for _, name := range stepNames {
		if v, ok := values[name]; ok {
			step, of = v, name
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if name == of {
			continue
		}
		if err := sc.point(name, Point{step, values[name]}); err != nil {
			return err
		}
	}
	return nil
}

// point adds one point, within the limits.
func (sc *metricScan) point(name string, p Point) error {
	if _, ok := sc.series[name]; !ok && len(sc.series) == maxMetricNames {
		return errNotMetrics
	}
	if sc.left == 0 {
		return fmt.Errorf("the run has more than %d values: the rest is passed over", maxMetrics)
	}
	sc.left--
	sc.series[name] = append(sc.series[name], p)
	return nil
}
