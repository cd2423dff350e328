package launcher

import (
	"os"

	"golang.org/x/sys/unix"
)

// rawOutput makes a pseudo-terminal pass "\n" as "\n": the caller's terminal
// does what is to be done about it, and the log stays as the program wrote it.
func rawOutput(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
}
