//go:build linux

package fusefs

import (
	"fmt"
	"os"
)

// readAhead is how much the kernel asks for at once of a file that is read in
// order or mapped, where its pages come through this process, in KiB. FUSE
// leaves it at 128, which for bytes that come from memory costs a quarter of the
// time in turns between the reader and this process.
const readAhead = 512

// setReadAhead tells the kernel, which takes that from root alone. Nothing but
// speed hangs on it. See Documentation/ABI/testing/sysfs-class-bdi.
func (f *filesystem) setReadAhead(device string) {
	if err := os.WriteFile("/sys/class/bdi/"+device+"/read_ahead_kb", fmt.Append(nil, readAhead), 0); err != nil {
		f.log.Debug("files that come from a remote are read in smaller requests", "err", err)
	}
}
