package torture

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestHolderKilledAtEachStep lets a call wait for another one of the same key,
// which is stopped at a step and then killed there, or whose guard or mount is:
// the waiter takes over or reports how the other ended. It never hangs.
func TestHolderKilledAtEachStep(t *testing.T) {
	found := survey(t, "exec", "exec-no-mount")
	names := slices.DeleteFunc(named(t, "Step"), func(s string) bool { return !found.has(s) })
	for _, k := range found.trials(t, randomness(t), names) {
		rule := k.rule("stop")
		t.Run(title(rule, k.op), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			holder, argv := k.op.begin(r, r.traced(rule))
			pid := 0
			r.eventually("the stop", func() bool {
				pid = r.stopped()
				// In another order it does not get there as often.
				return pid != 0 || done(holder) && len(r.pids()) == 0
			})
			waiter := r.start(nil, argv...)
			r.eventually("the waiter to wait", func() bool { return done(waiter) || strings.Contains(waiter.stderr.String(), "waiting for") })
			if pid != 0 {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			first, second := r.finish(holder), r.finish(waiter)
			switch {
			case second.status == 0:
				k.op.check(r, second.stdout)
			case second.status != first.status && !second.commandFailed() && second.status != 123 && second.status != 124:
				t.Errorf("neither its own result nor that of the other: %s\nthe other: %s", second, first)
			}
			r.afterFault(k.op, argv, first)
		})
	}
}

func done(j *job) bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// stopped is a process of the rig that was stopped, or 0.
func (r *rig) stopped() int {
	for _, pid := range r.pids() {
		stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if strings.Contains(string(stat), ") T ") {
			return pid
		}
	}
	return 0
}
