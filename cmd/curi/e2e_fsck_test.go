package main_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"strings"
	"testing"
)

// A badDisk is a btrfs on which single blocks cannot be read: their bytes were
// changed behind the filesystem's back, so that its checksums fail and the
// kernel answers EIO, as it does for a bad sector.
type badDisk struct {
	*site
	dir, image string
}

func newBadDisk(t *testing.T) *badDisk {
	t.Helper()
	s := newLab(t)
	dir := s.addDisk(diskBtrfs, 0)
	s.useStore(dir + "/store")
	return &badDisk{s, dir, dir + ".img"}
}

// turn changes the bytes of the disk where it holds a text, which must be
// there, to another text of the same length. Nothing of it may be in use.
func (b *badDisk) turn(from, to []byte) {
	b.t.Helper()
	b.eventually(nil, "the disk to be free", func() bool { return b.run("umount", b.dir).status == 0 })
	f, err := os.OpenFile(b.image, os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(to, b.find(f, from)); err != nil {
		b.t.Fatal(err)
	}
	b.ok("mount", "-o", "loop", b.image, b.dir)
}

// find returns where a file holds a text.
func (b *badDisk) find(f *os.File, text []byte) int64 {
	b.t.Helper()
	buf := make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(buf) - len(text)) {
		n, err := f.ReadAt(buf, off)
		if i := bytes.Index(buf[:n], text); i >= 0 {
			return off + int64(i)
		}
		if err != nil {
			b.t.Fatalf("the disk does not hold %q: %v", text, err)
		}
	}
}

// marked is random bytes with a text in the midst.
func marked(n int, text string) []byte {
	b := make([]byte, n)
	rand.Read(b)
	copy(b[n/2:], text)
	return b
}

// An outboard that cannot be read costs nothing but making it again.
func TestUnreadableOutboard(t *testing.T) {
	s := newBadDisk(t)
	s.write("data/large", string(marked(3_000_000, "x")))
	s.ok("curi", "add", "data", "--name", "data")
	outboard, err := os.ReadFile(s.seen(strings.TrimSpace(s.ok("find", s.store+"/outboards", "-type", "f"))))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(outboard[100:132])
	bad[0]++
	s.turn(outboard[100:132], bad)
	s.fails(122, "", "curi", "fsck")
	s.ok("curi", "fsck")
	s.ok("cmp", "data/large", s.path("data/large"))
	if left := s.ok("find", s.store+"/quarantine", "-type", "f"); left != "" {
		t.Errorf("in quarantine:\n%s", left)
	}
}

// In a store that can only be read what is bad is reported all the same.
func TestFsckReportsWithoutWriting(t *testing.T) {
	s := newLab(t)
	fs := s.addDisk(diskExt4, 32)
	s.useStore(fs + "/store")
	s.ok("curi", "add", "digits", "--name", "digits")
	blob := s.path("digits") + "/numbers.txt"
	s.ok("sh", "-c", `f=$(readlink -f "$1"); chmod u+w "$f"; echo other >"$f"`, "sh", blob)
	s.ok("mount", "-o", "remount,ro", fs)
	for range 2 {
		o := s.fails(122, "", "curi", "fsck")
		if !strings.Contains(o.stdout, "digits@1/numbers.txt") || !strings.Contains(o.stderr, "stays where it is") {
			t.Errorf("curi fsck: %s", o)
		}
	}
	s.ok("mount", "-o", "remount,rw", fs)
	s.fails(122, "quarantine", "curi", "fsck")
	s.ok("curi", "add", "digits", "--name", "digits")
	s.ok("curi", "fsck")
}

// The filesystem under a store gives up in the midst of an add and of a run:
// both end at once and say why, and what was published before is whole when
// the disk is back.
func TestFilesystemGivesUp(t *testing.T) {
	for _, kind := range []disk{diskExt4, diskXFS} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newLab(t)
			s.way = byCopy
			fs := s.addDisk(kind, 64)
			s.useStore(fs + "/store")
			s.ok("curi", "add", "digits", "--name", "digits")
			stage := []string{"--name", "train", "--in", "d=digits", "--out", "m=m", "--publish", "m=model", "--shell", "--",
				`cat {in.d}/numbers.txt > {out.m}; : > "$SIDE/began"; while ! test -e "$SIDE/go"; do sleep 0.05; done`}
			j := s.begin(s.execArgv(stage...)...)
			s.eventually(j, "the command to begin", func() bool { return s.run("test", "-e", s.side+"/began").status == 0 })
			s.ok("xfs_io", "-x", "-c", "shutdown -f", fs)
			s.touch("go")
			if o := s.finish(j); o.status != 123 || !strings.Contains(strings.ToLower(o.stderr), "input/output error") {
				t.Errorf("the run: %s", o)
			}
			o := s.run("curi", "add", "digits/sub", "--name", "other")
			if o.status != 123 || !strings.Contains(o.stderr, "input/output error") {
				t.Errorf("curi add: %s", o)
			}
			oneLine(t, o)
			s.eventually(nil, "the disk to be free", func() bool { return s.run("umount", fs).status == 0 })
			s.ok("mount", "-o", "loop", fs+".img", fs)
			s.ok("curi", "fsck")
			s.ok("sh", "-c", `test "$(curi cat digits/numbers.txt)" = "1 2 3 4"`)
			s.nothingPublished()
			r := s.stage(stage...)
			if r.Cached || s.read(r.Outputs["m"].Path) != "1 2 3 4\n" {
				t.Errorf("the next try: %+v", r)
			}
			s.ok("curi", "fsck")
		})
	}
}
