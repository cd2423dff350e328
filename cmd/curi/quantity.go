package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/stages"
)

const day = 24 * time.Hour

// parseDuration parses 90s, 5m, 2h, 1d, 2w and sums such as 1d12h.
func parseDuration(text string) (time.Duration, error) { return stages.ParseDuration(text) }

// parseSize parses a number of bytes such as 500G, 1.5 TiB or 200 GB. K, M, G
// and T alone are binary, as du and ls mean them.
func parseSize(text string) (int64, error) {
	bad := fmt.Errorf("%q is not a size; the right form is 500G, 1.5TiB or 200GB", text)
	n := strings.IndexFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if n < 0 {
		n = len(text)
	}
	f, err := strconv.ParseFloat(text[:n], 64)
	if err != nil {
		return 0, bad
	}
	unit := strings.ToUpper(strings.TrimSpace(text[n:]))
	base := 1024.0
	switch {
	case strings.HasSuffix(unit, "IB"):
		unit = strings.TrimSuffix(unit, "IB")
	case len(unit) == 2 && strings.HasSuffix(unit, "B"):
		unit, base = strings.TrimSuffix(unit, "B"), 1000
	case unit == "B":
		unit = ""
	}
	power := 0
	if unit != "" {
		power = strings.Index("KMGTP", unit) + 1
		if len(unit) != 1 || power == 0 {
			return 0, bad
		}
	}
	f *= math.Pow(base, float64(power))
	if f > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is too large a size", text)
	}
	return int64(f), nil
}

// parsePercent parses "5%" or "5" as a share between 0 (excluded) and 1.
func parsePercent(text string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(text), "%"), 64)
	if err != nil || !(f > 0) || f > 100 {
		return 0, fmt.Errorf("%q is not a share; the right form is 5%%, above 0%% and at most 100%%", text)
	}
	return f / 100, nil
}

// parsePair splits k=v; form is what the error shows as the right one.
func parsePair(option, text, form string) (key, value string, err error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return "", "", usagef("%s %q: the right form is %s", option, text, form)
	}
	return key, value, nil
}
