package stages

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDuration parses 90s, 5m, 2h, 1d, 2w and sums such as 1d12h.
func ParseDuration(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	bad := usagef("%q is not a duration; the right form is 90s, 5m, 2h, 1d or 1d12h", text)
	if text == "0" {
		return 0, nil
	}
	rest, sum := text, float64(0)
	if rest == "" {
		return 0, bad
	}
	for rest != "" {
		n := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if n <= 0 {
			return 0, bad
		}
		f, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, bad
		}
		unit := rest[n:]
		if m := strings.IndexFunc(unit, func(r rune) bool { return r == '.' || r >= '0' && r <= '9' }); m >= 0 {
			unit = unit[:m]
		}
		rest = rest[n+len(unit):]
		of, ok := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "min": time.Minute, "h": time.Hour, "d": day, "w": 7 * day}[unit]
		if !ok {
			return 0, bad
		}
		sum += f * float64(of)
	}
	if sum > math.MaxInt64/2 {
		return 0, usagef("%q is too long a duration", text)
	}
	return time.Duration(sum), nil
}
