//go:build !linux

package launcher

import "syscall"

// descendants: without /proc the command's process group stands for its tree.
// A negative pid means the group.
func descendants(_, command int) []process {
	if command == 0 || syscall.Kill(-command, 0) != nil {
		return nil
	}
	return []process{{PID: -command, Name: "process group"}}
}

// runByShell: without /proc only the shell itself is known.
func runByShell(int) []process { return nil }

// processesOfRun: the environment of others cannot be read here.
func processesOfRun(string) []process { return nil }

func processWith(pid int) process { return process{PID: pid} }

// signalProcess signals the process, or the group.
func signalProcess(p process, sig syscall.Signal) { _ = syscall.Kill(p.PID, sig) }
