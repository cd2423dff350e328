package stages

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// metricScan reads the metrics of one file. What was read before an error
// stays.
type metricScan struct {
	r      *bufio.Reader
	last   *lastByte // of what was read
	whole  bool      // a last line without its end is a line
	series map[string][]Point
	left   int // points that can still be read
}

func newMetricScan(r io.Reader, left int) *metricScan {
	// A file that grows meanwhile has an end all the same.
	last := &lastByte{r: io.LimitReader(r, maxMetricBytes)}
	return &metricScan{r: bufio.NewReaderSize(last, 64<<10), last: last, series: map[string][]Point{}, left: left}
}

// lastByte remembers the last byte that was read.
type lastByte struct {
	r io.Reader
	b byte
}

func (l *lastByte) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.b = p[n-1]
	}
	return n, err
}

// number parses a cell; text, and nothing, is none.
func number(cell string) (float64, bool) {
	v, err := strconv.ParseFloat(strings.TrimSpace(cell), 64)
	return v, err == nil || errors.Is(err, strconv.ErrRange)
}

// csv reads a table with a line of names. A column that holds text has no
// values; an empty cell is none.
func (sc *metricScan) csv() error {
	r := csv.NewReader(sc.r)
	r.FieldsPerRecord, r.ReuseRecord, r.LazyQuotes = -1, true, true
	head, err := r.Read()
	if err != nil {
		return errNotMetrics
	}
	names := make([]string, len(head))
	for i, name := range head {
		names[i] = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		if _, isNumber := number(name); isNumber {
			return errNotMetrics // a table without names: data
		}
	}
	// A line is added when the next was read: the last may be half of one, and
	// its last number half a number.
	values, next := map[string]float64{}, map[string]float64{}
	for line := 0; ; line++ {
		row, err := r.Read()
		half := err == io.EOF && sc.last.b != '\n' && !sc.whole
		if line > 0 && !half {
			if err := sc.add(line-1, values); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line+2, err)
		}
		clear(next)
		for i, cell := range row {
			if v, ok := number(cell); ok && i < len(names) && names[i] != "" {
				next[names[i]] = v
			}
		}
		values, next = next, values
	}
}

// json reads one value: its numbers, and lists of numbers or of objects over
// their items.
func (sc *metricScan) json() error {
	text, err := io.ReadAll(sc.r)
	if err != nil {
		return err
	}
	var v any
	if err := decodeJSON(text, &v); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	flat := map[string]float64{}
	if err := sc.flatten("", v, flat); err != nil {
		return err
	}
	return sc.add(0, flat)
}

// decodeJSON reads the first value of a text. Python writes what JSON has no
// number for as NaN and Infinity.
func decodeJSON(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	err := dec.Decode(v)
	if err == nil || !bytes.Contains(text, []byte("NaN")) && !bytes.Contains(text, []byte("Infinity")) {
		return err
	}
	dec = json.NewDecoder(bytes.NewReader(notFinite.ReplaceAllFunc(text, func(token []byte) []byte {
		if token[0] == '"' {
			return token
		}
		return slices.Concat([]byte{'"'}, token, []byte{'"'})
	})))
	dec.UseNumber()
	return dec.Decode(v)
}

// notFinite matches these, and strings, to pass over them.
var notFinite = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b`)

// flatten collects numbers by their names, joined by dots; lists become points.
func (sc *metricScan) flatten(name string, v any, flat map[string]float64) error {
	join := func(key string) string {
		if name == "" {
			return key
		}
		return name + "." + key
	}
	switch v := v.(type) {
	case json.Number:
		if n, ok := number(v.String()); ok && name != "" {
			flat[name] = n
		}
	case string:
		if (v == "NaN" || v == "Infinity" || v == "-Infinity") && name != "" {
			flat[name], _ = number(v)
		}
	case map[string]any:
		for key, of := range v {
			if err := sc.flatten(join(key), of, flat); err != nil {
				return err
			}
		}
	case []any:
		for i, of := range v {
			item := map[string]float64{}
			switch of := of.(type) {
			case map[string]any:
				if err := sc.flatten("", of, item); err != nil {
					return err
				}
				if err := sc.addBelow(name, i, item); err != nil {
					return err
				}
			case json.Number, string:
				if err := sc.flatten("item", of, item); err != nil {
					return err
				}
				if n, ok := item["item"]; ok {
					if err := sc.point(cmpName(name), Point{float64(i), n}); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// cmpName is a name for the items of a list that has none.
func cmpName(name string) string {
	if name == "" {
		return "value"
	}
	return name
}

// addBelow adds the values of one item of a list of objects, which may tell the
// step, under the list's name.
func (sc *metricScan) addBelow(list string, i int, item map[string]float64) error {
	if list == "" {
		return sc.add(i, item)
	}
	sub := metricScan{series: map[string][]Point{}, left: sc.left}
	if err := sub.add(i, item); err != nil {
		return err
	}
	for name, points := range sub.series {
		for _, p := range points {
			if err := sc.point(list+"."+name, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// jsonLines reads one object a line. A last line without its end that is none
// is being written.
func (sc *metricScan) jsonLines() error {
	for line := 0; ; line++ {
		text, err := sc.r.ReadBytes('\n')
		last := err == io.EOF
		if err != nil && !last {
			return err
		}
		if text = bytes.TrimSpace(text); len(text) == 0 {
			if last {
				return nil
			}
			line--
			continue
		}
		var v map[string]any
		if err := decodeJSON(text, &v); err != nil {
			if last {
				return nil
			}
			return fmt.Errorf("line %d: it is not a JSON object: %w", line+1, err)
		}
		flat := map[string]float64{}
		if err := sc.flatten("", v, flat); err != nil {
			return err
		}
		if err := sc.add(line, flat); err != nil {
			return err
		}
	}
}
