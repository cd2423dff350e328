package cas

import (
	"os"
	"sync"
)

// thisHost names the machine: its host name, and which boot of which kernel it
// is in. Containers of one kernel share the boot and may differ in name; where
// the boot is unknown the name alone counts.
var thisHost = sync.OnceValue(func() (h struct{ name, boot string }) {
	h.name, _ = os.Hostname()
	h.boot = bootID()
	return h
})

// sameKernel reports whether a process that ran under host and boot would be
// seen by this kernel's flock.
func sameKernel(host, boot string) bool {
	if h := thisHost(); h.boot != "" || boot != "" {
		return h.boot == boot
	}
	return host == thisHost().name
}
