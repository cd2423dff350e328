package torture

import (
	"slices"
	"strings"
	"testing"
)

// TestAcceptOfAKilledRun accepts what a run left that was killed while it was
// sealed: the outputs as they were written, each as a whole, or nothing.
func TestAcceptOfAKilledRun(t *testing.T) {
	found := survey(t, "exec", "exec-no-mount")
	names := slices.DeleteFunc(named(t, "Step"), func(s string) bool {
		return !strings.HasPrefix(s, "seal.") && !strings.HasPrefix(s, "publish.") && s != "run.ended" && s != "run.sealed"
	})
	for _, k := range found.trials(t, randomness(t), names) {
		rule := k.rule("kill")
		t.Run(title(rule, k.op), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			j, argv := k.op.begin(r, r.traced(rule))
			if o := r.finish(j); o.status != 137 {
				t.Fatal(o)
			}
			r.settle()
			run := r.runs()[0]
			i := slices.Index(argv, "--")
			accept := slices.Concat(argv[:i:i], []string{"--accept", run}, argv[i:])
			// Now, and after another run moved it aside and failed.
			if k.n%2 == 0 {
				r.hook("exit 3")
				r.run(nil, argv...)
			}
			switch o := r.run(nil, accept...); {
			case o.status == 0:
				k.op.check(r, o.stdout)
			case o.status != 124: // nothing had been written yet
				t.Error(o)
			}
			r.afterFault(k.op, argv, outcome{status: 137})
		})
	}
}
