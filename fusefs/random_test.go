//go:build linux

package fusefs_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// The tests below make the same random operations in a plain directory of the
// store's filesystem and in the writable places of a mount, and compare what
// each comes to and, every few, all there is to see. Environment:
//
//	CURI_TEST_RANDOM_TIME=30m    go on for so long, with new seeds
//	CURI_TEST_RANDOM_SEED=7      this seed only,
//	CURI_TEST_RANDOM_LENGTH=40   and so many operations of it
//
// A difference is made small before it is told.

const (
	sequences      = 10  // without an environment that says otherwise, in each place
	sequenceLength = 200 // operations
)

func TestRandomOperations(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	if !m.info.Passthrough {
		t.Fatalf("no passthrough: %s", m.info.Reason)
	}
	openPlace(t, s, m, testKey, nil)
	compareRandomly(t, s, m, nil)
}

func TestRandomOperationsOfAnotherUser(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "allow_other")
	p := openPlace(t, s, m, testKey, nil)
	chmodAll(t, filepath.Join(p.Dir(), "out"))
	chmodAll(t, filepath.Join(p.Dir(), "work"))
	compareRandomly(t, s, m, asNobody)
}

func TestRandomOperationsWithoutRoot(t *testing.T) {
	s := newStore(t)
	m := asUserWithFusermount(t, s)
	openPlaceOf(t, s, m)
	compareRandomly(t, s, m, nil)
}

// comparison is a plain directory, a place of a mount, and the processes that
// work in them.
type comparison struct {
	plain, shown [performers]*peer
	disk         *peer // looks at the place behind the mount
	dirs         [3]string
	writeback    bool // no passthrough, and no permissions checked by the kernel
	mapped       bool // these operations map files
	dropped      bool // and these ask that pages be dropped
	slow         bool
	runs         int
}

func compareRandomly(t *testing.T, s *cas.Store, m *mounted, by []string) {
	t.Helper()
	// The same sequences each time, so that a change is judged by what it
	// changes; a search over a time goes its own way.
	seed, length := uint64(1), sequenceLength
	var until time.Time
	if text := os.Getenv("CURI_TEST_RANDOM_TIME"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		until, seed = time.Now().Add(d), rand.Uint64N(1e9)
	}
	once := os.Getenv("CURI_TEST_RANDOM_SEED")
	if once != "" {
		var err error
		if seed, err = strconv.ParseUint(once, 10, 64); err != nil {
			t.Fatal(err)
		}
		if text := os.Getenv("CURI_TEST_RANDOM_LENGTH"); text != "" {
			if length, err = strconv.Atoi(text); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("first seed %d", seed)
	plain := filepath.Join(filepath.Dir(s.Dir()), "plain")
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	if len(by)+len(m.within) > 0 {
		run(t, "chown", "65534:65534", plain)
	}
	start := append(slices.Clone(m.within), by...)
	done := 0
	for _, part := range []string{"work", "out"} {
		c := &comparison{writeback: !m.info.Passthrough}
		c.dirs = [3]string{plain, m.path("at", testKey[:16], part), filepath.Join(s.Place(testKey).Dir(), part)}
		for i := range performers {
			c.plain[i] = startPeer(t, start)
			c.shown[i] = startPeer(t, start)
		}
		c.disk = startPeer(t, start)
		half := time.Until(until) / 2
		begun := time.Now()
		for i := 0; i < sequences || !until.IsZero() && time.Since(begun) < half; i++ {
			ops := operations(seed, length)
			if err := c.compare(ops); err != nil {
				small := c.shrink(ops)
				t.Fatalf("seed %d in %s: %v\nin short:\n%s", seed, part, err, c.tell(small))
			}
			done += len(ops)
			if once != "" {
				break
			}
			seed++
		}
	}
	t.Logf("%d operations, last seed %d", done, seed-1)
}

// compare makes operations in fresh directories. The error tells the first
// that came to something else in the mount.
func (c *comparison) compare(ops []operation) error {
	c.runs++
	c.mapped = slices.ContainsFunc(ops, func(op operation) bool { return op.Do == "mmap" })
	c.dropped = slices.ContainsFunc(ops, func(op operation) bool { return op.Do == "drop" })
	name := fmt.Sprintf("run%d", c.runs)
	for i := range performers {
		for k, p := range []*peer{c.plain[i], c.shown[i]} {
			begin := operation{Do: "begin", A: filepath.Join(c.dirs[k], name)}
			if c.writeback {
				begin.How = 1 // see difference
			}
			if o := p.ask(begin); o.Errno != "" {
				return fmt.Errorf("beginning in %s: %s", c.dirs[k], o.Errno)
			}
		}
	}
	for i, op := range ops {
		if !c.comparable(op) {
			continue
		}
		if c.slow {
			time.Sleep(10 * time.Millisecond) // each its own time
		}
		plain, shown := c.both(op)
		if why := c.difference(op, plain, shown); why != "" {
			return fmt.Errorf("operation %d, %s: %s", i, inShort(op), why)
		}
	}
	// What is there when all is closed must be on disk, too.
	for i := range performers {
		c.both(operation{Do: "end", Who: i})
	}
	look := operation{Do: "state"}
	plain, shown := c.both(look)
	if why := c.difference(look, plain, shown); why != "" {
		return fmt.Errorf("with all files closed: %s", why)
	}
	if o := c.disk.ask(operation{Do: "begin", A: filepath.Join(c.dirs[2], name)}); o.Errno != "" {
		return fmt.Errorf("beginning in %s: %s", c.dirs[2], o.Errno)
	}
	if why := differentState(plain.Data, c.disk.ask(look).Data, c.mapped, c.writeback); why != "" {
		return fmt.Errorf("on disk behind the mount: %s", why)
	}
	for _, k := range []int{0, 2} {
		if err := os.RemoveAll(filepath.Join(c.dirs[k], name)); err != nil {
			return err
		}
	}
	return nil
}

// both makes one operation on both sides at once.
func (c *comparison) both(op operation) (plain, shown outcome) {
	c.plain[op.Who].tell(op)
	c.shown[op.Who].tell(op)
	return c.plain[op.Who].hear(op), c.shown[op.Who].hear(op)
}

// shrink leaves operations out for as long as a difference stays.
func (c *comparison) shrink(ops []operation) []operation {
	c.slow = c.compare(ops) == nil // it depends on the clock
	differs := func(ops []operation) bool { return c.compare(ops) != nil }
	end := time.Now().Add(2 * time.Minute)
	for size := len(ops) / 2; size > 0; {
		smaller := false
		for at := 0; at+size <= len(ops) && time.Now().Before(end); {
			without := slices.Concat(ops[:at], ops[at+size:])
			if differs(without) {
				ops, smaller = without, true
			} else {
				at += size
			}
		}
		if !smaller || size > len(ops) {
			size /= 2
		}
	}
	return ops
}

// tell shows operations with what they come to.
func (c *comparison) tell(ops []operation) string {
	var b strings.Builder
	for _, op := range ops {
		fmt.Fprintln(&b, inShort(op))
	}
	fmt.Fprintf(&b, "which makes: %v", c.compare(ops))
	return b.String()
}

func inShort(op operation) string {
	b, _ := json.Marshal(op)
	if len(b) > 400 {
		return string(b[:400]) + "…"
	}
	return string(b)
}

// peer is a performer in a process of its own.
type peer struct {
	t   *testing.T
	in  *json.Encoder
	out chan outcome
}

// performing makes the test binary a performer.
const performing = "CURI_TEST_PERFORM"

func startPeer(t *testing.T, by []string) *peer {
	t.Helper()
	argv := append(slices.Clone(by), testBinary(t))
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), performing+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, in: json.NewEncoder(in), out: make(chan outcome)}
	go p.read(out)
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("a performer failed: %v", err)
		}
	})
	return p
}

func (p *peer) read(r io.Reader) {
	defer close(p.out)
	for dec := json.NewDecoder(r); ; {
		var o outcome
		if dec.Decode(&o) != nil {
			return
		}
		p.out <- o
	}
}

func (p *peer) tell(op operation) {
	if err := p.in.Encode(op); err != nil {
		p.t.Fatalf("asking for %s: %v", inShort(op), err)
	}
}

func (p *peer) hear(op operation) outcome {
	select {
	case o, ok := <-p.out:
		if !ok {
			p.t.Fatalf("a performer ended at %s", inShort(op))
		}
		return o
	case <-time.After(2 * time.Minute):
		p.t.Fatalf("%s does not come back", inShort(op))
	}
	return outcome{}
}

func (p *peer) ask(op operation) outcome {
	p.tell(op)
	return p.hear(op)
}
