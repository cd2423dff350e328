package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// The exit statuses of Curi's own failures; `curi help exit` documents them.
const (
	exitUsage    = 120
	exitNotFound = 121
	exitCorrupt  = 122
	exitTrouble  = 123
	exitRefused  = 124
	exitInternal = 125
)

// statusError ends curi with a status and, where err is nil, without a word:
// whatever was to be said has been said.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}
func (e *statusError) Unwrap() error { return e.err }

// usagef makes an error of a command line that can never be right.
func usagef(format string, args ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, args...)}
}

// notFoundf makes an error for a thing that was named and does not exist.
func notFoundf(format string, args ...any) error {
	return &statusError{exitNotFound, fmt.Errorf(format, args...)}
}

// troublef makes an error of the store or of a mount.
func troublef(format string, args ...any) error {
	return &statusError{exitTrouble, fmt.Errorf(format, args...)}
}

// meanings orders the errors that callers can test for: the first that
// matches decides.
var meanings = []struct {
	err    error
	status int
}{
	{launcher.ErrRefused, exitRefused},
	{launcher.ErrMount, exitTrouble},
	{remote.ErrAway, exitTrouble},
	{cas.ErrFormat, exitTrouble},
	{cas.ErrNoSpace, exitTrouble},
	{syscall.ENOSPC, exitTrouble},
	{syscall.EDQUOT, exitTrouble},
	{cas.ErrBusy, exitTrouble},
	{cas.ErrCorrupt, exitCorrupt},
	{cas.ErrChanged, exitCorrupt},
	{stages.ErrUsage, exitUsage},
	{cas.ErrInvalid, exitUsage},
	{cas.ErrExists, exitUsage},
	{cas.ErrNotFound, exitNotFound},
	{fs.ErrNotExist, exitNotFound},
	{remote.ErrGone, exitTrouble},
	{fs.ErrPermission, exitTrouble},
	{syscall.EROFS, exitTrouble},
	{syscall.ENOTCONN, exitTrouble},
	{syscall.EIO, exitTrouble},
	{syscall.EMFILE, exitTrouble},
	{syscall.ENFILE, exitTrouble},
	{syscall.ENOMEM, exitTrouble},
	{syscall.EFBIG, exitTrouble},
	{syscall.ENOTDIR, exitUsage},
	{syscall.EISDIR, exitUsage},
	{syscall.ENAMETOOLONG, exitUsage},
	{syscall.ELOOP, exitUsage},
}

// exitStatus is the one place that turns an error into an exit status.
func exitStatus(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var own *statusError
	if errors.As(err, &own) {
		return own.status
	}
	if sig, ok := endedBy(ctx, err); ok {
		return 128 + int(sig.sig)
	}
	for _, m := range meanings {
		if errors.Is(err, m.err) {
			return m.status
		}
	}
	return exitInternal
}

// endedBy tells whether err is how a command ended because of a signal.
func endedBy(ctx context.Context, err error) (sig interrupted, ok bool) {
	if errors.As(err, &sig) {
		return sig, true
	}
	return sig, errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &sig)
}

// report prints an error as one line and returns the exit status.
func (a *app) report(ctx context.Context, err error) int {
	status := exitStatus(ctx, err)
	if !a.started && status == exitInternal {
		status = exitUsage // cobra's own words about the command line
	}
	if err == nil {
		return status
	}
	var own *statusError
	if errors.As(err, &own) && own.err == nil {
		return status
	}
	if sig, ok := endedBy(ctx, err); ok {
		err = sig
	}
	fmt.Fprintln(a.err, "curi:", wayOut(err))
	return status
}

// wayOut words an error as one line, with what to do next where the error
// itself, which knows no command line, cannot say it.
func wayOut(err error) string {
	// "curi:" stands before it already.
	msg := strings.TrimPrefix(strings.TrimPrefix(oneLine(err.Error()), "curi: "), "curi ")
	// What cas calls it for callers to test for, which tells a person nothing.
	for _, name := range []error{cas.ErrInvalid, cas.ErrExists, cas.ErrFormat, stages.ErrUsage} {
		msg = strings.TrimSuffix(msg, ": "+name.Error())
	}
	switch {
	case errors.Is(err, cas.ErrCorrupt) && strings.Contains(msg, "/tags/"):
		return msg + "; curi tag gives the tag again"
	case errors.Is(err, cas.ErrCorrupt) && strings.Contains(msg, "/refs/"):
		return msg + "; curi rm of that version or run forgets it, what else is stored stays"
	case errors.Is(err, cas.ErrCorrupt) && strings.Contains(msg, "curi-store.json"):
		return msg + "; write its one line again (docs/format.md), what else is stored is whole"
	case errors.Is(err, cas.ErrCorrupt) && !strings.Contains(msg, "verification") && !strings.Contains(msg, "quarantine"):
		return msg + "; curi fsck finds all that is bad and names who used it"
	case errors.Is(err, cas.ErrFormat) && !strings.Contains(msg, "--store DIR"):
		return msg + ", or another store with --store DIR"
	case errors.Is(err, syscall.EMFILE):
		return msg + "; this shell allows too few open files: ulimit -n raises that"
	case errors.Is(err, syscall.EFBIG):
		return msg + "; the filesystem or this shell (ulimit -f) allows no larger files: use a store elsewhere with --store DIR"
	case errors.Is(err, cas.ErrNoSpace) && !strings.Contains(msg, "free some"):
		return msg + "; free some (curi rm, then curi gc) or use a store elsewhere (--store DIR)"
	}
	return msg
}

// oneLine folds the lines of an error into one.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return visible(strings.Join(lines, " "))
}

// visible writes what would move a terminal's cursor, or end a line, as an
// escape: names of files and bad input may hold anything.
func visible(s string) string {
	if !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if hidden(r) {
			q := strconv.Quote(s[i : i+n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// hidden also takes the characters that turn text around for those who read it.
func hidden(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
