package main

import "fmt"

// row is one comparison.
type row struct {
	what         string
	native, ours side
	amount       amount
	want         target
	n, o         samples // of native and ours
}

// amount is what each side moved or did: bytes, things, or nothing that could
// be counted.
type amount struct {
	bytes int64
	files int
}

// target is what a row should reach.
type target struct {
	share   float64 // at least this share of the native speed
	factor  float64 // at most this many times the native time
	seconds float64 // at most this long
}

// measure fills in the samples of a row whose sides run one after the other.
func (r row) measure(rounds int) (row, error) {
	all, err := interleave(rounds, r.native, r.ours)
	if err != nil {
		return r, fmt.Errorf("%s: %w", r.what, err)
	}
	r.n, r.o = all[0], all[1]
	return r, nil
}

// ratio words how the sides compare, as the target does: a share of the native
// speed, or a multiple of the native time.
func (r row) ratio() string { return r.compare(r.n.median(), r.o.median()) }

func (r row) compare(native, ours float64) string {
	if r.want.share > 0 {
		return fmt.Sprintf("%.2f", native/ours)
	}
	return fmt.Sprintf("%.2f", ours/native)
}

// spread is the middle half of the rounds' own ratios.
func (r row) spread() string {
	ratios := r.o.over(r.n)
	if r.want.share > 0 {
		ratios = r.n.over(r.o)
	}
	return fmt.Sprintf("%.2f–%.2f", ratios.quantile(0.25), ratios.quantile(0.75))
}

func (r row) wanted() string {
	switch {
	case r.want.share > 0:
		return fmt.Sprintf("≥ %.2f × the speed", r.want.share)
	case r.want.factor > 0:
		return fmt.Sprintf("≤ %g × the time", r.want.factor)
	}
	return fmt.Sprintf("≤ %g ms", r.want.seconds*1e3)
}

func (r row) met() bool {
	n, o := r.n.median(), r.o.median()
	switch {
	case r.want.share > 0:
		return n/o >= r.want.share
	case r.want.factor > 0:
		return o/n <= r.want.factor
	}
	return o <= r.want.seconds
}

// figure words how long, and how fast, one side was.
func (a amount) figure(seconds float64) string {
	switch {
	case a.bytes > 0:
		return fmt.Sprintf("%s, %.0f MB/s", duration(seconds), float64(a.bytes)/seconds/1e6)
	case a.files > 0:
		return fmt.Sprintf("%s, %s a file", duration(seconds), duration(seconds/float64(a.files)))
	}
	return duration(seconds)
}

func duration(seconds float64) string {
	switch {
	case seconds < 1e-3:
		return fmt.Sprintf("%.1f µs", seconds*1e6)
	case seconds < 1:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.2f s", seconds)
}
