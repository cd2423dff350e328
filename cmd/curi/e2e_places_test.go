package main_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// With --places the places lie where they are wanted, from try to try, and go
// with the rest when they are old; a job of several nodes wants that.
func TestPlaces(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	places, err := os.MkdirTemp("/tmp", "curi-p-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(places) })
	argv := func(options ...string) []string {
		argv := append([]string{"curi", "stage", "exec", "--json", "--name", "train", "--in", "d=digits", "--out", "model=model", "--work", "w"}, options...)
		return append(argv, "--", "sh", "-c", `echo {root} >> $SIDE/roots; test -e $SIDE/go || { echo c > {work.w}/c; exit 3; }; cat {in.d}/numbers.txt {work.w}/c > {out.model}`)
	}
	s.fails(3, "", argv("--places", places)...)
	s.fails(3, "", argv("--no-mount")...)
	s.touch("go")
	r := decode[result](s, s.ok(argv("--places", places)...))
	if s.read(r.Outputs["model"].Path) != "1 2 3 4\nc\n" {
		t.Error("the work directory did not come along")
	}
	roots := s.lines("roots")
	if len(roots) != 3 || roots[0] != roots[2] || !strings.HasPrefix(roots[0], places+"/") || strings.HasPrefix(roots[1], places) {
		t.Errorf("the places were at %v", roots)
	}
	if text := s.ok("curi", "cat", r.Run+".work/w/c"); text != "c\n" {
		t.Errorf("the work directory holds %q", text)
	}
	s.fails(124, "make it, on a filesystem", argv("--places", places+"/none", "--force")...)
	s.fails(124, "longer than the 60 bytes", argv("--places", s.dir, "--force")...)
	s.ok("find", places, s.store+"/at/", "-exec", "touch", "-h", "-d", "30 days ago", "{}", "+")
	s.ok("curi", "gc")
	if left := s.ok("find", places, "-mindepth", "1"); left != "" {
		t.Errorf("left after a collection: %s", left)
	}
	s.ok("curi", "fsck")
}

// The places may lie on another filesystem than the store: work directories
// move there and back, outputs are copied into the store, and the result is the
// same. What that filesystem lacks is said, and nothing half done stays.
func TestPlacesOnAnotherFilesystem(t *testing.T) {
	t.Parallel()
	s := newLab(t)
	places := s.addDisk(diskTmpfs, 8)
	s.useStore(s.in("st"))
	s.ok("curi", "add", "digits", "--name", "digits")
	script := `echo {root} >> $SIDE/roots; test -e $SIDE/go || { echo c >> {work.w}/c; exit 3; }
		test ! -e $SIDE/hang || { echo part > {out.model}; touch $SIDE/hangs; exec sleep 600; }
		cat {in.d}/numbers.txt {work.w}/c > {out.model}; mkdir {out.dir}/sub; ln {out.model} {out.dir}/sub/linked`
	argv := func(options ...string) []string {
		argv := append([]string{"curi", "stage", "exec", "--json", "--name", "train", "--in", "d=digits", "--out", "model=model", "--out", "dir=dir/", "--work", "w"}, options...)
		return append(argv, "--", "sh", "-c", script)
	}
	there := argv("--places", places)
	s.fails(3, "", there...)
	s.fails(3, "", argv("--no-mount")...)
	s.fails(3, "", there...)
	s.touch("go")
	// Killed in the midst of it, curi leaves nothing that hinders the next try.
	s.touch("hang")
	j := s.begin(there...)
	s.eventually(j, "the command to hang", func() bool { return s.run("test", "-e", s.side+"/hangs").status == 0 })
	if err := syscall.Kill(curiOf(t, j), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = j.Wait()
	s.ok("rm", s.side+"/hang")
	r := decode[result](s, s.ok(there...))
	const want = "1 2 3 4\nc\nc\nc\n"
	model := s.ok("cat", r.Outputs["model"].Path)
	if linked := s.ok("cat", r.Outputs["dir"].Path+"/sub/linked"); model != want || linked != want {
		t.Errorf("the outputs are %q and %q", model, linked)
	}
	roots := s.lines("roots")
	if len(roots) != 5 || !strings.HasPrefix(roots[0], places+"/") || strings.HasPrefix(roots[1], places) || roots[2] != roots[0] || roots[4] != roots[0] {
		t.Errorf("the places were at %v", roots)
	}
	if left := s.ok("find", places, "-name", "old", "-prune", "-o", "(", "-name", "*.new", "-o", "-path", places+"/*/out/?*", "-o", "-path", places+"/*/tmp/?*", ")", "-print"); left != "" {
		t.Errorf("left in the places: %s", left)
	}
	if text := s.ok("curi", "cat", r.Run+".work/w/c"); text != "c\nc\nc\n" {
		t.Errorf("the work directory holds %q", text)
	}
	if again := decode[result](s, s.ok(argv("--no-mount")...)); !again.Cached || again.Outputs["model"] != r.Outputs["model"] {
		t.Errorf("without --places: %+v", again)
	}
	// A directory that is not to be written, and one whose disk is full.
	s.ok("mount", "-o", "remount,ro", places)
	s.fails(124, "--places "+places+" cannot be written (read-only file system)", argv("--places", places, "--force")...)
	s.ok("mount", "-o", "remount,rw", places)
	s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=9", "status=none")
	s.ok("curi", "add", "large", "--name", "large")
	o := s.fails(123, "no space left", argv("--places", places, "--in", "l=large")...)
	if !strings.Contains(o.stderr, "input l: check out to "+places) {
		t.Errorf("it does not say where: %s", o)
	}
	big := []string{"curi", "stage", "exec", "--json", "--name", "big", "--work", "w", "--out", "o=o"}
	tail := []string{"--", "sh", "-c", "test -e {work.w}/x || { dd if=/dev/zero of={work.w}/x bs=1M count=9 status=none; exit 4; }; wc -c < {work.w}/x > {out.o}"}
	s.fails(4, "", append(append(big, "--no-mount"), tail...)...)
	s.fails(123, "move the places of stage big to "+places, append(append(big, "--places", places), tail...)...)
	if left := s.ok("find", places, "-size", "+1000k"); left != "" {
		t.Errorf("left on the full disk: %s", left)
	}
	r = decode[result](s, s.ok(append(append(big, "--no-mount"), tail...)...))
	if text := s.ok("cat", r.Outputs["o"].Path); text != "9437184\n" {
		t.Errorf("the work directory did not stay: %q", text)
	}
	// A filesystem that is not there keeps the work directories that it has.
	s.fails(3, "", append(append([]string{"curi", "stage", "exec", "--name", "far", "--work", "w", "--out", "o=o"}, "--places", places), "--", "sh", "-c", "echo c > {work.w}/c; exit 3")...)
	s.ok("sh", "-c", `mv "$0" "$0.away" 2>/dev/null || { mkdir "$0.away" && mount --move "$0" "$0.away" && rmdir "$0"; }`, places)
	s.fails(124, "mount it, or begin with empty ones (--fresh)", "curi", "stage", "exec", "--name", "far", "--work", "w", "--out", "o=o", "--no-mount", "--", "sh", "-c", "echo c > {work.w}/c; exit 3")
	s.ok("sh", "-c", `mkdir "$0" && mount --move "$0.away" "$0"`, places)
	s.ok("find", places, s.store+"/at/", "-exec", "touch", "-h", "-d", "30 days ago", "{}", "+")
	s.ok("curi", "gc")
	if left := s.ok("find", places, "-mindepth", "1"); left != "" {
		t.Errorf("left after a collection: %s", left)
	}
	s.ok("curi", "fsck")
}

// The places of a job may lie on another filesystem than the store, which all of
// its nodes see: what it writes is seen as it comes, its work directories are
// found by the next job, in the store's own place too. A job of several nodes is
// refused without, and so is one that would become that.
func TestSlurmPlaces(t *testing.T) {
	s := slurmSite(t, byCopy)
	places, err := os.MkdirTemp("/dev/shm", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(places) })
	s.fails(124, "--places DIR puts them where all do", s.batchArgv("true", "--slurm", "nodes=2")...)
	s.fails(124, "it has to fit on one node", s.batchArgv("true", "--slurm", "partition=wide", "--slurm", "ntasks=40")...)
	argv := s.batchArgv(`echo "begun in {root}"; test -e $SIDE/go || { echo c > {work.w}/c; exit 3; }
		srun --nodes=2 --ntasks=2 sh -c 'cp {work.w}/c {out.dir}/$SLURMD_NODENAME'; cp {work.w}/c {out.model}`, "--work", "w", "--out", "dir=dir/")
	s.fails(3, "", argv...)
	there := slices.Insert(slices.Clone(argv), 3, "--places", places, "--slurm", "partition=wide", "--slurm", "nodes=2")
	o := s.fails(3, "(try 2, with the work directories of the last)", there...)
	if !strings.Contains(o.stderr, "\nbegun in "+places+"/") {
		t.Errorf("the output did not come through: %s", o)
	}
	s.touch("go")
	r := decode[result](s, s.ok(there...))
	if text := s.ok("sh", "-c", `cd "$0" && grep . *`, r.Outputs["dir"].Path); text != "n1:c\nn2:c\n" {
		t.Errorf("the nodes wrote %q", text)
	}
	s.fails(124, "is no directory", slices.Insert(slices.Clone(argv), 3, "--force", "--places", places+"/none")...)
}
