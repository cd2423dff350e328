package main_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// A program that reads what the disk cannot give gets EIO, never less or other
// bytes as if that were all, however the mount serves them.
func TestUnreadableBlocks(t *testing.T) {
	s := newBadDisk(t)
	// One is read through the server, the other by the kernel directly where it can.
	sizes := map[string]int{"small": 60_000, "large": 3_000_000}
	content := map[string][]byte{}
	for name, n := range sizes {
		content[name] = marked(n, "MARK OF "+name+" .")
		s.write("data/"+name, string(content[name]))
	}
	s.write("data/good", "good\n")
	s.ok("curi", "add", "data", "--name", "data")
	digests := map[string]string{}
	for name := range sizes {
		digests[name], _, _ = strings.Cut(s.ok("b3sum", "data/"+name), " ")
		s.turn([]byte("MARK OF "+name+" ."), []byte("dead of "+name+" ."))
	}

	check := func(t *testing.T, s *site, dir string, log string) {
		t.Helper()
		for name := range sizes {
			path := dir + "/artifacts/data/" + name
			for range 2 {
				o := s.run("cat", path)
				if o.status == 0 || !strings.Contains(o.stderr, "Input/output error") || !bytes.HasPrefix(content[name], []byte(o.stdout)) {
					t.Errorf("cat %s: status %d, %d bytes, %s", name, o.status, len(o.stdout), o.stderr)
				}
			}
			o := s.run("python3", "-c", "import mmap, sys; f = open(sys.argv[1]); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sys.stdout.buffer.write(m[:])", path)
			if o.status != 128+7 {
				t.Errorf("reading %s by mmap wants SIGBUS: status %d, %d bytes, %s", name, o.status, len(o.stdout), o.stderr)
			}
			if text := s.ok("sh", "-c", "head -c 1000 "+path+" | b3sum"); text != s.ok("sh", "-c", "head -c 1000 data/"+name+" | b3sum") {
				t.Errorf("the readable part of %s differs", name)
			}
			said, err := os.ReadFile(log)
			if through := name == "small" || !strings.Contains(s.ok("curi", "status"), "passthrough on"); through && !strings.Contains(string(said), digests[name]) {
				t.Errorf("the server's log does not name %s (%v):\n%s", digests[name], err, said)
			}
		}
		if text := s.ok("cat", dir+"/artifacts/data/good"); text != "good\n" {
			t.Error(text)
		}
	}
	dir := s.mountLab()
	id := decode[struct{ ID string }](s.site, s.ok("curi", "status", "--json")).ID[:8]
	check(t, s.site, dir, "/tmp/curi-0/logs/"+id+strings.ReplaceAll(dir, "/", "-")+".log")
	s.stageFails(1, "Input/output error", "--name", "use", "--in", "d=data", "--out", "o=o", "--", "dd", "if={in.d}/small", "of={out.o}")
	s.fails(121, "use", "curi", "show", "use.o")
	s.ok("curi", "umount", dir)
	for name := range sizes {
		o := s.fails(123, "input/output error", "curi", "cat", "data/"+name)
		if !bytes.HasPrefix(content[name], []byte(o.stdout)) {
			t.Errorf("curi cat %s gave other bytes", name)
		}
	}
	oneLine(t, s.fails(123, "input/output error", "curi", "checkout", "data", "copy"))
	s.fails(1, "", "test", "-e", "copy")

	// The same without root, and so without passthrough.
	s.give(theNobody, s.in("mnt"))
	other := s.as(theNobody)
	log := s.in("side/log")
	j := other.begin("sh", "-c", `exec curi mount "$0" --foreground`, dir)
	s.eventually(j, "the mount", func() bool { return other.run("test", "-d", dir+"/artifacts").status == 0 })
	for name := range sizes {
		other.run("cat", dir+"/artifacts/data/"+name)
	}
	s.eventually(j, "the server to tell", func() bool { return strings.Count(j.stderr.String(), "cannot read a file") > 1 })
	if err := os.WriteFile(log, []byte(j.stderr.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, other, dir, log)
	other.ok("fusermount3", "-u", dir)
	s.finish(j)

	// Nothing is thrown away for that: once the disk gives the bytes again, all is well.
	type report struct {
		Bad []struct {
			Digest, Reason string
			UsedBy         []string `json:"used_by"`
		}
	}
	for range 2 {
		o := s.run("curi", "fsck", "--json")
		r := decode[report](s.site, o.stdout)
		if o.status != 122 || len(r.Bad) != 2 {
			t.Errorf("curi fsck: %s", o)
		}
		for _, b := range r.Bad {
			if !strings.Contains(b.Reason, "input/output error") || len(b.UsedBy) != 1 || !strings.HasPrefix(b.UsedBy[0], "data@1/") {
				t.Errorf("curi fsck: %+v", b)
			}
		}
	}
	for name := range sizes {
		s.turn([]byte("dead of "+name+" ."), []byte("MARK OF "+name+" ."))
	}
	s.ok("curi", "fsck")
	s.ok("curi", "checkout", "data", "copy")
	s.ok("diff", "-r", "data", "copy")
}
