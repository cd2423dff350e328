package stages

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// selects reports whether a run has every wanted parameter, operational ones
// included.
func selects(want []Param, run Run) bool {
	for _, w := range want {
		have, ok := run.Params[w.Name]
		if !ok {
			have, ok = run.OpParams[w.Name]
		}
		if !ok || !sameValue(w.Canonical, have) {
			return false
		}
	}
	return true
}

// sameValue also takes 1 for 1.0: people do not type as programs do.
func sameValue(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := strconv.ParseFloat(a, 64)
	y, err2 := strconv.ParseFloat(b, 64)
	return err1 == nil && err2 == nil && x == y
}

func equalParams(a, b map[string]string) bool { return maps.Equal(a, b) }

// alternatives lists the parameter sets of runs as REFs to type, showing only
// the parameters that differ.
func alternatives(parts refParts, runs []Run) string {
	differ := map[string]bool{}
	for _, run := range runs {
		for _, other := range runs {
			for k, v := range run.Params {
				if w, ok := other.Params[k]; !ok || v != w {
					differ[k] = true
				}
			}
		}
	}
	if len(differ) == 0 {
		for k := range runs[0].Params {
			differ[k] = true
		}
	}
	var refs []string
	for _, run := range runs {
		var words, quoted []string
		for _, k := range slices.Sorted(maps.Keys(run.Params)) {
			if differ[k] {
				words = append(words, k+"="+run.Params[k])
				quoted = append(quoted, k+"="+jsonString(run.Params[k]))
			}
		}
		form := func(words []string) string {
			return fmt.Sprintf("%s[%s].%s", parts.name, strings.Join(words, ","), parts.output)
		}
		ref := form(words)
		if !selectsOnly(ref, run, runs) {
			ref = form(quoted) // a text with a comma
		}
		if !selectsOnly(ref, run, runs) {
			ref = run.ID + "." + parts.output
		}
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	const most = 12
	if len(refs) > most {
		return strings.Join(refs[:most], " ") + fmt.Sprintf(" and %d more (curi log --stage %s)", len(refs)-most, parts.name)
	}
	return strings.Join(refs, " ")
}

// selectsOnly reports whether the REF STAGE[…].OUTPUT would pick this run's
// parameters and no others: a run without a parameter that others have needs
// its id.
func selectsOnly(ref string, run Run, runs []Run) bool {
	parts, err := parseRef(ref)
	if err != nil {
		return false
	}
	for _, other := range runs {
		if selects(parts.params, other) && !equalParams(other.Params, run.Params) {
			return false
		}
	}
	return selects(parts.params, run)
}
