package stages

import (
	"context"
	"fmt"
	"strings"

	"github.com/curi-store/curi/cas"
)

// History is what is known of a project's runs, read once.
type History struct {
	s       *cas.Store
	byStage map[string][]Run // newest first
	byKey   map[string]Run   // the newest
}

// ReadHistory reads the runs of a project. Runs that do not parse are passed
// over.
func ReadHistory(ctx context.Context, s *cas.Store, p Project) (*History, error) {
	h := &History{s: s, byStage: map[string][]Run{}, byKey: map[string]Run{}}
	for r, err := range Runs(ctx, s) {
		if err != nil || r.Project != p.Name {
			continue
		}
		h.byStage[r.Stage] = append(h.byStage[r.Stage], r)
		if _, newer := h.byKey[r.Key]; !newer {
			h.byKey[r.Key] = r
		}
	}
	return h, ctx.Err()
}

// Last returns the newest run of a key.
func (h *History) Last(k Key) (Run, bool) {
	r, ok := h.byKey[k.String()]
	return r, ok
}

// comparedRuns is how many runs of a stage Why compares with: it is asked for
// many stages at once.
const comparedRuns = 20

// Why words what differs from the nearest of the newest runs of a plan's stage.
func (h *History) Why(ctx context.Context, p *Plan) (string, error) {
	runs := h.byStage[p.Name]
	near, ok, err := explain(ctx, h.s, p, func(yield func(Run, error) bool) {
		for _, r := range runs {
			if !yield(r, nil) {
				return
			}
		}
	}, comparedRuns)
	switch {
	case err != nil:
		return "", err
	case !ok:
		return "never run", nil
	case len(near.Changes) == 0:
		return "nothing differs from " + near.Run.ID + ", whose result is gone", nil
	}
	const most = 3
	var words []string
	for i, c := range near.Changes {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(near.Changes)-most))
			break
		}
		words = append(words, c.Words())
	}
	return strings.Join(words, ", ") + " (since " + near.Run.ID + ")", nil
}

// Words words a change for people: "param lr 0.01 → 0.001", "code train.py".
func (c Change) Words() string {
	line := c.New
	if line == "" {
		line = c.Old
	}
	kind, rest, _ := strings.Cut(line, " ")
	name := ""
	if strings.HasPrefix(rest, `"`) {
		name = " " + unquoteText(rest[:quotedLength(rest)])
	}
	switch kind {
	case "param":
		return "param" + name + " " + paramWord(c.Old) + " → " + paramWord(c.New)
	case "argv":
		return "the command"
	case "dir", "stdin", "shell", "clean-env":
		name = ""
	}
	switch {
	case c.Old == "":
		return kind + name + " is new"
	case c.New == "":
		return kind + name + " is gone"
	}
	return kind + name + " changed"
}

// paramWord is the value in a line of a parameter.
func paramWord(line string) string {
	i := strings.LastIndex(strings.TrimSuffix(line, `"`), ` "`)
	if i < 0 {
		return "nothing"
	}
	return unquoteText(line[i+1:])
}

// unquoteText takes the quotes off a text of a preimage; escapes stay as they
// are, for people.
func unquoteText(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, `"`), `"`) }
