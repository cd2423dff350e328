package stages

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Set is a parameter set: values that take the place of those that stages give
// themselves. A point of a grid is one.
type Set struct {
	Name   string // "base", "sweep/lr=0.1,seed=2"; "" where the file has no sets
	Group  string // "sweep" of that point, else Name
	Params []Param

	key *yaml.Node
	at  map[string]*yaml.Node // values by parameter
}

// AllSets is what names every set; none can be called so.
const AllSets = "all"

// maxPoints bounds the points of one grid.
const maxPoints = 100_000

// sets reads parameter_sets.
func (r *fileReader) sets(n *yaml.Node) []Set {
	var sets []Set
	for _, p := range r.mapping(n, "parameter_sets") {
		where := "parameter set " + p.name
		if err := checkName("parameter set", p.name); err != nil {
			r.problem(p.key, "%v", err)
		}
		if p.name == AllSets {
			r.problem(p.key, "%s: the name means every set: choose another", where)
		}
		set := Set{Name: p.name, Group: p.name, key: p.key, at: map[string]*yaml.Node{}}
		var grid *yaml.Node
		for _, q := range r.mapping(p.value, where) {
			if q.name == "grid" {
				grid = q.value
			} else if v, ok := r.param(q, where); ok {
				set.Params = append(set.Params, v)
				set.at[v.Name] = q.value
			}
		}
		if grid == nil {
			sets = append(sets, set)
		} else {
			sets = append(sets, r.grid(set, grid, where+": grid")...)
		}
	}
	if len(sets) == 0 && len(r.problems) == 0 {
		r.problem(n, "parameter_sets: there is no set: write base: {}, or leave it out")
	}
	return sets
}

// grid is the product of the values of a grid; the first parameter changes
// slowest.
func (r *fileReader) grid(set Set, n *yaml.Node, where string) []Set {
	points := []Set{set}
	names := map[int]string{}
	for _, p := range r.mapping(n, where) {
		if _, twice := set.at[p.name]; twice {
			r.problem(p.key, "%s: %s has a value beside the grid already", where, p.name)
			continue
		}
		if p.value.Kind != yaml.SequenceNode || len(p.value.Content) == 0 {
			r.problem(p.value, "%s: %s: want a list of values ([0.1, 0.01]), this is %s", where, p.name, kindOf(p.value))
			continue
		}
		var values []Param
		for _, e := range r.sequence(p.value, where+": "+p.name) {
			v, ok := r.param(pair{p.key, p.name, e}, where)
			if !ok {
				return nil
			}
			if slices.ContainsFunc(values, func(o Param) bool { return o.Canonical == v.Canonical }) {
				r.problem(e, "%s: %s: the value %s stands here twice", where, p.name, clip(v.Raw))
				continue
			}
			values = append(values, v)
		}
		if len(points)*len(values) > maxPoints {
			r.problem(n, "%s: more than %d points", where, maxPoints)
			return nil
		}
		var more []Set
		moreNames := map[int]string{}
		for i, point := range points {
			for j, v := range values {
				next := Set{Group: set.Group, key: set.key, at: map[string]*yaml.Node{p.name: p.value.Content[min(j, len(p.value.Content)-1)]}}
				for name, at := range point.at {
					next.at[name] = at
				}
				next.Params = append(slices.Clone(point.Params), v)
				moreNames[len(more)] = strings.TrimPrefix(names[i]+","+pointValue(v), ",")
				more = append(more, next)
			}
		}
		points, names = more, moreNames
	}
	if len(names) == 0 {
		if len(r.problems) == 0 {
			r.problem(n, "%s: there is no parameter in it", where)
		}
		return nil
	}
	for i := range points {
		points[i].Name = set.Group + "/" + names[i]
	}
	return points
}

// pointValue is a parameter in the name of a point, as STAGE[…] takes it.
func pointValue(q Param) string {
	value := q.Raw
	if q.Type == "null" {
		value = "null"
	} else if q.Type == "str" && (value == "" || strings.ContainsFunc(value, func(c rune) bool { return strings.ContainsRune(",\"'[]{}/= ", c) || c < ' ' })) {
		value = jsonString(value)
	}
	return q.Name + "=" + value
}

// pointPart matches what goes on in the name of a point behind a comma.
var pointPart = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*=`)

// SelectSets finds the sets that --set names: "base,sweep", "all",
// "sweep/lr=0.1,seed=2"; of a grid's parameters some may be left out. Without
// any it is the first. Errors wrap [ErrUsage].
func (f *File) SelectSets(texts []string) ([]Set, error) {
	if len(texts) == 0 {
		return f.Sets[:1], nil
	}
	taken := make([]bool, len(f.Sets))
	for _, text := range texts {
		for _, name := range splitSets(text) {
			if err := f.take(name, taken); err != nil {
				return nil, err
			}
		}
	}
	var sets []Set
	for i, set := range f.Sets {
		if taken[i] {
			sets = append(sets, set)
		}
	}
	return sets, nil
}

// splitSets splits at commas, but not within the name of a point.
func splitSets(text string) []string {
	var names []string
	for _, part := range outsideQuotes(text) {
		if len(names) > 0 && pointPart.MatchString(part) {
			names[len(names)-1] += "," + part
		} else {
			names = append(names, part)
		}
	}
	return names
}

// take marks the sets that one name means.
func (f *File) take(name string, taken []bool) error {
	group, point, isPoint := strings.Cut(name, "/")
	var want []Param
	if isPoint {
		var err error
		if want, err = parseSelection(point); err != nil {
			return usagef("parameter set %s: %v", name, err)
		}
	}
	found := false
	for i, set := range f.Sets {
		ok := name == AllSets || set.Group == group && !isPoint || set.Name == name
		if !ok && isPoint && set.Group == group {
			ok = !slices.ContainsFunc(want, func(w Param) bool {
				return !slices.ContainsFunc(set.Params, func(q Param) bool { return q.Name == w.Name && sameValue(q.Canonical, w.Canonical) })
			})
		}
		if ok {
			taken[i], found = true, true
		}
	}
	if found {
		return nil
	}
	if !f.HasSets {
		return usagef("there is no parameter set %q: %s has no parameter_sets", name, FileName)
	}
	names := f.SetNames()
	hint := suggest(name, names, "%s")
	if hint == "" {
		hint = ": there are " + strings.Join(names[:min(len(names), 12)], " ")
		if len(names) > 12 {
			hint += fmt.Sprintf(" and %d more", len(names)-12)
		}
	}
	return usagef("there is no parameter set %q%s", name, hint)
}

// SetNames lists what --set takes: groups, and the points of grids.
func (f *File) SetNames() []string {
	var names []string
	if !f.HasSets {
		return nil
	}
	for _, set := range f.Sets {
		if !slices.Contains(names, set.Group) {
			names = append(names, set.Group)
		}
	}
	for _, set := range f.Sets {
		if set.Name != set.Group {
			names = append(names, set.Name)
		}
	}
	return names
}
