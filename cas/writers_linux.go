package cas

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// writersOf names the processes that have the file at path open for writing or
// mapped shared and writable, as far as /proc shows them to this user. below is
// the file's path as it also appears inside a mount of the store, or "": who
// has the file open through a mount has another inode.
func writersOf(path string, st fileState, below string) []string {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []string
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		dir := "/proc/" + p.Name()
		if writesThroughFD(dir, path, st, below) || writesThroughMap(dir, path, st, below) {
			found = append(found, processName(p.Name()))
		}
	}
	return found
}

func isWritten(link, path, below string) bool {
	link = strings.TrimSuffix(link, " (deleted)")
	return link == path || below != "" && strings.HasSuffix(link, "/"+below)
}

func writesThroughFD(dir, path string, st fileState, below string) bool {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return false // gone, or another user's
	}
	for _, fd := range fds {
		link, err := os.Readlink(dir + "/fd/" + fd.Name())
		if err != nil || !strings.HasPrefix(link, "/") {
			continue
		}
		if !isWritten(link, path, below) {
			// It may be open by another name.
			var o unix.Stat_t
			if unix.Stat(dir+"/fd/"+fd.Name(), &o) != nil || uint64(o.Dev) != st.dev || uint64(o.Ino) != st.ino {
				continue
			}
		}
		info, err := os.ReadFile(dir + "/fdinfo/" + fd.Name())
		if err == nil && opensForWriting(string(info)) {
			return true
		}
	}
	return false
}

// opensForWriting looks at the flags in /proc/PID/fdinfo/N, octal.
func opensForWriting(info string) bool {
	_, rest, ok := strings.Cut(info, "flags:")
	if !ok {
		return false
	}
	line, _, _ := strings.Cut(rest, "\n")
	flags, err := strconv.ParseUint(strings.TrimSpace(line), 8, 64)
	return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
}

// writesThroughMap looks for shared writable mappings in /proc/PID/maps:
//
//	address perms offset dev inode path
func writesThroughMap(dir, path string, st fileState, below string) bool {
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return false
	}
	inode := []byte(strconv.FormatUint(st.ino, 10))
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 6 || len(f[1]) != 4 || f[1][1] != 'w' || f[1][3] != 's' {
			continue
		}
		slash := bytes.IndexByte(line, '/')
		if slash < 0 {
			continue
		}
		name := strings.TrimSuffix(string(line[slash:]), "\n")
		if isWritten(name, path, below) || bytes.Equal(f[4], inode) && string(f[3]) == deviceName(st.dev) {
			return true
		}
	}
	return false
}

func deviceName(dev uint64) string {
	return fmt.Sprintf("%02x:%02x", unix.Major(dev), unix.Minor(dev))
}

// processName is the process as a person would look for it.
func processName(pid string) string {
	line, err := os.ReadFile("/proc/" + pid + "/cmdline")
	name := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
	if err != nil || name == "" {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		name = strings.TrimSpace(string(comm))
	}
	if len(name) > 80 {
		name = name[:77] + "..."
	}
	return fmt.Sprintf("process %s (%s)", pid, name)
}
