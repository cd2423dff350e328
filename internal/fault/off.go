//go:build !curifault || !linux

package fault

import "time"

// At does nothing in this build.
func At(Step) {}

// In never fails in this build.
func In(Call) error { return nil }

// Now is time.Now in this build.
func Now() time.Time { return time.Now() }

// Duration is d in this build.
func Duration(_ string, d time.Duration) time.Duration { return d }
