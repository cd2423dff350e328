package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// slotPoll is how often who waits for slots looks whether some are free.
const slotPoll = 200 * time.Millisecond

// slots are GPUs and CPUs of this machine that one run has to itself: locks in
// the store, which every call on the machine takes before it uses them.
type slots struct {
	locks []*cas.Lock
	gpus  []string // as CUDA_VISIBLE_DEVICES names them
}

// slotDir is where the locks of this machine are. Containers of one machine
// share its devices, and its boot id, whatever their host names are. As no other
// machine has it, these locks need no beat.
func slotDir() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	name := strings.TrimSpace(string(b))
	if err != nil || name == "" {
		name, _ = os.Hostname()
	}
	return "slot/" + slotName(name)
}

// slotName is a text as part of a lock's name.
func slotName(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, text)
}

// takeSlots takes as many slots of each kind as are wanted, and waits for them:
// say is told for whom. Callers take turns, so that one that wants many is not
// overtaken for ever. What is returned has to be released.
func takeSlots(ctx context.Context, s *cas.Store, want map[string]int, what string, env environment, say func(string)) (*slots, error) {
	t := &slots{}
	if want[stages.GPUs]+want[stages.CPUs] == 0 {
		return t, nil
	}
	if err := lacksGPUs(want, what, env); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	devices := visibleGPUs(env)
	said := ""
	tell := func(text string) {
		if text != said {
			said = text
			say(text)
		}
	}
	turn, err := s.Lock(ctx, slotDir()+"/turn", what, func(h cas.Holder) error {
		tell("waiting for GPUs and CPUs behind " + h.What)
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer turn.Release()
	for _, kind := range []string{stages.GPUs, stages.CPUs} {
		names := devices
		if kind == stages.CPUs {
			names = make([]string, runtime.NumCPU())
			for i := range names {
				names[i] = strconv.Itoa(i)
			}
		}
		got, err := t.take(ctx, s, kind, names, min(want[kind], len(names)), what, tell)
		if err != nil {
			t.release()
			return nil, err
		}
		if kind == stages.GPUs {
			t.gpus = got
		}
	}
	return t, nil
}

// lacksGPUs says that more GPUs are wanted than there are; nil where not.
func lacksGPUs(want map[string]int, what string, env environment) error {
	if n, have := want[stages.GPUs], len(visibleGPUs(env)); n > have {
		return fmt.Errorf("%s wants %d GPUs, and this machine gives it %d (CUDA_VISIBLE_DEVICES names those that may be used)", what, n, have)
	}
	return nil
}

// take takes n slots of a kind.
func (t *slots) take(ctx context.Context, s *cas.Store, kind string, names []string, n int, what string, tell func(string)) ([]string, error) {
	var got []string
	for {
		holder := ""
		for _, name := range names {
			if len(got) == n {
				return got, nil
			}
			if slices.Contains(got, name) {
				continue
			}
			lock, err := s.Lock(ctx, slotDir()+"/"+kind+"-"+slotName(name), what, func(h cas.Holder) error { return &cas.HeldError{Name: name, Holder: h} })
			var held *cas.HeldError
			switch {
			case errors.As(err, &held):
				holder = held.Holder.What
				continue
			case err != nil:
				return nil, err
			}
			got = append(got, name)
			t.locks = append(t.locks, lock)
		}
		if len(got) == n {
			return got, nil
		}
		tell(fmt.Sprintf("waiting for %d of %d %s, held by %s", n-len(got), n, kind, holder))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(slotPoll):
		}
	}
}

// release gives the slots back; a guard that holds them too has them until it
// ends.
func (t *slots) release() {
	for _, l := range t.locks {
		_ = l.Release()
	}
}

// files are the descriptors that hold the slots, for the guard.
func (t *slots) files() []*os.File {
	var files []*os.File
	for _, l := range t.locks {
		files = append(files, l.File())
	}
	return files
}

var deviceFile = regexp.MustCompile(`^nvidia([0-9]+)$`)

// visibleGPUs lists the GPUs that a command may use, as CUDA does: up to the
// first entry of the variable that is none; without it, all of the machine.
func visibleGPUs(env environment) []string {
	if text, given := env.get("CUDA_VISIBLE_DEVICES"); given {
		var names []string
		for name := range strings.SplitSeq(text, ",") {
			name = strings.TrimSpace(name)
			if name == "" || strings.HasPrefix(name, "-") || slices.Contains(names, name) {
				break
			}
			names = append(names, name)
		}
		return names
	}
	entries, _ := os.ReadDir("/dev")
	var numbers []int
	for _, e := range entries {
		if m := deviceFile.FindStringSubmatch(filepath.Base(e.Name())); m != nil {
			n, _ := strconv.Atoi(m[1])
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var names []string
	for _, n := range numbers {
		names = append(names, strconv.Itoa(n))
	}
	return names
}
