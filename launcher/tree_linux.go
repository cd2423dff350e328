package launcher

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// procStat is the part of /proc/<pid>/stat that the process tree needs.
type procStat struct {
	pid, parent int
	name        string
	start       uint64 // clock ticks since boot: with the pid, one process alone
	dead        bool   // a zombie
}

// readStat reads one; ok is false if it is gone.
func readStat(pid string) (st procStat, ok bool) {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return st, false
	}
	// pid (name) state ppid …; the name may contain anything.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return st, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 20 {
		return st, false
	}
	st.name = string(b[open+1 : end])
	st.pid, _ = strconv.Atoi(pid)
	st.parent, _ = strconv.Atoi(f[1])
	st.start, _ = strconv.ParseUint(f[19], 10, 64)
	st.dead = f[0] == "Z" || f[0] == "X"
	return st, true
}

// pids lists the directory /proc.
func pids() []string {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var out []string
	for _, n := range names {
		if n[0] >= '1' && n[0] <= '9' {
			out = append(out, n)
		}
	}
	return out
}

// descendants lists the living descendants of root. The command is one of
// them; only systems without a reaper need to be told its pid.
func descendants(root, _ int) []process {
	children := map[int][]procStat{}
	for _, n := range pids() {
		if st, ok := readStat(n); ok {
			children[st.parent] = append(children[st.parent], st)
		}
	}
	var out []process
	todo := []int{root}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, c := range children[p] {
			todo = append(todo, c.pid)
			if !c.dead {
				out = append(out, process{c.pid, c.name, c.start})
			}
		}
	}
	return out
}

var shells = []string{"sh", "dash", "bash", "zsh", "ksh"}

// runByShell lists what a process runs if it is a shell: its children, and of
// those that are shells theirs.
func runByShell(pid int) []process {
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err != nil || !slices.Contains(shells, filepath.Base(exe)) {
		return nil
	}
	var out []process
	for _, n := range pids() {
		if st, ok := readStat(n); ok && st.parent == pid && !st.dead {
			out = append(append(out, process{st.pid, st.name, st.start}), runByShell(st.pid)...)
		}
	}
	return out
}

// processesOfRun lists the living processes of this user, other than this
// one, whose environment has the mark, NAME=VALUE.
func processesOfRun(mark string) []process {
	if mark == "" {
		return nil
	}
	want := []byte(mark)
	self, uid := os.Getpid(), uint32(os.Getuid())
	var out []process
	for _, n := range pids() {
		if pid, _ := strconv.Atoi(n); pid == self {
			continue
		}
		var fi syscall.Stat_t
		if syscall.Stat("/proc/"+n, &fi) != nil || fi.Uid != uid {
			continue
		}
		// Before its environment: who takes the pid over meanwhile differs.
		st, ok := readStat(n)
		if !ok || st.dead {
			continue
		}
		env, err := os.ReadFile("/proc/" + n + "/environ")
		if err != nil {
			continue
		}
		for v := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(v, want) {
				out = append(out, process{st.pid, st.name, st.start})
				break
			}
		}
	}
	return out
}

// processWith is the process that has a pid now.
func processWith(pid int) process {
	st, _ := readStat(strconv.Itoa(pid))
	return process{pid, st.name, st.start}
}

// signalProcess signals a process unless it is gone: another may have its pid.
func signalProcess(p process, sig syscall.Signal) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if st, ok := readStat(strconv.Itoa(p.PID)); !ok || st.start != p.start {
		return
	}
	if err != nil || unix.PidfdSendSignal(fd, sig, nil, 0) == unix.ENOSYS {
		_ = syscall.Kill(p.PID, sig) // a kernel without pidfd
	}
}
