//go:build linux

package main

import (
	"strings"
	"testing"
)

// FuzzParse checks that a command line, one argument a line, is refused in one
// line or names a store and a directory.
func FuzzParse(f *testing.F) {
	for _, args := range []string{
		"curifs\nS\nD\n-o\nallow_other,auto", "mount.curi\nS\nD\n-n\n-o\nauto,rw", "curifs\n-oallow_other,fsname=x\nS\nD\n-s",
		"curifs\n--version", "curifs\nS", "curifs\nS\nD\n-o\nro", "curifs\n--bad\nS\nD\n-o", "curifs\n-t", "curifs\n--ready-fd", "curifs\n-o=debug\n-\nD",
	} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		if strings.Contains(args, "--ready-fd") && strings.ContainsAny(args, "0123456789") {
			return // it would take a descriptor of this process over
		}
		c, err := parse(strings.Split(args, "\n"))
		switch {
		case err != nil:
			if text := err.Error(); text == "" || strings.Contains(text, "\n") {
				t.Fatalf("%q: error %q", args, text)
			}
		case !c.help && !c.version && (c.dir == "" || c.store == ""):
			t.Fatalf("%q: %+v", args, c)
		}
	})
}
