package torture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// named lists the names of package fault of a kind, Step or Call, as its source
// declares them: a new one is covered without another word.
func named(t testing.TB, kind string) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../fault/steps.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == kind {
			name, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		return true
	})
	if len(names) == 0 {
		t.Fatalf("no %s in package fault", kind)
	}
	return names
}

// passages tells how often each program got to each name, "ROLE/NAME", by the
// trace that was written.
func (r *rig) passages() map[string]int {
	r.t.Helper()
	b, _ := os.ReadFile(r.side + "/trace") // there is none before the first
	times := map[string]int{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // ROLE PID NAME N
		n, _ := strconv.Atoi(f[3])
		times[f[0]+"/"+f[2]] = max(times[f[0]+"/"+f[2]], n)
	}
	return times
}

func (r *rig) traced(rules ...string) []string {
	return append(faults(rules...), "CURI_FAULT_TRACE="+r.side+"/trace")
}

// reached tells which ops get to a "ROLE/NAME", and how often, where nobody
// disturbs them; in the order of ops.
type reached map[string][]reach

type reach struct {
	op    *op
	first int // how often that was before, plus one
	times int
}

// any is one of the times.
func (w reach) any(random *rand.Rand) int { return w.first + random.IntN(w.times) }

// surveyed is what one op passed where nobody disturbed it.
type surveyed struct{ before, passed map[string]int }

// surveys are those that were made already, by op: the tests share them. They
// begin one after the other.
var surveys = map[*op]surveyed{}

// survey does ops, all if none are named, undisturbed.
func survey(t *testing.T, only ...string) reached {
	wanted := func(o *op) bool { return len(only) == 0 || slices.Contains(only, o.name) }
	t.Run("undisturbed", func(t *testing.T) {
		var mu sync.Mutex
		for i := range ops {
			o := &ops[i]
			if _, ok := surveys[o]; ok || !wanted(o) {
				continue
			}
			t.Run(o.name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				j, argv := o.begin(r, r.traced())
				out := r.finish(j)
				if out.status != 0 && !slices.Contains(o.ends, out.status) {
					t.Fatalf("undisturbed: %s", out)
				}
				r.settle()
				mu.Lock()
				surveys[o] = surveyed{r.before, r.passages()}
				mu.Unlock()
				o.repeat(r, argv)
				r.sound()
			})
		}
	})
	found := reached{}
	for i := range ops {
		o := &ops[i]
		if !wanted(o) {
			continue
		}
		for name, n := range surveys[o].passed {
			if first := surveys[o].before[name] + 1; first <= n {
				found[name] = append(found[name], reach{o, first, n - first + 1})
			}
		}
	}
	return found
}

// title makes a rule part of a test's name, where a slash would be another level.
func title(rule string, o *op) string {
	return o.name + "," + strings.NewReplacer("/", ".", "=", "-").Replace(rule)
}

// nameOf strips the role.
func nameOf(role string) string {
	_, name, _ := strings.Cut(role, "/")
	return name
}

// has reports whether an op gets to a name.
func (found reached) has(name string) bool {
	for at := range found {
		if nameOf(at) == name {
			return true
		}
	}
	return false
}

// of lists the "ROLE/NAME"s of given names, in order. A name that no op gets to
// is covered by nothing, which is a failure.
func (found reached) of(t *testing.T, names []string) (list []string) {
	t.Helper()
	for _, name := range names {
		var roles []string
		for at := range maps.Keys(found) {
			if nameOf(at) == name {
				roles = append(roles, at)
			}
		}
		if len(roles) == 0 {
			t.Errorf("nothing here gets to %s: add an op that does", name)
		}
		slices.Sort(roles)
		list = append(list, roles...)
	}
	return list
}

// A trial is one fault in one op.
type trial struct {
	at string // ROLE/NAME
	n  int    // the N-th time
	op *op
}

func (k trial) rule(action string) string { return fmt.Sprintf("%s#%d=%s", k.at, k.n, action) }

// trials are one for each "ROLE/NAME" of the names; with -everything those in
// every op and each time that it gets there.
func (found reached) trials(t *testing.T, random *rand.Rand, names []string) (list []trial) {
	t.Helper()
	for _, at := range found.of(t, names) {
		ways := found[at]
		if !*everything {
			w := ways[random.IntN(len(ways))]
			list = append(list, trial{at, w.any(random), w.op})
			continue
		}
		for _, w := range ways {
			for n := range w.times {
				list = append(list, trial{at, w.first + n, w.op})
			}
		}
	}
	return list
}

// TestKilledAtEachStep kills each program at each step that it gets to.
func TestKilledAtEachStep(t *testing.T) {
	found := survey(t)
	for _, k := range found.trials(t, randomness(t), named(t, "Step")) {
		rule := k.rule("kill")
		t.Run(title(rule, k.op), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			j, argv := k.op.begin(r, r.traced(rule))
			out := r.finish(j)
			if r.passages()[k.at] < k.n {
				t.Logf("it did not get there: %s", out)
			}
			r.afterFault(k.op, argv, out)
		})
	}
}

// afterFault checks what a command did that may have been cut off, and that
// everything goes on.
func (r *rig) afterFault(o *op, argv []string, out outcome) {
	r.t.Helper()
	known := out.status == 0 || out.commandFailed() || out.status == 137 || out.status >= 121 && out.status <= 125 || slices.Contains(o.ends, out.status)
	if !known {
		r.t.Errorf("no status that is documented: %s", out)
	}
	if out.status == 0 && len(o.ends) == 0 {
		o.check(r, out.stdout)
	}
	r.settle()
	r.sound()
	o.repeat(r, argv)
	r.settle()
	r.sound()
	r.staging(0)
}

// commandFailed: what a stage's command says to a mount that died or to a disk
// that fails is its own affair.
func (o outcome) commandFailed() bool {
	return o.status < 120 && (strings.Contains(o.stderr, fmt.Sprint("the command ended with exit status ", o.status)) ||
		strings.Contains(o.stderr, fmt.Sprintf("with exit status %d, and so does this call", o.status)))
}

func randomness(t testing.TB) *rand.Rand {
	t.Logf("seed %d: -seed=%[1]d does the same again", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}
