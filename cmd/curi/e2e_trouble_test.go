package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// oneLine checks that a failure of Curi's own was told in one line.
func oneLine(t *testing.T, o outcome) {
	t.Helper()
	if n := strings.Count(strings.TrimRight(o.stderr, "\n"), "\n"); n != 0 || !strings.HasPrefix(o.stderr, "curi: ") {
		t.Errorf("want one line that begins with curi:, got\n%s", o.stderr)
	}
}

// Without /dev/fuse a person is told of --no-mount, and with it the job works.
func TestWithoutFuse(t *testing.T) {
	s := newSite(t, byCopy)
	need(t, os.Getuid() == 0, "root, to hide /dev/fuse")
	hidden := func(argv ...string) []string {
		return append([]string{"unshare", "--mount", "sh", "-c", "set -e\n" + dropMounts + `
			mount -t tmpfs -o mode=755,dev none /mnt
			for f in null zero full random urandom tty; do touch /mnt/$f; mount --bind /dev/$f /mnt/$f; done
			ln -s /proc/self/fd /mnt/fd
			mount --rbind /mnt /dev
			exec "$@"`, "sh"}, argv...)
	}
	oneLine(t, s.fails(123, "/dev/fuse", hidden("curi", "mount", s.dir+"/mnt")...))
	exec := []string{"curi", "stage", "exec"}
	o := s.fails(123, "--no-mount", hidden(append(exec, recipe{}.argv()...)...)...)
	if strings.Contains(o.stderr, "begins") {
		t.Errorf("the command ran: %s", o)
	}
	s.ok(hidden(append(append(exec, "--no-mount"), recipe{}.argv()...)...)...)
	if text := s.ok(hidden("curi", "cat", "model")...); !strings.HasPrefix(text, "model of") {
		t.Errorf("the model is %q", text)
	}
}

// A mount point that is no place for a mount is refused, and left alone.
func TestMountPointInUse(t *testing.T) {
	s := newSite(t, byMount)
	s.write("full/precious", "precious\n")
	for _, dir := range []string{s.mount, "full", "digits/numbers.txt", s.store} {
		o := s.run("curi", "mount", dir)
		if o.status < 120 || o.status > 125 {
			t.Errorf("curi mount %s: %s", dir, o)
		}
		oneLine(t, o)
	}
	if text := s.read("full/precious"); text != "precious\n" {
		t.Error(text)
	}
	s.ok("cat", s.mount+"/artifacts/digits/numbers.txt")
}

// A full disk costs what was being done, and nothing else.
func TestFullDisk(t *testing.T) {
	for _, w := range []way{byMount, byCopy} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			need(t, os.Getuid() == 0, "root, to make a small file system")
			s := bareSite(t, byCopy)
			small := filepath.Join(filepath.Dir(s.dir), "small")
			if err := os.Mkdir(small, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "none", small).CombinedOutput(); err != nil {
				need(t, false, "to mount a tmpfs: "+string(out))
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", small).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			s.env = append(s.env, "CURI_STORE="+small+"/store")
			s.ok("curi", "store", "init", small+"/store")
			if s.way = w; w == byMount {
				s.mountStore()
			}
			s.write("digits/numbers.txt", "1 2 3 4\n")
			s.ok("curi", "add", "digits", "--name", "digits")
			s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=32", "status=none")
			oneLine(t, s.fails(123, "space", "curi", "add", "large", "--name", "large"))
			// Not known beforehand:
			oneLine(t, s.fails(123, "space", "sh", "-c", "cat large | curi add - --as large --name large"))
			o := s.run(s.execArgv("--name", "fill", "--out", "x=x", "--publish", "x=large", "--", "cp", s.dir+"/large", "{out.x}")...)
			if o.status == 0 || !strings.Contains(o.stderr, "No space left on device") {
				t.Errorf("a stage that fills the disk: %s", o)
			}
			s.fails(121, "large", "curi", "show", "large")
			if text := s.ok("curi", "cat", "digits/numbers.txt"); text != "1 2 3 4\n" {
				t.Error(text)
			}
			s.ok("curi", "fsck")
			// Once there is room again, so is everything else. What the failed run
			// wrote is kept for a while, unless told otherwise.
			s.write(".curi/config.yaml", "keep_work: 1ms\n")
			s.ok("curi", "gc")
			r := s.stage("--name", "small", "--in", "digits=digits", "--out", "x=x", "--", "cp", "{in.digits}/numbers.txt", "{out.x}")
			if text := s.read(r.Outputs["x"].Path); text != "1 2 3 4\n" {
				t.Error(text)
			}
		})
	}
}

// A store of somebody else is refused with its path.
func TestStoreOfSomebodyElse(t *testing.T) {
	s := newSite(t, byUser)
	private := filepath.Join(filepath.Dir(s.dir), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{
		{"curi", "--store", private, "ls"},
		{"curi", "--store", private + "/store", "add", "digits", "--name", "digits"},
		{"curi", "--store", "/proc/store", "add", "digits", "--name", "digits"},
	} {
		o := s.run(argv...)
		if o.status < 120 || o.status > 124 || !strings.Contains(o.stderr, argv[2]) {
			t.Errorf("%v: %s", argv, o)
		}
		oneLine(t, o)
	}
}

// The process that serves the mount dies under a running stage: the run fails,
// says why, and the next one is well again.
func TestMountDiesUnderARun(t *testing.T) {
	s := newSite(t, byMount)
	j := s.begin(s.execArgv("--name", "train", "--out", "model=model", "--publish", "model=model", "--",
		"sh", "-c", "echo weights > {out.model}; echo $$ > "+s.side+"/pid; while ! test -e "+s.side+"/go; do sleep 0.05; done")...)
	s.eventually(j, "the command to begin", func() bool { return len(s.lines("pid")) == 1 })
	if err := syscall.Kill(s.server(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.eventually(nil, "the mount to be dead", func() bool { return s.run("ls", s.mount).status != 0 })
	s.touch("go")
	o := s.finish(j)
	if o.status == 0 {
		t.Errorf("the run: %s", o)
	}
	s.nothingPublished()
	s.ok("curi", "umount", "--stale")
	s.ok("curi", "mount", s.mount)
	r := s.stage("--name", "train", "--out", "model=model", "--", "sh", "-c", "echo weights > {out.model}")
	if text := s.read(r.Outputs["model"].Path); text != "weights\n" {
		t.Error(text)
	}
}

// A server died, somebody unmounted by hand, and another server serves at the
// same place by now: its mount is not the stale one.
func TestStaleMountBelowALiveOne(t *testing.T) {
	s := newSite(t, byMount)
	if err := syscall.Kill(s.server(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.eventually(nil, "the mount to be dead", func() bool { return s.run("ls", s.mount).status != 0 })
	s.ok("umount", s.mount)
	// As from fstab: curi mount would have told of the dead one.
	j := s.begin("curifs", s.store, s.mount)
	s.eventually(j, "the mount to serve", func() bool { return s.run("test", "-d", s.mount+"/artifacts").status == 0 })
	s.ok("curi", "umount", "--stale")
	if text := s.ok("cat", s.mount+"/artifacts/digits/numbers.txt"); text != "1 2 3 4\n" {
		t.Error(text)
	}
	s.ok("curi", "umount", s.mount)
	if o := s.finish(j); o.status != 0 {
		t.Error(o)
	}
	s.ok("curi", "mount", s.mount)
}
