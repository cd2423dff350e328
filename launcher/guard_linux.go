package launcher

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeReaper makes this process adopt every descendant whose parent ends.
func becomeReaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// childAttr gives the command a process group of its own; with a terminal as
// its stdout a session of its own, whose foreground that group is. If the
// guard is killed, so is the command.
func childAttr(tty bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if tty {
		a.Setsid, a.Setctty, a.Ctty = true, true, 1
	} else {
		a.Setpgid = true
	}
	return a
}
