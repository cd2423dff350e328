//go:build linux

package fusefs_test

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// difference says how an operation came to something else in the mount than in
// a plain directory; "" if it did not, or as docs/filesystem.md says it does.
func (c *comparison) difference(op operation, plain, shown outcome) string {
	if op.Do == "state" {
		return differentState(plain.Data, shown.Data, c.mapped, false)
	}
	if plain == shown {
		return ""
	}
	if op.Do == "open" && op.Flags&unix.O_TMPFILE == unix.O_TMPFILE && shown.Errno == "ENOTSUP" {
		return "" // there is none, which libraries take for an answer
	}
	if c.writeback && plain.Errno != "" && shown.Errno != "" && (plain.Errno == "EACCES" || shown.Errno == "EACCES") {
		return "" // of two reasons to fail the server may find the other first, see usable
	}
	switch op.Do {
	case "lseek":
		if c.writeback && shown == allData(op, plain) {
			return ""
		}
		if c.dropped && (op.How == unix.SEEK_DATA || op.How == unix.SEEK_HOLE) {
			// What is allocated and not written is data to ext4 while pages of it
			// are in the cache, and the mount does not pass on to drop them.
			return ""
		}
	case "setxattr", "getxattr":
		if !strings.HasPrefix(op.B, "user.") && shown.Errno != "" && plain.Errno != "" {
			return "" // it fails in any case
		}
	}
	return fmt.Sprintf("%+v in the mount, %+v in a plain directory", shown, plain)
}

// allData is what a search for data or holes finds in a file that has no
// holes: with the writeback cache the kernel does not look for any.
func allData(op operation, plain outcome) outcome {
	var offset, size int64
	if n, _ := fmt.Sscan(plain.Data, &offset, &size); n < 2 {
		return plain
	}
	switch {
	case offset >= size:
		return outcome{Errno: "ENXIO", Data: plain.Data}
	case op.How == unix.SEEK_DATA:
		return outcome{N: offset, Data: plain.Data}
	case op.How == unix.SEEK_HOLE:
		return outcome{N: size, Data: plain.Data}
	}
	return plain
}

// comparable reports whether an operation is one to compare.
func (c *comparison) comparable(op operation) bool {
	switch op.Do {
	case "append":
		// A passthrough file that was opened for appending appends for ever:
		// the kernel opens the file behind it with the flags of the time.
		return op.How != 0 || c.writeback
	case "flock", "lock":
		// A mapping by passthrough is one of the file behind, and does not
		// hold on to the locks of a file that is closed.
		return !c.mapped || c.writeback
	}
	return true
}

// differentState compares what is to be seen: all but the times, which differ
// by when each side was at work. Of those, the ones that were set must be the
// same, and what was written later there must not be older here. When the time
// of a file changes that is written through a mapping depends on when its pages
// were written to disk. And only set times say how old a file behind a mount
// is that collects what is written (behind).
func differentState(plain, shown string, mapped, behind bool) string {
	p, s := strings.Split(plain, "\n"), strings.Split(shown, "\n")
	type times struct {
		line         string
		plain, shown int64
	}
	var recent []times
	for i := range max(len(p), len(s)) {
		var pl, sl string
		if i < len(p) {
			pl = p[i]
		}
		if i < len(s) {
			sl = s[i]
		}
		pl, pt, _ := strings.Cut(pl, "\x00")
		sl, st, _ := strings.Cut(sl, "\x00")
		if pl != sl {
			return fmt.Sprintf("in the mount\n\t%s\nin a plain directory\n\t%s", sl, pl)
		}
		const set = 1e18 // times that are set are older, see utimes
		if mapped && strings.Contains(pl, `" 10`) {
			continue
		}
		pn, _ := strconv.ParseInt(pt, 10, 64)
		sn, _ := strconv.ParseInt(st, 10, 64)
		switch {
		case pn < set || sn < set:
			if pn != sn {
				return fmt.Sprintf("mtime %d in the mount, %d in a plain directory:\n\t%s", sn, pn, pl)
			}
		case !behind || !strings.Contains(pl, `" 10`):
			recent = append(recent, times{pl, pn, sn})
		}
	}
	slices.SortFunc(recent, func(a, b times) int { return cmp.Compare(a.plain, b.plain) })
	var latest times // in the mount, of all that are older in the plain directory
	for i := 0; i < len(recent); {
		same := i
		for ; same < len(recent) && recent[same].plain == recent[i].plain; same++ {
			if recent[same].shown < latest.shown {
				return fmt.Sprintf("changed later, but in the mount its mtime is %d ns earlier:\n\t%s\nthan\n\t%s", latest.shown-recent[same].shown, recent[same].line, latest.line)
			}
		}
		for ; i < same; i++ {
			if recent[i].shown > latest.shown {
				latest = recent[i]
			}
		}
	}
	return ""
}
