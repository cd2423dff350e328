package stages

import (
	"strconv"
	"strings"
	"time"
)

// Filter picks runs for a log. The zero Filter takes all.
type Filter struct {
	Project string  // "" is every project
	Stage   string  // "" is every stage
	Params  []Param // each must be set to an equal value, operational ones too
	Failed  bool    // only runs that ended without a result of their own
	Since   time.Time
}

// Match reports whether the filter takes a run.
func (f Filter) Match(r Run) bool {
	switch {
	case f.Project != "" && r.Project != f.Project,
		f.Stage != "" && r.Stage != f.Stage,
		!f.Since.IsZero() && r.Started.Before(f.Since),
		f.Failed && !r.Status.Unsuccessful():
		return false
	}
	return selects(f.Params, r)
}

// Unsuccessful reports whether a run of this status ended without a result.
func (s Status) Unsuccessful() bool {
	return s == Failed || s == Interrupted || s == TimedOut || s == Lost
}

// ParseSince parses a point in time: a date (2026-05-01), a date and time, or
// how long before now (90m, 36h, 3d, 2w). Dates without a zone are in now's.
// Errors wrap [ErrUsage].
func ParseSince(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for suffix, days := range map[string]int{"d": 1, "w": 7} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			if count, err := strconv.Atoi(n); err == nil && count >= 0 && count < 100_000 {
				return now.AddDate(0, 0, -count*days), nil
			}
		}
	}
	return time.Time{}, usagef("%q is no time: write a date (2026-05-01) or how long ago (90m, 36h, 3d, 2w)", text)
}
