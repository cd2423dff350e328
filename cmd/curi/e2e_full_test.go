package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A filling makes the store's disk full to the last byte.
type filling struct {
	name  string
	disk  disk
	says  string // what every refusal names
	quota bool   // a limit of the store's subvolume, not of the disk
}

var fillings = []filling{
	{name: "ext4", disk: diskExt4, says: "no space left"},
	{name: "xfs", disk: diskXFS, says: "no space left"},
	{name: "tmpfs", disk: diskTmpfs, says: "no space left"},
	{name: "quota", disk: diskBtrfs, says: "disk quota exceeded", quota: true},
}

// newFillable makes a store on a small disk, with artifacts and a stage's
// result, and returns the directory of the disk that the store shares with
// others, and the stage.
func newFillable(t *testing.T, f filling) (s *site, shared string, stage []string) {
	t.Helper()
	s = newLab(t)
	shared = s.addDisk(f.disk, 48)
	if f.quota {
		s.ok("sh", "-c", `btrfs quota enable "$1" && btrfs subvolume create "$1/sub"`, "sh", shared)
		shared += "/sub"
	}
	s.useStore(shared + "/store")
	s.ok("dd", "if=/dev/urandom", "of=large", "bs=1M", "count=6", "status=none")
	s.ok("curi", "add", "digits", "--name", "digits")
	s.ok("curi", "add", "large", "--name", "large")
	s.ok("curi", "tag", "digits", "first")
	stage = []string{"--name", "count", "--in", "d=digits", "--out", "n=n.txt", "--shell", "--", "cat {in.d}/numbers.txt > {out.n}"}
	s.stage(stage...)
	return s, shared, stage
}

// fill takes all the space that is left, by files outside of the store.
func (s *site) fill(f filling, shared string) {
	s.t.Helper()
	if f.quota {
		s.ok("sh", "-c", `btrfs quota rescan -w "$1" >/dev/null; sync -f "$1"; btrfs qgroup limit 24M "$1"`, "sh", shared)
	}
	// First by the mebibyte, then by the block, then by the inode.
	s.run("sh", "-c", `cd "$1" && mkdir fill
		dd if=/dev/urandom of=fill/a bs=1M; sync -f .; dd if=/dev/urandom of=fill/b bs=4k; sync -f .
		dd if=/dev/urandom of=fill/c bs=4k; i=0; while echo x >fill/$i; do i=$((i + 1)); done; sync -f .`, "sh", shared)
	if o := s.run("sh", "-c", `head -c 4096 /dev/urandom >"$1/more"; s=$?; rm -f "$1/more"; exit $s`, "sh", shared); o.status == 0 {
		s.t.Fatalf("the disk is not full: %s", s.ok("df", "-k", shared))
	}
}

// On a full disk, or with a quota used up, a store can be read and mounted,
// what would write ends with one line that says why, names can be removed, and
// a collection makes room: then everything goes on.
func TestStoreOnFullDisk(t *testing.T) {
	for _, f := range fillings {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s, shared, stage := newFillable(t, f)
			s.fill(f, shared)
			s.ok("curi", "ls")
			s.ok("curi", "checkout", "digits", "copy")
			s.ok("cmp", "digits/numbers.txt", "copy/numbers.txt")
			s.ok("cmp", "large", s.path("large"))
			if status := s.ok("curi", "status"); !strings.Contains(status, " free on "+string(f.disk)) {
				t.Errorf("curi status: %s", status)
			}
			dir := s.mountLab()
			s.ok("cmp", "large", dir+"/artifacts/large/large")
			if r := s.stage(stage...); !r.Cached || s.read(r.Outputs["n"].Path) != "1 2 3 4\n" {
				t.Errorf("a hit: %+v", r)
			}
			s.ok("curi", "fsck")

			s.ok("dd", "if=/dev/urandom", "of=other", "bs=1M", "count=6", "status=none")
			for _, argv := range []string{
				"add other --name other", "tag digits second", "meta digits a=b",
				"stage exec --name miss --in d=digits --out o=o -- touch {out.o}",
				"stage exec --no-mount --name miss --in d=digits --out o=o -- touch {out.o}",
			} {
				o := s.run(append([]string{"curi"}, strings.Fields(argv)...)...)
				want := f.says
				if strings.HasPrefix(argv, "add") && !f.quota {
					want = "not enough space"
				}
				if o.status != 123 || !strings.Contains(o.stderr, want) {
					t.Errorf("curi %s: want %q, got %s", argv, want, o)
				}
				oneLine(t, o)
			}
			o := s.run("curi", "checkout", "large", shared+"/copy")
			if o.status != 123 || !strings.Contains(o.stderr, f.says) || strings.Contains(o.stderr, "curi gc") {
				t.Errorf("checkout to the full disk: %s", o)
			}
			if _, err := os.Stat(s.seen(shared + "/copy")); err == nil {
				t.Error("half a checkout stays")
			}

			s.ok("curi", "gc") // removes nothing yet, and can
			s.write(".curi/config.yaml", "keep: 1ms\nkeep_work: 1ms\n")
			if o := s.run("curi", "gc"); o.status != 0 || strings.Contains(o.stderr, "could not") || s.ok("ls", s.store+"/at") != "" {
				t.Errorf("curi gc of results and places that are old: %s", o)
			}
			s.ok("curi", "rm", "large")
			if out := s.ok("curi", "gc"); !strings.Contains(out, "6.0 MiB") {
				t.Errorf("curi gc: %s", out)
			}
			s.ok("curi", "tag", "digits", "second")
			s.ok("curi", "meta", "digits", "a=b")
			s.ok("curi", "checkout", "digits@second", shared+"/copy")
			r := s.stage("--name", "miss", "--in", "d=digits", "--out", "o=o", "--shell", "--", "cat {in.d}/link > {out.o}")
			if text := s.read(r.Outputs["o"].Path); text != "5 6\n" {
				t.Error(text)
			}
			s.ok("curi", "fsck")
			if left := s.ok("find", s.store+"/staging", s.store+"/pins", "-type", "f"); left != "" {
				t.Errorf("left over:\n%s", left)
			}
			// The next time that the disk is full.
			s.ok("rm", "-rf", shared+"/copy")
			s.ok("curi", "gc")
			s.ok("test", "-e", s.store+"/index/spare")
		})
	}
}

// A run that finds the disk full only when its outputs are to be stored fails,
// publishes nothing and keeps what it wrote; with room again its next try has it.
func TestDiskFullWhenSealing(t *testing.T) {
	for _, f := range fillings {
		for _, way := range []way{byMount, byCopy} {
			t.Run(f.name+"/"+string(way), func(t *testing.T) {
				t.Parallel()
				s, shared, _ := newFillable(t, f)
				s.way = way
				stage := []string{"--name", "train", "--out", "m=m", "--out", "big=big/", "--work", "w", "--publish", "m=model", "--shell", "--",
					`echo "$CURI_ATTEMPT" >> {work.w}/tries; echo weights > {out.m}; head -c 2M /dev/urandom > {out.big}/x
					test $CURI_ATTEMPT != 1 || while ! test -e "$SIDE/full"; do sleep 0.05; done`}
				j := s.begin(s.execArgv(stage...)...)
				s.eventually(j, "the command to write", func() bool {
					found, _ := filepath.Glob(s.seen(s.store + "/at/*/out/big/x"))
					if len(found) != 1 {
						return false
					}
					fi, err := os.Stat(found[0])
					return err == nil && fi.Size() == 2<<20
				})
				s.fill(f, shared)
				s.touch("full")
				o := s.finish(j)
				if o.status != 123 || !strings.Contains(o.stderr, f.says) || !strings.Contains(o.stderr, "work directory w, kept") {
					t.Errorf("the run: %s", o)
				}
				s.nothingPublished()
				s.wantStatus("failed")
				s.ok("curi", "fsck")
				s.ok("rm", "-rf", shared+"/fill")
				r := s.stage(stage...)
				if r.Cached || s.read(r.Outputs["m"].Path) != "weights\n" || s.read(s.path("train@last.work/w")+"/tries") != "1\n2\n" {
					t.Errorf("the next try: %+v", r)
				}
				s.ok("curi", "fsck")
			})
		}
	}
}
