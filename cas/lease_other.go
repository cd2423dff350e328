//go:build !linux

package cas

import "os"

// takeLease fails: there are no leases here.
func takeLease(*os.File) error { return errNoLease }

func holdsLease(*os.File) bool { return false }

// writersOf cannot be known here.
func writersOf(string, fileState, string) []string { return nil }
