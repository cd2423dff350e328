package launcher

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/curi-store/curi/internal/fault"
)

// guardLink is curi's end of a running guard. Its methods may be called by
// several goroutines.
type guardLink struct {
	cmd     *exec.Cmd
	orders  *os.File
	encoder *json.Encoder
	reports chan guardReport // closed when the guard is gone
}

// startGuard starts the guard and in it the command. stdio are the command's
// descriptors, which the caller closes afterwards; held are inherited by the
// guard alone, the lock first.
func startGuard(self string, spec guardSpec, stdio [3]*os.File, held []*os.File) (*guardLink, error) {
	ordersR, ordersW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	defer ordersR.Close()
	reportsR, reportsW, err := os.Pipe()
	if err != nil {
		ordersW.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	defer reportsW.Close()
	spec.Held = len(held)
	cmd := exec.Command(sameProgram(self), GuardArg)
	cmd.Args[0] = self
	cmd.ExtraFiles = append([]*os.File{ordersR, reportsW, stdio[0], stdio[1], stdio[2]}, held...)
	// A session of its own: no Ctrl-C and no hang-up of the terminal may reach
	// it, nor what it runs, except through curi.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = withoutRun(os.Environ())
	if err := cmd.Start(); err != nil {
		ordersW.Close()
		reportsR.Close()
		return nil, fmt.Errorf("start the guard %s: %w", self, err)
	}
	fault.At(fault.GuardSpawned)
	l := &guardLink{cmd: cmd, orders: ordersW, encoder: json.NewEncoder(ordersW), reports: make(chan guardReport)}
	go l.receive(reportsR)
	if err := l.encoder.Encode(spec); err != nil {
		l.close()
		return nil, fmt.Errorf("start the guard %s: it ended at once: %w", self, err)
	}
	return l, nil
}

// sameProgram is a path to self that stays the running program even if self is
// replaced by a newer one while a call waits for its key.
func sameProgram(self string) string {
	if exe, err := os.Executable(); err == nil && exe == self && runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	return self
}

// withoutRun is an environment that does not claim to belong to a run: the
// guard of a stage within a stage is not what the outer guard may find by it.
func withoutRun(env []string) []string {
	var out []string
	for _, v := range env {
		if len(v) < 9 || v[:9] != "CURI_RUN=" {
			out = append(out, v)
		}
	}
	return out
}

func (l *guardLink) receive(r *os.File) {
	defer r.Close()
	defer close(l.reports)
	dec := json.NewDecoder(r)
	for {
		var rep guardReport
		if dec.Decode(&rep) != nil {
			return
		}
		l.reports <- rep
	}
}

// signal asks for sig to the command, and for the end of all after the grace.
func (l *guardLink) signal(sig syscall.Signal, grace time.Duration) {
	_ = l.encoder.Encode(guardOrder{Signal: int(sig), After: grace})
}

// kill asks for the end of all now.
func (l *guardLink) kill() { _ = l.encoder.Encode(guardOrder{}) }

// close lets the guard go and waits for it; a guard that still has a tree
// kills that first.
func (l *guardLink) close() {
	l.orders.Close()
	for range l.reports {
	}
	_ = l.cmd.Wait()
}
