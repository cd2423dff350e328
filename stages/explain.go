package stages

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// explainRuns bounds how many earlier runs are compared, newest first.
const explainRuns = 500

// Change is a component of the preimage that differs: Old alone was taken
// away, New alone was added.
type Change struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// Nearest is the earlier run that a plan is closest to.
type Nearest struct {
	Run     Run
	Changes []Change // what differs from it, in order of the preimage; empty if nothing does
}

// Explain finds the earlier run of the stage in this project whose preimage
// differs in the fewest lines; of equals the newest. ok is false where there
// is none. Runs that left no record are passed over.
func Explain(ctx context.Context, s *cas.Store, p *Plan) (near Nearest, ok bool, err error) {
	return explain(ctx, s, p, runsWith(ctx, s, "run/"+p.Name+"-"), explainRuns)
}

// explain compares with at most so many runs.
func explain(ctx context.Context, s *cas.Store, p *Plan, runs iter.Seq2[Run, error], most int) (near Nearest, ok bool, err error) {
	seen := 0
	for run, err := range runs {
		if err := ctx.Err(); err != nil {
			return Nearest{}, false, err
		}
		if err != nil || run.Stage != p.Name || run.Project != p.Project.Name || run.Tree.IsZero() || run.Status == Running {
			continue
		}
		if seen++; seen > most {
			break
		}
		old, err := recordPreimage(ctx, s, run.Tree)
		if err != nil {
			continue
		}
		changes := Diff(old, p.Preimage)
		if !ok || weight(changes) < weight(near.Changes) {
			near, ok = Nearest{run, changes}, true
		}
	}
	return near, ok, nil
}

func weight(changes []Change) int {
	n := 0
	for _, c := range changes {
		if c.Old != "" {
			n++
		}
		if c.New != "" {
			n++
		}
	}
	return n
}

// Diff compares two preimages line by line. A line that is only on one side is
// paired with the line of the same component (the same parameter, file, …) on
// the other; elements of the command are paired in order.
func Diff(from, to Preimage) []Change {
	removed, added := onlyIn(from.Lines(), to.Lines()), onlyIn(to.Lines(), from.Lines())
	var changes []Change
	for _, old := range removed {
		c := Change{Old: old}
		i := slices.IndexFunc(added, func(line string) bool { return component(line) == component(old) })
		if i >= 0 {
			c.New = added[i]
			added = slices.Delete(added, i, i+1)
		}
		changes = append(changes, c)
	}
	for _, line := range added {
		changes = append(changes, Change{New: line})
	}
	if len(changes) == 0 && from != to {
		// The same elements in another order.
		for i, line := range from.Lines() {
			if other := to.Lines()[i]; other != line {
				changes = append(changes, Change{line, other})
			}
		}
	}
	return changes
}

// onlyIn returns the lines of a that b lacks, counting repeats.
func onlyIn(a, b []string) []string {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	var only []string
	for _, line := range a {
		if count[line] > 0 {
			count[line]--
		} else {
			only = append(only, line)
		}
	}
	return only
}

// component is what a line is about: its kind and, except for elements of the
// command, the quoted name that follows; of metadata also the key.
func component(line string) string {
	kind, rest, _ := strings.Cut(line, " ")
	names := 1
	switch kind {
	case "argv", "dir", "stdin", "resume-from":
		names = 0
	case "meta":
		names = 2
	}
	for range names {
		n := quotedLength(rest)
		kind += " " + rest[:n]
		rest = strings.TrimPrefix(rest[n:], " ")
	}
	return kind
}

// quotedLength is the length of the quoted text at the beginning of s.
func quotedLength(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}
