//go:build linux

package fusefs

import (
	"strings"
	"syscall"
)

// With the writeback cache a program is told that its bytes are written when
// the kernel has them. Should the disk not take them afterwards, it hears of that
// from close(2) or fsync(2), which many do not look at, and not at all if it has
// ended. So the mount remembers, for whoever is about to publish the file.

// lostAttr and a run's name are an attribute of the mount's root: which file of
// that run lacks bytes, and why.
const lostAttr = "user.curi.lost."

// noteLost notes that bytes of n could not be written. The logs of ranks are
// not what a run is judged by.
func (n *stageNode) noteLost(errno syscall.Errno) {
	f := n.place.f
	if !f.writeback {
		return // the program was told
	}
	state, err := n.place.current()
	_, path, _ := strings.Cut(strings.TrimPrefix(n.Path(nil), "at/"), "/")
	if err != nil || strings.HasPrefix(path, "logs/") {
		return
	}
	f.log.Error("a file lacks what a program wrote", "run", state.Run, "path", path, "err", errno)
	f.lostMu.Lock()
	defer f.lostMu.Unlock()
	if _, ok := f.lost[state.Run]; !ok {
		f.lost[state.Run] = path + ": " + errno.Error()
	}
}

// getLost answers for a run.
func (f *filesystem) getLost(run string, dest []byte) (uint32, syscall.Errno) {
	f.lostMu.Lock()
	defer f.lostMu.Unlock()
	text, ok := f.lost[run]
	if !ok {
		return 0, syscall.ENODATA
	}
	return attrValue([]byte(text), dest)
}
