//go:build !linux

package launcher

import "errors"

// mountPoint is what the kernel says of a mount; there are none here.
type mountPoint struct {
	fstype string
	uid    int
}

func mountedAt(string) (mountPoint, bool) { return mountPoint{}, false }

// DeadMount reports whether a mount lost its server; there are none here.
func DeadMount(string) bool { return false }

func lostWrite(string, string) (string, error) { return "", nil }

func detach(string) error { return errors.ErrUnsupported }
