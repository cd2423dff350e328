package main_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// newReadOnly makes a store with artifacts and a stage's result that can only
// be read any more, because of how it is mounted or whose it is. stage is the
// command line of that stage.
func newReadOnly(t *testing.T, mounted bool) (s *site, stage []string) {
	t.Helper()
	s = newLab(t)
	fs := s.addDisk(diskExt4, 64)
	s.useStore(fs + "/store")
	s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=3", "status=none")
	s.ok("curi", "add", "digits", "--name", "digits")
	s.ok("curi", "add", "large", "--name", "large")
	s.write("digits/new.txt", "7\n")
	s.ok("curi", "add", "digits", "--name", "digits")
	// What only a remote has.
	other := []string{"curi", "--store", s.in("other")}
	s.write("far/numbers.txt", "8 9\n")
	s.write("far/sub/more.txt", "10\n")
	s.ok(append(other, "add", "far", "--name", "far")...)
	s.ok("dd", "if=/dev/urandom", "of=larger", "bs=1M", "count=3", "status=none")
	s.ok(append(other, "add", "larger", "--name", "larger")...)
	s.ok(append(other, "remote", "add", "team", "file://"+s.in("bucket"))...)
	s.ok(append(other, "push", "far", "larger")...)
	s.ok("curi", "remote", "add", "team", "file://"+s.in("bucket"), "--policy", "read-only")
	s.ok("curi", "pull")
	stage = []string{"--name", "count", "--in", "d=digits", "--out", "n=n.txt", "--out", "copy=copy/", "--work", "w", "--shell", "--",
		"cat {in.d}/numbers.txt > {out.n}; cp -r {in.d}/. {out.copy}; echo c > {work.w}/c"}
	s.stage(stage...)
	// Views that are there already would hide what is to be seen.
	s.ok("sh", "-c", `cd "$CURI_STORE"; chmod -R u+w views; rm -r views/*`)
	s.eventually(nil, "the run's own mount to sign off", func() bool {
		return s.ok("find", s.store+"/mounts", "-type", "f") == ""
	})
	if mounted {
		s.eventually(nil, "the run's own mount to leave", func() bool { return s.run("mount", "-o", "remount,ro", fs).status == 0 })
		return s, stage
	}
	s.give(theNobody, s.dir, s.in("home"), s.in("mnt"))
	return s.as(theNobody), stage
}

// In a store that can only be read, whatever only reads works, and all else
// ends with one line and leaves every file as it was.
func TestReadOnlyStore(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		t.Run(fmt.Sprintf("mounted=%t", mounted), func(t *testing.T) {
			t.Parallel()
			s, stage := newReadOnly(t, mounted)
			before := s.ok("sh", "-c", `find "$CURI_STORE" -type f -exec b3sum {} + | sort`)
			s.readsAll(t)
			s.refusesWrites(t)
			s.hitsFromReadOnly(t, stage)
			if after := s.ok("sh", "-c", `find "$CURI_STORE" -type f -exec b3sum {} + | sort`); after != before {
				t.Errorf("the store changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// readsAll tries every command that only reads.
func (s *site) readsAll(t *testing.T) {
	t.Helper()
	for _, c := range []struct{ argv, says string }{
		{"ls", "digits"}, {"ls --versions digits", "digits@1"}, {"show digits", "numbers.txt"}, {"show count.n", "count"},
		{"cat digits/numbers.txt", "1 2 3 4"}, {"ls team/", "team/larger"}, {"show team/far", "0 B of it here"}, {"cat team/far/numbers.txt", "8 9"}, {"diff digits@1 digits", "new.txt"}, {"du --runs --work", "digits"},
		{"log", "count"}, {"log count@last", "succeeded"}, {"lineage count.n", "digits@2"}, {"status", "ext4"},
		{"fsck", "none bad"}, {"fsck --sample 10%", "none bad"}, {"gc --dry-run", "would remove"}, {"meta digits", ""}, {"config", "store"},
	} {
		o := s.run(append([]string{"curi"}, strings.Fields(c.argv)...)...)
		if o.status != 0 || !strings.Contains(o.stdout+o.stderr, c.says) {
			t.Errorf("curi %s: %s", c.argv, o)
		}
	}
	s.ok("curi", "checkout", "digits", "copy")
	if text := s.ok("cat", "copy/link", "copy/numbers.txt"); text != "5 6\n1 2 3 4\n" {
		t.Errorf("checked out: %q", text)
	}
	if p := s.path("digits/numbers.txt"); s.read(p) != "1 2 3 4\n" {
		t.Errorf("curi path digits/numbers.txt: %s", p)
	}
	s.ok("cmp", "large", s.path("large"))
	s.ok("sh", "-c", "curi cat team/larger | cmp - larger")
	oneLine(t, s.fails(123, "a mount", "curi", "path", "digits"))

	dir := s.mountLab()
	if text := s.ok("cat", dir+"/artifacts/digits/link"); text != "5 6\n" {
		t.Errorf("in the mount: %q", text)
	}
	s.ok("cmp", "large", dir+"/artifacts/large/large")
	s.ok("cmp", "larger", dir+"/remotes/team/larger/larger")
	if status := s.ok("curi", "status"); !strings.Contains(status, dir) {
		t.Errorf("curi status does not know the mount:\n%s", status)
	}
	if p := s.path("digits"); !strings.HasPrefix(p, dir+"/") || s.read(p+"/numbers.txt") != "1 2 3 4\n" {
		t.Errorf("curi path digits: %s", p)
	}
	s.ok("curi", "umount", dir)
	if status := s.ok("curi", "status"); strings.Contains(status, dir) {
		t.Errorf("curi status still knows the mount:\n%s", status)
	}
	if logs, err := filepath.Glob("/tmp/curi-*/logs/*" + strings.ReplaceAll(dir, "/", "-") + ".log"); err != nil || len(logs) != 0 {
		t.Errorf("the log of a server that had nothing to say stays: %v, %v", logs, err)
	}
}

// refusesWrites tries every command that writes.
func (s *site) refusesWrites(t *testing.T) {
	t.Helper()
	for _, argv := range []string{
		"add digits --name other", "add large --name large", "add large --name l --reference", "add copy --name c --move", "tag digits x",
		"meta digits a=b", "rm digits", "rm count@last", "gc", "shell count -- true",
		"pull", "checkout team/larger there", "checkout team/far/sub there", "path team/larger",
		"stage exec --name miss --in d=digits --out o=o -- touch {out.o}",
		"stage exec --no-mount --name miss --in d=digits --out o=o -- touch {out.o}",
	} {
		o := s.run(append([]string{"curi"}, strings.Fields(argv)...)...)
		if o.status != 123 || !strings.Contains(o.stderr, "read-only file system") && !strings.Contains(o.stderr, "permission denied") {
			t.Errorf("curi %s: %s", argv, o)
		}
		oneLine(t, o)
		if strings.HasPrefix(argv, "stage") && !strings.Contains(o.stderr, "would run") {
			t.Errorf("a miss does not say why it is none: %s", o)
		}
	}
	s.ok("cmp", "digits/numbers.txt", "copy/numbers.txt") // --move took nothing
}

// hitsFromReadOnly takes the stage's result: files at once, a directory through
// a mount.
func (s *site) hitsFromReadOnly(t *testing.T, stage []string) {
	t.Helper()
	oneLine(t, s.stageFails(123, "a mount", stage...))
	dir := s.mountLab()
	r := s.stage(stage...)
	if !r.Cached || s.read(r.Outputs["n"].Path) != "1 2 3 4\n" || s.read(r.Outputs["copy"].Path+"/link") != "5 6\n" {
		t.Errorf("a hit from the mount at %s: %+v", dir, r)
	}
	o := s.run(s.execArgv(stage...)...)
	if o.status != 0 || strings.Count(o.stderr, "\n") != 1 {
		t.Errorf("a hit is to say one line: %s", o)
	}
	s.ok("curi", "umount", dir)
}
