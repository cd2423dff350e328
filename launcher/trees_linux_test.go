package launcher

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// smallFiles is a tree of small files.
func smallFiles() map[string]string {
	files := map[string]string{}
	for i := range 200 {
		files[fmt.Sprintf("d%d/f%03d", i%2, i)] = fmt.Sprintf("content of %d\n", i)
	}
	return files
}

// mountedSmall is a call whose input data is a tree of small files.
func mountedSmall(t *testing.T, text string) call {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "root")
	}
	c := shell(t, text).mounted(t)
	c.addInput(t, "data", smallFiles())
	return c
}

// inputMounts tells where the inputs of runs are mounted, in this namespace.
func inputMounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "/in/") && strings.Contains(line, "curi") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// shortMount is a directory of this test to mount at.
func shortMount(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// The command sees the same files below {root}, and whom it asks for them is
// nobody: neither opens nor repeated reads reach the server.
func TestInputOfSmallFilesIsReadWithoutTheServer(t *testing.T) {
	const passes = 8
	c := mountedSmall(t, `cd {in.data}; cat */* > {out.model}
		count() { getfattr --absolute-names -n user.curi.stats --only-values $MNT > $MARKS/$1; }
		count 0; for i in `+sequence(passes)+`; do cat */* | cmp - {out.model}; find . -type f | wc -l; count $i; done
		ls -A {root}/in; stat -c %A {in.data} {in.data}/d0/f000`)
	c.addInput(t, "few", map[string]string{"a": "1\n"})
	dir := shortMount(t)
	c.serve(t, dir)
	c.Environ = append(c.Environ, "MNT="+dir)
	res, out := c.must(t)
	wantText(t, out, strings.Repeat("200\n", passes)+"data\nfew\ndr-xr-xr-x\n-r--r--r--\n")
	var want strings.Builder
	for _, d := range []int{0, 1} {
		for i := d; i < 200; i += 2 {
			fmt.Fprintf(&want, "content of %d\n", i)
		}
	}
	wantFile(t, res.Outputs["model"].Path, want.String())
	var stats [passes + 1]cas.MountStats
	for i := range stats {
		b, err := os.ReadFile(filepath.Join(c.marks(), strconv.Itoa(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &stats[i]); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
	}
	// The output is opened each time; 1,600 opens of inputs are not seen.
	if n := stats[passes].Opens - stats[0].Opens; n > 100 {
		t.Errorf("%d opens reached the server", n)
	}
	// Whoever drops the caches of the machine spoils a pass, not all.
	reads, lookups := int64(1000), int64(1000)
	for i := range passes {
		reads = min(reads, stats[i+1].Reads-stats[i].Reads)
		lookups = min(lookups, stats[i+1].Lookups-stats[i].Lookups)
	}
	if reads > 20 || lookups > 20 {
		t.Errorf("at least %d reads and %d look-ups reached the server each time", reads, lookups)
	}
}

// sequence is the words 1 to n.
func sequence(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprint(&b, " ", i+1)
	}
	return b.String()
}

// where prints below which mounts the inputs of a run lie.
const where = `for i in {root}/in/*; do echo "$(basename $i): $(grep -c " $i " /proc/self/mountinfo)"; done; `

func TestWhichInputsAreMounted(t *testing.T) {
	c := mountedSmall(t, where+`echo x > {out.model}`)
	c.addInput(t, "few", map[string]string{"a": "1\n"})
	large := smallFiles()
	large["d0/large"] = strings.Repeat("x", 17<<20)
	c.addInput(t, "large", large)
	_, out := c.must(t)
	wantText(t, out, "data: 1\n", "few: 0\n", "large: 0\n")
	if got := inputMounts(t); got != "" {
		t.Errorf("mounted outside of the run: %s", got)
	}
}

// The place is offered again, and is then a private copy, and then not.
func TestMountedInputOfTheNextTry(t *testing.T) {
	c := mountedSmall(t, where+`echo more >> {in.data}/d0/f000; echo $?; cat {in.data}/d0/f000; echo x > {out.model}; exit 1`)
	dir := shortMount(t)
	c.serve(t, dir)
	for i, writable := range []bool{false, true, false} {
		c.Stage.Inputs[0].Writable = writable
		_, out, err := c.run(t)
		if err != nil {
			t.Fatalf("try %d: %v: %s", i, err, out)
		}
		if writable {
			wantText(t, out, "data: 0\n0\ncontent of 0\nmore\n")
		} else {
			wantText(t, out, "data: 1\n", "Read-only file system", "content of 0\n")
		}
	}
	wantFile(t, filepath.Join(dir, "artifacts/data/d0/f000"), "content of 0\n")
	unmount(t, dir)
}

// unmount unmounts without force, as an administrator does.
func unmount(t *testing.T, dir string) {
	t.Helper()
	var err error
	waitFor(t, "the unmount of "+dir, func() bool {
		err = unix.Unmount(dir, 0)
		return err != unix.EBUSY
	})
	if err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

// writes tries every way to change a file and its directory, with root's
// rights, and prints those that worked and what refused the others.
const writes = `
import ctypes, errno, mmap, os, sys
F, D = sys.argv[1], os.path.dirname(sys.argv[1])
def opened(flags): os.close(os.open(F, flags))
def shared(flags):
    fd = os.open(F, flags)
    try: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0:1] = b'X'
    finally: os.close(fd)
def remounted():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b'', sys.argv[2].encode(), None, 0x20 | 0x1000, None) < 0: # MS_REMOUNT | MS_BIND, and not read-only
        raise OSError(ctypes.get_errno(), '')
    opened(os.O_RDWR)
for name, way in {
    'rdwr': lambda: opened(os.O_RDWR), 'write': lambda: opened(os.O_WRONLY), 'append': lambda: opened(os.O_WRONLY | os.O_APPEND),
    'trunc': lambda: opened(os.O_RDWR | os.O_TRUNC), 'rtrunc': lambda: opened(os.O_RDONLY | os.O_TRUNC), 'truncate': lambda: os.truncate(F, 1),
    'shared': lambda: shared(os.O_RDWR), 'chmod': lambda: os.chmod(F, 0o666), 'chown': lambda: os.chown(F, 0, 0), 'utime': lambda: os.utime(F, (1, 1)),
    'setxattr': lambda: os.setxattr(F, 'user.x', b'1'), 'create': lambda: os.close(os.open(D + '/new', os.O_CREAT | os.O_WRONLY)),
    'mkdir': lambda: os.mkdir(D + '/new'), 'symlink': lambda: os.symlink('x', D + '/new'), 'link': lambda: os.link(F, D + '/new'),
    'unlink': lambda: os.unlink(F), 'rename': lambda: os.rename(F, D + '/new'), 'rmdir': lambda: os.rmdir(D), 'mknod': lambda: os.mknod(D + '/new'),
    'remounted': remounted,
}.items():
    try:
        way()
        print(name, 'worked')
    except OSError as e:
        print(name, errno.errorcode[e.errno])
try: shared(os.O_RDONLY)
except OSError as e: print('shared of a read-only one', errno.errorcode[e.errno])
print(open(F).read(), end='')
`

func TestMountedInputCannotBeChangedByRoot(t *testing.T) {
	c := mountedSmall(t, where+`/usr/bin/python3 $MARKS/writes.py {in.data}/d1/f001 {in.data}; cat {in.data}/d1/f001 > {out.model}`)
	if err := os.WriteFile(filepath.Join(c.marks(), "writes.py"), []byte(writes), 0o644); err != nil {
		t.Fatal(err)
	}
	res, out := c.must(t)
	wantText(t, out, "data: 1\n", "shared of a read-only one EACCES\ncontent of 1\n")
	if n := strings.Count(out, " EROFS\n"); n != 20 || strings.Contains(out, "worked") {
		t.Errorf("%d of 20 were refused by EROFS:\n%s", n, out)
	}
	wantFile(t, res.Outputs["model"].Path, "content of 1\n")
	if rep, err := c.open(t).Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) > 0 {
		t.Errorf("the store is damaged: %+v, %v", rep, err)
	}
}

// Where namespaces tell each other of mounts, which is so on most systems, the
// others still are not told of this one, and of what the command mounts are.
func TestMountedInputsStayInTheirNamespace(t *testing.T) {
	c := mountedSmall(t, where+`caller=$(cut -d' ' -f4 /proc/$PPID/stat); echo outside: $(grep -c "/in/data " /proc/$caller/mountinfo)
		mkdir $MARKS/box; mount -t tmpfs none $MARKS/box; echo shared: $(grep -c " $MARKS/box " /proc/$caller/mountinfo); umount $MARKS/box
		cat {in.data}/d0/f000; echo x > {out.model}`)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "-m", "--propagation", "shared", self, callArg, c.json(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantText(t, string(out), "data: 1\noutside: 0\nshared: 1\ncontent of 0\n")
}

// A container that binds {root}, with what is mounted below it or without, has
// the inputs, and another user has them where the mount lets him in.
func TestMountedInputElsewhere(t *testing.T) {
	c := mountedSmall(t, where+`mkdir $MARKS/box; chmod 755 $MARKS
		unshare -m sh -c 'mount --bind {root} $MARKS/box && cat $MARKS/box/in/data/d1/f001'
		unshare -m sh -c 'mount --rbind {root} $MARKS/box && cat $MARKS/box/in/data/d1/f003'
		setpriv --reuid=65534 --regid=65534 --clear-groups cat {in.data}/d1/f005
		cat "$(dirname $(dirname {root}))"/runs/*/in/data/d1/f007
		echo x > {out.model}`)
	dir := shortMount(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c.serve(t, dir, "-o", "allow_other")
	_, out := c.must(t)
	wantText(t, out, "data: 1\ncontent of 1\ncontent of 3\ncontent of 5\ncontent of 7\n")
}

// A call within a run uses the mount that the run uses, though it finds it in
// another mount namespace.
func TestCallWithinARunWithMountedInputs(t *testing.T) {
	c := mountedSmall(t, where+`$SELF __call "$INNER" && echo x > {out.model}`)
	inner := c
	inner.Stage.Name = "inner"
	inner.Stage.Command = []string{where + `cat {in.data}/d0/f000 > {out.model}; cat {out.model}`}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c.Environ = append(c.Environ, "SELF="+self, "INNER="+inner.json(t))
	_, out := c.must(t)
	if n := strings.Count(out, "data: 1\n"); n != 2 {
		t.Errorf("the input is mounted in %d of both runs:\n%s", n, out)
	}
	wantText(t, out, "content of 0\n")
}

// waiting is a command that has its inputs open and waits.
const waiting = where + `exec 5< {in.data}/d0/f000; cd {in.data}/d1; echo $$ > $MARKS/pid; while [ ! -e $MARKS/go ]; do sleep 0.05; done; cat f001 > {out.model}`

func TestKillsLeaveNoMountedInput(t *testing.T) {
	for _, victim := range []string{"curi", "guard", "command"} {
		t.Run(victim, func(t *testing.T) {
			c := mountedSmall(t, waiting)
			dir := shortMount(t)
			c.serve(t, dir)
			ch := c.start(t)
			ch.stdout.await(t, "data: 1\n")
			pid := c.pidIn(t, "pid")
			switch victim {
			case "curi":
				ch.signal(t, syscall.SIGKILL)
			case "guard":
				st, ok := readStat(strconv.Itoa(pid))
				if !ok {
					t.Fatal("the command is gone")
				}
				kill(t, st.parent)
			case "command":
				kill(t, pid)
			}
			ch.wait(t)
			waitFor(t, "the command to end", func() bool { return !alive(pid) })
			if got := inputMounts(t); got != "" {
				t.Errorf("left: %s", got)
			}
			unmount(t, dir)
			// The server goes when the last namespace with its mount has gone.
			waitFor(t, "the server to leave", func() bool {
				live, stale, err := c.open(t).Mounts(t.Context())
				return err == nil && len(live)+len(stale) == 0
			})
			if err := os.WriteFile(filepath.Join(c.marks(), "go"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			res, out := c.must(t) // by a mount of its own
			wantText(t, out, "data: 1\n")
			wantFile(t, res.Outputs["model"].Path, "content of 1\n")
		})
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestServerOfMountedInputsIsKilled(t *testing.T) {
	c := mountedSmall(t, where+`cat {in.data}/d1/f001 > {out.model}; echo started
		while [ ! -e $MARKS/go ]; do sleep 0.05; done; cat {in.data}/d1/f003 || echo lost`)
	said := c.killMount(t, exitTrouble)
	wantText(t, said, "nothing is published")
	if got := inputMounts(t); got != "" {
		t.Errorf("left: %s", got)
	}
	res, out := c.must(t) // clears the dead mount away
	wantText(t, out, "data: 1\n")
	wantFile(t, res.Outputs["model"].Path, "content of 1\n")
}

// What a run has mounted in its namespace is not in the way of who unmounts the
// mount, though the run then ends.
func TestMountIsUnmountedDuringARun(t *testing.T) {
	c := mountedSmall(t, where+`echo $$ > $MARKS/pid; while [ ! -e $MARKS/go ]; do sleep 0.05; done`)
	dir := shortMount(t)
	c.serve(t, dir)
	ch := c.start(t)
	ch.stdout.await(t, "data: 1\n")
	pid := c.pidIn(t, "pid")
	unmount(t, dir)
	if got := ch.wait(t); got == 0 {
		t.Error("the run succeeded")
	}
	if alive(pid) {
		t.Error("the command lives")
	}
	waitFor(t, "the server to leave", func() bool {
		live, stale, err := c.open(t).Mounts(t.Context())
		return err == nil && len(live)+len(stale) == 0
	})
}

func TestMountedInputWithABlobThatIsGone(t *testing.T) {
	c := mountedSmall(t, where+`cat {in.data}/d0/f000; rm $BLOB; cat {in.data}/d0/f002; echo x > {out.model}`)
	d := cas.Sum([]byte("content of 2\n")).String()
	c.Environ = append(c.Environ, "BLOB="+filepath.Join(c.Store, "blobs", d[:2], d))
	_, out := c.must(t)
	wantText(t, out, "data: 1\ncontent of 0\n", "d0/f002: Input/output error")
	log, err := os.ReadFile(autoDir(c.open(t)) + ".log")
	if err != nil || !strings.Contains(string(log), d) {
		t.Errorf("the server's log does not name blob %s: %v: %s", d, err, log)
	}
}

// A file that must be checked when it is opened is not served without.
func TestReferencedInputIsNotMounted(t *testing.T) {
	c := mountedSmall(t, where+`cat {in.refs}/d0/f000; echo x > {out.model}`)
	refs := t.TempDir()
	for name, text := range smallFiles() {
		p := filepath.Join(refs, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("referenced "+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := c.open(t)
	added, err := s.AddPath(t.Context(), refs, cas.AddOptions{Reference: true})
	if err != nil {
		t.Fatal(err)
	}
	defer added.Release()
	if _, _, err := s.Publish(t.Context(), "refs", added.Tree, cas.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Stage.Inputs = append(c.Stage.Inputs, stages.Input{Name: "refs", Ref: "refs"})
	_, out := c.must(t)
	wantText(t, out, "data: 1\nrefs: 0\nreferenced content of 0\n")
}

// What a verification took away must not be read from the page cache by the
// next run.
func TestInputInQuarantineIsNotMounted(t *testing.T) {
	c := mountedSmall(t, where+`cat {in.many}/z/last; echo x > {out.model}`)
	c.serve(t, shortMount(t))
	c.Force = true
	// More than are looked for before the command starts.
	files := map[string]string{"z/last": "the last\n"}
	for i := range lookedFor + 10 {
		files[fmt.Sprintf("a/f%04d", i)] = "same\n"
	}
	c.addInput(t, "many", files)
	_, out := c.must(t)
	wantText(t, out, "many: 1\nthe last\n")
	d := cas.Sum([]byte("the last\n")).String()
	blob := filepath.Join(c.Store, "blobs", d[:2], d)
	if err := os.Chmod(blob, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob, []byte("the lost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if rep, err := c.open(t).Verify(t.Context(), cas.VerifyOptions{}); err != nil || len(rep.Bad) != 1 {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	_, out = c.must(t) // a shell that goes on
	wantText(t, out, "data: 1\n", "many: 0\n", "z/last: Input/output error")
}

func TestOpenMountedInputsCostNoDescriptors(t *testing.T) {
	c := mountedSmall(t, where+`/usr/bin/python3 -c 'import glob, sys; f = [open(p) for p in glob.glob(sys.argv[1] + "/*/*")]; print(len(f), len([g.read() for g in f])); print(len(__import__("os").listdir("/proc/%s/fd" % sys.argv[2])))' {in.data} $SERVER; echo x > {out.model}`)
	dir := shortMount(t)
	c.serve(t, dir)
	live, _, err := c.open(t).Mounts(t.Context())
	if err != nil || len(live) != 1 {
		t.Fatalf("mounts: %v, %v", live, err)
	}
	c.Environ = append(c.Environ, "SERVER="+strconv.Itoa(live[0].PID))
	_, out := c.must(t)
	_, after, ok := strings.Cut(out, "data: 1\n200 200\n")
	after, _, _ = strings.Cut(after, "\n")
	if n, err := strconv.Atoi(after); !ok || err != nil || n > 100 {
		t.Errorf("%d descriptors in the server with 200 open files: %s", n, out)
	}
}

// Where a process may not make a mount namespace all is as the mount shows it.
func TestInputsOfSmallFilesWithoutTheRightToMount(t *testing.T) {
	c := mountedSmall(t, where+`cat {in.data}/d0/f000; echo x > {out.model}`)
	dir := shortMount(t)
	c.serve(t, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", self, callArg, c.json(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantText(t, string(out), "data: 0\ncontent of 0\n")
}
