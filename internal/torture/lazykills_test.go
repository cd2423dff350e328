package torture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lazyKills is a machine whose readers, mount and helper are killed while they
// read what only a remote has.
type lazyKills struct {
	*rig
	line    *narrow
	random  *rand.Rand
	digests []string // of the files
	far     int      // how many steps and calls a mount passes while a file comes
	long    time.Duration
	did     map[string]int
	kills   int
}

const (
	lazyFiles = 3
	lazySize  = 20 << 20
	lazySmall = 30
)

func lazySmallText(i int) string { return strings.Repeat(fmt.Sprintln("small", i), 1000) }

// TestLazyKills kills -lazykills processes while files of a bucket are read
// through a mount: readers, the mount and its helper, some mounts at a step of
// their own. What a reader has seen is right and does not come again, the store
// is whole, nothing stays mounted or runs on, and the next reader goes on.
func TestLazyKills(t *testing.T) {
	t.Parallel()
	to, objects := s3Bucket(t)
	line, front := newNarrow(t, to)
	maker, r := newRig(t), newRig(t)
	maker.url, r.url, maker.objects, r.objects = to, front, objects, objects
	for i := range lazyFiles {
		maker.write(fmt.Sprint("data/", i), string(noiseAt(uint64(i), 0, lazySize)))
	}
	for i := range lazySmall {
		maker.write(fmt.Sprint("data/small/", i), lazySmallText(i))
	}
	maker.addRemote()
	maker.ok("curi", "add", "data", "--name", "data")
	maker.ok("curi", "push", "data")
	r.addRemote()
	r.ok("curi", "pull")
	r.write(".curi/config.yaml", "keep: 1h\n")
	k := &lazyKills{rig: r, line: line, random: randomness(t), did: map[string]int{}}
	for i := range lazyFiles {
		d, _, _ := strings.Cut(maker.ok("b3sum", fmt.Sprint("data/", i)), " ")
		k.digests = append(k.digests, d)
	}
	for k.kills < *lazyKillCount && !t.Failed() {
		k.once()
	}
	r.settle()
	r.sound()
	r.staging(0)
	t.Logf("killed: %v", k.did)
}

// path is where the mount shows a file.
func (k *lazyKills) path(file int) string {
	return fmt.Sprintf("%s/remotes/team/data/%d", k.mnt, file)
}

// here tells, by group of 16 KiB, what of a file is in the store, as its format
// says it.
func (k *lazyKills) here(file int) (groups []bool, bytes int64) {
	k.t.Helper()
	d := k.digests[file]
	groups = make([]bool, lazySize>>14)
	_, whole := os.Stat(filepath.Join(k.store, "blobs", d[:2], d))
	b, err := os.ReadFile(filepath.Join(k.store, "partial", d[:2], d+".map"))
	for g := range groups {
		if at := 40 + g/8; whole == nil || err == nil && at < len(b) && b[at]&(1<<(g%8)) != 0 {
			groups[g] = true
			bytes += 1 << 14
		}
	}
	return groups, bytes
}

// slack is how much more than what lacks may come for a file: what verifies it,
// small files beside it, and at each edge of what comes at once the rest of a
// chunk. Two readers make some edges by their jumps.
func slack(groups []bool) int64 {
	gaps := int64(1 + 2*lazyJumps)
	for g := range groups {
		if g > 0 && groups[g-1] && !groups[g] {
			gaps++
		}
	}
	return 2<<20 + gaps*(160<<10)
}

// next is a file that is not here whole. When all are, they are read without
// the remote, and taken away.
func (k *lazyKills) next() int {
	k.t.Helper()
	for {
		for i := range lazyFiles {
			if file := (i + k.random.IntN(lazyFiles)) % lazyFiles; k.missing(file) > 0 {
				return file
			}
		}
		if all := k.missing(0) + k.missing(1) + k.missing(2); all > 0 {
			continue
		}
		k.mount(nil)
		before := k.line.sent.Load()
		for i := range lazyFiles {
			if o := k.finish(k.reader(i)); o.status != 0 {
				k.t.Fatalf("of what is here: %s", o)
			}
		}
		if n := k.line.sent.Load() - before; n > 0 {
			k.t.Errorf("%d bytes came of files that are here", n)
		}
		k.settle()
		k.write(".curi/config.yaml", "keep: 1ms\n")
		k.ok("curi", "gc")
		k.write(".curi/config.yaml", "keep: 1h\n")
	}
}

func (k *lazyKills) missing(file int) int64 {
	_, n := k.here(file)
	return lazySize - n
}

// mount mounts, unless that is mounted.
func (k *lazyKills) mount(env []string) {
	k.t.Helper()
	if len(k.mounted()) > 0 {
		return
	}
	if o := k.run(env, "curi", "mount", k.mnt); o.status != 0 && env == nil {
		k.t.Fatalf("want success: %s", o)
	}
}

func (k *lazyKills) reader(file int) *job {
	k.t.Helper()
	self, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	return k.start([]string{lazyReaderEnv + "=" + k.path(file)}, self, strconv.Itoa(file))
}

// once lets somebody read a file until he, or who serves him, is killed.
func (k *lazyKills) once() {
	k.t.Helper()
	file := k.next()
	victim := []string{"reader", "curifs", "curi-bucket", "step"}[k.random.IntN(4)]
	trace := k.side + "/trace"
	switch {
	case k.long == 0: // once undisturbed, to learn
		victim = "none"
		k.mount([]string{"CURI_FAULT_TRACE=" + trace})
	case victim == "step":
		k.settle()
		k.mount(faults(fmt.Sprintf("curifs/*#%d=kill", 1+k.random.IntN(k.far))))
	default:
		k.mount(nil)
	}
	groups, had := k.here(file)
	sent, began := k.line.sent.Load(), time.Now()
	readers := []*job{k.reader(file), k.reader(file)}
	if victim == "none" {
		k.finish(readers[0])
		k.long = time.Since(began)
	} else if victim != "step" {
		select {
		case <-readers[0].done: // too late
			victim = "none"
		case <-time.After(time.Duration(k.random.Int64N(int64(k.long)*(lazySize-had)/lazySize + 1))):
			k.killNamed(victim, readers[0])
		}
	}
	for i, j := range readers {
		o := k.finish(j)
		switch {
		case o.status == 0, i == 0 && victim == "reader" && o.status == 137:
		case o.status == 3 && (victim == "curifs" || victim == "step"):
		default:
			k.t.Errorf("after the kill of %s, reader %d: %s", victim, i, o)
		}
		k.isHere(file, o)
	}
	if n := k.line.sent.Load() - sent; n > lazySize-had+slack(groups) && victim != "curi-bucket" {
		k.t.Errorf("with the kill of %s %d bytes came where %d lacked, in pieces for which %d more may", victim, n, lazySize-had, slack(groups))
	}
	k.after(victim)
	if k.random.IntN(2) == 0 {
		k.goOn(victim, file)
	}
	if k.far == 0 {
		n := 0
		b, _ := os.ReadFile(trace)
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "curifs ") {
				n++
			}
		}
		k.far = n
	}
	if k.did[victim]++; victim != "none" {
		k.kills++
	}
}

// goOn reads a file to its end, undisturbed: what is here does not come again.
func (k *lazyKills) goOn(victim string, file int) {
	k.t.Helper()
	groups, had := k.here(file)
	sent := k.line.sent.Load()
	o := k.finish(k.reader(file))
	if o.status != 0 {
		k.t.Errorf("after the kill of %s: %s", victim, o)
	}
	if n := k.line.sent.Load() - sent; n > lazySize-had+slack(groups) {
		k.t.Errorf("after the kill of %s %d bytes came where %d lacked, in pieces for which %d more may", victim, n, lazySize-had, slack(groups))
	}
}

// killNamed kills what is to be killed.
func (k *lazyKills) killNamed(victim string, reader *job) {
	k.t.Helper()
	if victim == "reader" {
		_ = syscall.Kill(reader.Process.Pid, syscall.SIGKILL)
		return
	}
	for _, pid := range k.pids() {
		if _, name := statOf(pid); name == victim {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// isHere checks that the store has what a reader saw.
func (k *lazyKills) isHere(file int, o outcome) {
	k.t.Helper()
	groups, _ := k.here(file)
	for line := range strings.Lines(o.stdout) {
		var off, n int64
		if _, err := fmt.Sscan(line, &off, &n); err != nil {
			continue // cut off
		}
		for g := off >> 14; g < (off+n)>>14; g++ {
			if !groups[g] {
				k.t.Errorf("a reader saw bytes %d to %d of file %d, and group %d is not in the store", off, off+n, file, g)
				return
			}
		}
	}
}

// after checks what is left, and goes on.
func (k *lazyKills) after(victim string) {
	k.t.Helper()
	switch victim {
	case "curifs":
		k.eventually("the helper to end with the mount", func() bool { return len(k.pids()) == 0 })
		k.eventually("the dead mount to go", func() bool { // a thread of its server may take a moment to die
			k.ok("curi", "umount", "--stale")
			return len(k.mounted()) == 0
		})
	case "step": // which may be behind all that was done
		k.settle()
	}
	if o := k.run(nil, "curi", "fsck"); o.status != 0 {
		k.t.Fatalf("after the kill of %s the store is not sound: %s", victim, o)
	}
	k.mount(nil)
	i := k.random.IntN(lazySmall)
	if o := k.run(nil, "cat", fmt.Sprintf("%s/remotes/team/data/small/%d", k.mnt, i)); o.stdout != lazySmallText(i) {
		k.t.Fatalf("after the kill of %s a small file reads otherwise: %s", victim, o)
	}
}
