package torture

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestFailingDisk makes reads, writes, syncs and renames fail with EIO, once
// and from then on: one clear line, a documented status, nothing lost, and the
// next call works. With -everything each single one of them, else a choice.
func TestFailingDisk(t *testing.T) {
	found := survey(t)
	random := randomness(t)
	type trial struct {
		rule string
		op   *op
	}
	var trials []trial
	for _, at := range found.of(t, named(t, "Call")) {
		for _, w := range found[at] {
			for n := range w.times {
				for _, more := range []string{"", "+"} {
					trials = append(trials, trial{fmt.Sprintf("%s#%d%s=eio", at, w.first+n, more), w.op})
				}
			}
		}
	}
	if !*everything {
		random.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
		trials = trials[:60]
	}
	for _, k := range trials {
		t.Run(title(k.rule, k.op), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			j, argv := k.op.begin(r, r.traced(k.rule))
			out := r.finish(j)
			r.saysWhy(k.op, out)
			r.afterFault(k.op, argv, out)
		})
	}
}

// saysWhy checks what a person is told of a failing disk. A command of a stage
// says and does what it likes.
func (r *rig) saysWhy(o *op, out outcome) {
	r.t.Helper()
	if out.status == 0 || out.commandFailed() || slices.Contains(o.ends, out.status) {
		return
	}
	if !strings.Contains(out.stderr, "input/output error") {
		r.t.Errorf("it does not say what failed: %s", out)
	}
	last := ""
	for line := range strings.Lines(out.stderr) {
		if !strings.HasPrefix(line, "curi: ") && !strings.HasPrefix(o.name, "exec") {
			r.t.Errorf("a line that is not Curi's, %q: %s", line, out)
		}
		last = line
	}
	if !strings.HasPrefix(last, "curi: ") {
		r.t.Errorf("it does not end with why: %s", out)
	}
}

// TestLostWriteIsNotPublished makes the disk refuse each write that the kernel
// wrote back after the command had been told that it was done. The command
// looks at nothing and ends well.
func TestLostWriteIsNotPublished(t *testing.T) {
	found := survey(t, "exec-unprivileged")["curifs/mount.write"]
	if len(found) == 0 {
		t.Fatal("there is no such write")
	}
	for n := range found[0].times {
		t.Run(fmt.Sprint(n+1), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			j, argv := found[0].op.begin(r, r.traced(fmt.Sprintf("curifs/mount.write#%d=eio", n+1)))
			out := r.finish(j)
			if out.status == 0 || !strings.Contains(out.stderr, "nothing is published") && !out.commandFailed() {
				t.Errorf("published what the disk did not take: %s", out)
			}
			r.afterFault(found[0].op, argv, out)
		})
	}
}
