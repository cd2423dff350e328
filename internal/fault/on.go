//go:build curifault && linux

package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// At does what the environment says happens at the step.
func At(s Step) { _ = pass(string(s)) }

// In fails if the environment says that the call does.
func In(c Call) error { return pass(string(c)) }

// Now is the wall clock, as wrong as the environment says. It is for what is
// compared with times of files or of other processes: what one process
// measures goes by the monotonic clock, which does not jump.
func Now() time.Time {
	b, err := os.ReadFile(os.Getenv("CURI_FAULT_CLOCK"))
	if err != nil {
		return time.Now()
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		panic("CURI_FAULT_CLOCK: " + err.Error())
	}
	return time.Now().Round(0).Add(d)
}

// Duration is d, or what CURI_FAULT_TIMES says for name.
func Duration(name string, d time.Duration) time.Duration {
	for text := range strings.SplitSeq(os.Getenv("CURI_FAULT_TIMES"), ";") {
		if n, v, ok := strings.Cut(text, "="); ok && n == name {
			d, err := time.ParseDuration(v)
			if err != nil {
				panic("CURI_FAULT_TIMES: " + err.Error())
			}
			return d
		}
	}
	return d
}

// rule is one of CURI_FAULT.
type rule struct {
	role, name string
	from, to   int // the passages that it is for, counted from 1
	action     string
}

var rules = sync.OnceValue(func() (list []rule) {
	for text := range strings.SplitSeq(os.Getenv("CURI_FAULT"), ";") {
		if text == "" {
			continue
		}
		r, err := parseRule(text)
		if err != nil {
			panic(fmt.Sprintf("CURI_FAULT: %s: %v", text, err))
		}
		list = append(list, r)
	}
	return list
})

func parseRule(text string) (r rule, err error) {
	what, action, _ := strings.Cut(text, "=")
	r = rule{name: what, from: 1, to: 1, action: action}
	if role, name, ok := strings.Cut(what, "/"); ok {
		r.role, r.name = role, name
	}
	if name, n, ok := strings.Cut(r.name, "#"); ok {
		n, more := strings.CutSuffix(n, "+")
		if r.from, err = strconv.Atoi(n); err != nil {
			return r, err
		}
		r.name, r.to = name, r.from
		if more {
			r.to = 1 << 30
		}
	}
	return r, nil
}

// role is which program this is.
var role = sync.OnceValue(func() string {
	if len(os.Args) > 1 && os.Args[1] == "__guard" {
		return "guard"
	}
	return filepath.Base(os.Args[0])
})

var (
	mu     sync.Mutex
	passed = map[string]int{} // how often, by name; "*" for all
)

// pass counts that this process gets to name, and does what is due there.
func pass(name string) error {
	mu.Lock()
	passed[name]++
	passed["*"]++
	due := ""
	for _, r := range rules() {
		n := passed[r.name]
		if (r.role == "" || r.role == role()) && (r.name == name || r.name == "*") && n >= r.from && n <= r.to {
			due = r.action
		}
	}
	trace(name, passed[name])
	mu.Unlock()
	return act(name, due)
}

func trace(name string, n int) {
	file := os.Getenv("CURI_FAULT_TRACE")
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %d %s %d\n", role(), os.Getpid(), name, n)
}

func act(name, action string) error {
	kind, arg, _ := strings.Cut(action, ":")
	switch kind {
	case "":
		return nil
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "stop":
		// To this thread, which then goes no further; the others stop with it.
		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
		return nil
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			panic("CURI_FAULT: " + err.Error())
		}
		time.Sleep(d)
		return nil
	case "eio":
		return &os.PathError{Op: "injected " + name, Path: "at a fault point", Err: syscall.EIO}
	}
	panic("CURI_FAULT: unknown action " + action)
}
