//go:build linux

package torture

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
)

// debugFaults makes a store into a page beyond the end of a file a panic.
func debugFaults() (restore func()) {
	old := debug.SetPanicOnFault(true)
	return func() { debug.SetPanicOnFault(old) }
}

// A seat is from where programs reach a run's places.
type seat struct {
	by   []string // what stands before a command there
	more []string // options of `curi stage exec`
	disk bool     // the places lie on the disk itself
}

// TestWritersRaceTheSeal lets programs write into a run's outputs in every way
// before, while and after they are sealed. Whatever they do, a run publishes
// what its digest says, or fails and says why; and what was published once
// never changes.
func TestWritersRaceTheSeal(t *testing.T) {
	for name, make := range map[string]func(*rig) seat{
		"passthrough": (*rig).asRoot,
		"writeback":   (*rig).asNobody,
		"no-mount":    func(*rig) seat { return seat{more: []string{"--no-mount"}, disk: true} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			raceTheSeal(r, make(r))
		})
	}
}

// asRoot reaches the places through a mount that root serves.
func (r *rig) asRoot() seat {
	r.ok("curi", "mount", r.mnt)
	return seat{}
}

// asNobody reaches them as a user without rights, by fusermount3.
func (r *rig) asNobody() seat {
	r.t.Helper()
	top := filepath.Dir(r.dir)
	r.ok("chmod", "755", top)
	r.ok("mkdir", r.mnt)
	r.ok("mknod", "-m", "666", top+"/fuse", "c", "10", "229")
	r.ok("chown", "-R", "65534:65534", r.store, r.dir, r.side, r.mnt, top+"/home")
	// The namespace lasts as long as this process.
	holder := exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$0" /dev/fuse && echo ready && exec sleep infinity`, top+"/fuse")
	said, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	if _, err := io.ReadFull(said, make([]byte, 6)); err != nil {
		r.t.Fatalf("make a mount namespace: %v", err)
	}
	s := seat{by: []string{"nsenter", "-t", fmt.Sprint(holder.Process.Pid), "-m", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		"env", "-C", r.dir}}
	r.ok(append(s.by, "curi", "mount", r.mnt)...)
	return s
}

// refused is what a run says that found a writer, or that its outputs are not
// what they were: the writers also remove and cut them.
var refused = regexp.MustCompile(`still open for writing by .*process|while it (is|was) sealed|another file stands there|is empty|has zero bytes`)

func raceTheSeal(r *rig, s seat) {
	random := randomness(r.t)
	bin := r.copyBinary()
	argv := append([]string{"curi", "stage", "exec", "--json", "--force", "--name", "race", "--out", "data=data/", "--work", "ck", "--grace", "50ms"}, s.more...)
	argv = slices.Concat(s.by, argv, []string{"--", bin, "{out.data}", "{work.ck}"})
	stage := writer{Role: "stage", Side: r.side, Disk: s.disk}
	run := func(slow ...string) outcome {
		stage.Seed = random.Uint64()
		return r.run(append(faults(slow...), stage.env()), argv...)
	}
	store, err := cas.Open(r.t.Context(), r.store, cas.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	p := &published{rig: r, store: store, digests: map[cas.Digest]bool{}}
	first := run()
	if first.status != 0 {
		r.t.Fatalf("undisturbed: %s", first)
	}
	p.add(first)
	where, err := os.ReadFile(r.side + "/places")
	if err != nil {
		r.t.Fatal(err)
	}
	poker := writer{Role: "poker", Side: r.side, Disk: s.disk}
	poker.Out, poker.Work, _ = strings.Cut(string(where), "\n")
	var pokers []*job
	for i := range 3 {
		poker.Seed, poker.Hold = random.Uint64(), i == 0
		pokers = append(pokers, r.start([]string{poker.env()}, append(s.by, bin)...))
	}
	rounds, refusals := 0, 0
	for end := time.Now().Add(*sealing); time.Now().Before(end) && !r.t.Failed(); rounds++ {
		// What takes microseconds lasts for a while, so that writers meet it.
		var slow []string
		for _, step := range []string{"place.marked", "seal.hashed", "seal.prepared", "publish.durable", "publish.blob", "seal.named", "publish.blobs", "run.sealed"} {
			if random.IntN(3) == 0 {
				slow = append(slow, fmt.Sprintf("%s#1+=sleep:%dus", step, random.IntN(5000)))
			}
		}
		o := run(slow...)
		switch {
		case o.status == 0:
			p.add(o)
		case refused.MatchString(o.stderr):
			refusals++
		default:
			r.t.Errorf("it fails and does not say why: %s", o)
		}
	}
	for _, j := range pokers {
		_ = j.Process.Kill()
		r.finish(j)
		if said := j.stderr.String(); said != "" {
			r.t.Errorf("a writer says: %s", said)
		}
	}
	p.check()
	r.t.Logf("%d runs, of which %d refused to publish; %d blobs", rounds, refusals, len(p.digests))
	if s.by != nil {
		r.ok(append(s.by, "curi", "umount", r.mnt)...)
	}
	r.sound()
}

// published is all that was published so far.
type published struct {
	*rig
	store   *cas.Store
	digests map[cas.Digest]bool
}

// add looks at what a run just published.
func (p *published) add(o outcome) {
	p.t.Helper()
	var res struct {
		Outputs map[string]struct{ Tree cas.Digest }
	}
	if err := json.Unmarshal([]byte(o.stdout), &res); err != nil {
		p.t.Fatalf("%v: %s", err, o)
	}
	tree, err := p.store.Tree(p.t.Context(), res.Outputs["data"].Tree)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range tree.Entries {
		p.digests[e.Digest] = true
	}
}

// check looks at all of them again.
func (p *published) check() {
	p.t.Helper()
	p.b3sum()
	for d := range p.digests {
		path := fmt.Sprintf("%s/blobs/%s/%s", p.store.Dir(), d.String()[:2], d)
		fi, err := os.Lstat(path)
		if err != nil {
			p.t.Errorf("what was published is gone: %v", err)
			continue
		}
		if st := fi.Sys().(*syscall.Stat_t); fi.Mode() != 0o444 || st.Nlink != 1 {
			p.t.Errorf("%s has mode %v and %d names", path, fi.Mode(), st.Nlink)
		}
	}
}

// copyBinary puts this test binary where other users can run it.
func (r *rig) copyBinary() string {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	to := filepath.Join(filepath.Dir(r.dir), "writer")
	src, err := os.Open(self)
	if err != nil {
		r.t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		r.t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		r.t.Fatal(err)
	}
	return to
}
