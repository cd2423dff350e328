//go:build !linux

package launcher

import "syscall"

// becomeReaper: there are no subreapers here. What a daemonised descendant
// does is unknown once it leaves the command's process group.
func becomeReaper() error { return nil }

// childAttr gives the command a process group of its own; with a terminal as
// its stdout a session of its own, whose foreground that group is.
func childAttr(tty bool) *syscall.SysProcAttr {
	if tty {
		return &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	}
	return &syscall.SysProcAttr{Setpgid: true}
}
