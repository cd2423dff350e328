//go:build linux

package torture

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMadeTogether has two programs append to one new file, through a mount that
// the kernel writes back for. The second asks for the name while the file is
// being made, and is told what it is when the first has closed it. All lines are
// there.
func TestMadeTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const slow = "sleep:200ms"
	o := r.run(faults("curifs/mount.made#1+="+slow, "curifs/mount.found#1+="+slow), "unshare", "-U", "-r", "-m",
		"curi", "stage", "exec", "--name", "made", "--out", "log=log.txt", "--", "sh", "-c",
		`lines() { for i in 1 2 3 4 5 6 7 8 9; do echo $1 $i; done; }
		lines first >> {out.log} & sleep 0.05; lines second >> {out.log}; wait; cp {out.log} $SIDE/log`)
	if o.status != 0 {
		t.Fatal(o)
	}
	b, err := os.ReadFile(r.side + "/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"first", "second"} {
		for i := 1; i <= 9; i++ {
			if line := fmt.Sprintf("%s %d\n", who, i); strings.Count(string(b), line) != 1 {
				t.Errorf("%q is missing:\n%s", line, b)
			}
		}
	}
}
