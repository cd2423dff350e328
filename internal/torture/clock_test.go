//go:build linux

package torture

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// jumped is the environment of a program that sees the clock a day and an hour
// before or after where it was.
func (r *rig) jumped(by string) []string {
	r.t.Helper()
	clock := filepath.Join(r.side, "clock"+by)
	if err := os.WriteFile(clock, []byte(by), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return []string{"CURI_FAULT_CLOCK=" + clock}
}

var jumps = []string{"-25h", "25h"}

// TestCollectionBesideAStoppedProcess stops programs at each step, lets the
// clock jump and a collection run, and lets them go on: nothing that they need
// was taken, and they end as if nothing had been.
func TestCollectionBesideAStoppedProcess(t *testing.T) {
	found := survey(t)
	random := randomness(t)
	for _, k := range found.trials(t, random, named(t, "Step")) {
		rule, by := k.rule("stop"), jumps[random.IntN(2)]
		t.Run(title(rule, k.op)+","+by, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			j, argv := k.op.begin(r, r.traced(rule))
			pid := 0
			r.eventually("the stop", func() bool {
				pid = r.stopped()
				return pid != 0 || done(j) && len(r.pids()) == 0
			})
			gc := r.start(r.jumped(by), "curi", "gc")
			r.eventually("the collection to end or to wait", func() bool { return done(gc) || waitsForLock(gc.Process.Pid) })
			if pid != 0 {
				if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			}
			if o := r.finish(gc); o.status != 0 {
				t.Errorf("the collection: %s", o)
			}
			out := r.finish(j)
			if out.status != 0 && !slices.Contains(k.op.ends, out.status) {
				t.Errorf("a collection was in its way: %s", out)
			} else if out.status == 0 && len(k.op.ends) == 0 {
				k.op.check(r, out.stdout)
			}
			r.afterFault(k.op, argv, out)
		})
	}
}

// waitsForLock reports whether a thread of a process waits in flock(2).
func waitsForLock(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	for _, th := range threads {
		b, _ := os.ReadFile(th)
		if strings.HasPrefix(string(b), fmt.Sprint(unix.SYS_FLOCK, " ")) {
			return true
		}
	}
	return false
}

// TestClockJumpsDuringARun: neither a collection nor another call of the same
// key takes a run for dead whose clock, and the times of whose files, jump.
func TestClockJumpsDuringARun(t *testing.T) {
	for _, by := range jumps {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			addData(r)
			clock := r.side + "/now"
			r.hook("touch $SIDE/began; until [ -e $SIDE/go ]; do sleep 0.02; done")
			env := []string{"CURI_FAULT_CLOCK=" + clock}
			first := r.start(env, stageArgv()...)
			r.eventually("the command to begin", func() bool { return exists(r.side + "/began") })
			if err := os.WriteFile(clock, []byte(by), 0o644); err != nil {
				t.Fatal(err)
			}
			// What was written before the jump is as old now as the jump makes it.
			then := map[string]string{"25h": "25 hours ago", "-25h": "25 hours"}[by]
			r.ok("find", r.store, "-type", "f", "-exec", "touch", "-d", then, "{}", "+")
			second := r.start(env, stageArgv()...)
			r.eventually("the other call to wait", func() bool { return done(second) || strings.Contains(second.stderr.String(), "waiting for") })
			if o := r.run(env, "curi", "gc"); o.status != 0 {
				t.Error(o)
			}
			if done(second) {
				t.Errorf("it did not wait: %s", r.finish(second))
			}
			if err := os.WriteFile(r.side+"/go", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			for i, j := range []*job{first, second} {
				o := r.finish(j)
				if o.status != 0 || strings.Contains(o.stdout, `"cached": true`) != (i == 1) {
					t.Errorf("call %d: %s", i+1, o)
					continue
				}
				checkResult(r, o.stdout)
			}
			r.sound()
		})
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
