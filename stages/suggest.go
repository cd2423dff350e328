package stages

import (
	"fmt"
	"slices"
	"strings"
)

// suggest returns ": did you mean X?" for the nearest of names, or "".
// form is how X is shown.
func suggest(word string, names []string, form string) string {
	near := nearest(word, names)
	if len(near) == 0 {
		return ""
	}
	for i := range near {
		near[i] = fmt.Sprintf(form, near[i])
	}
	return ": did you mean " + strings.Join(near, " or ") + "?"
}

// nearest returns at most 3 names that a slip of the fingers could have meant,
// nearest first.
func nearest(word string, names []string) []string {
	type scored struct {
		name string
		dist int
	}
	var all []scored
	for _, n := range names {
		d := editDistance(strings.ToLower(word), strings.ToLower(n))
		limit := max(len(word), len(n)) / 3
		if strings.HasPrefix(n, word) && len(word) >= 3 {
			d = min(d, 1)
		}
		if n != word && d <= max(limit, 1) && d < max(len(word), len(n)) {
			all = append(all, scored{n, d})
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.dist != b.dist {
			return a.dist - b.dist
		}
		return strings.Compare(a.name, b.name)
	})
	all = slices.CompactFunc(all, func(a, b scored) bool { return a.name == b.name })
	var out []string
	for i := 0; i < len(all) && i < 3; i++ {
		out = append(out, all[i].name)
	}
	return out
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	if len(a) > 200 || len(b) > 200 {
		return 200
	}
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}
