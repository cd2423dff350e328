package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// The whole life of a store is the same on every filesystem; where copies can
// share their bytes they do.
func TestStoreOnEveryFilesystem(t *testing.T) {
	for _, kind := range []disk{diskExt4, diskXFS, diskBtrfs, diskTmpfs, diskOverlay, diskNested} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			s := newLab(t)
			fs := s.addDisk(kind, 256)
			o := s.run("curi", "store", "init", fs+"/store")
			if says := strings.Contains(o.stderr, "no reflinks"); o.status != 0 || says == kind.reflinks() {
				t.Errorf("curi store init: %s", o)
			}
			// What serves reads is tried at each mount, and said there.
			if strings.Contains(o.stderr, "more slowly") {
				t.Errorf("curi store init knows more than it can: %s", o)
			}
			s.store = fs + "/store"
			s.env = append(s.env, "CURI_STORE="+s.store)
			s.ok("dd", "if=/dev/urandom", "of="+fs+"/large", "bs=1M", "count=16", "status=none")
			s.write("single.txt", "single\n")
			s.ok("curi", "add", "digits", "--name", "digits")
			s.ok("curi", "add", "single.txt", "--name", "single", "--meta", "kind=text")

			// 16 MiB in the store, in a checkout and as a stage's input take 16
			// MiB, or as many times as there are copies.
			before := s.usedBlocks(fs)
			copies := 0
			share := func(what string) {
				t.Helper()
				if !kind.reflinks() {
					copies++
				}
				const slack = 4 << 10 // KiB, of metadata
				if used := s.usedBlocks(fs) - before; used < copies*16<<10 || used > copies*16<<10+slack {
					t.Errorf("%s: %d KiB more than before are in use, want %d MiB", what, used, copies*16)
				}
			}
			s.ok("curi", "add", fs+"/large", "--name", "large")
			share("curi add")
			s.ok("curi", "checkout", "large", fs+"/copy")
			share("curi checkout")
			s.ok("cmp", fs+"/large", fs+"/copy/large")
			plain := *s
			plain.way = byCopy
			plain.stage("--name", "plain", "--in", "d=large", "--out", "o=o", "--shell", "--",
				"sync -f "+fs+"; df --output=used -k "+fs+" | tail -n 1 > {out.o}; cmp {in.d} "+fs+"/large")
			inRun := 0
			if _, err := fmt.Sscan(s.ok("curi", "cat", "plain.o"), &inRun); err != nil {
				t.Fatal(err)
			}
			if limit := 4 << 10; kind.reflinks() && inRun-before > limit || !kind.reflinks() && inRun-before < (copies+1)*16<<10 {
				t.Errorf("--no-mount: %d KiB more than before are in use while it runs", inRun-before)
			}

			s.lifeOn(t, kind)
		})
	}
}

// lifeOn goes through what people do with a store.
func (s *site) lifeOn(t *testing.T, kind disk) {
	t.Helper()
	stage := func(name string) result {
		t.Helper()
		// An attribute, a link, a file that is renamed over an open one, a lock.
		return s.stage("--name", name, "--in", "d=digits", "--in", "large=large", "--out", "m=m", "--out", "all=all/", "--work", "w", "--publish", "m="+name, "--shell", "--",
			`cat {in.d}/link > {out.m}.tmp && mv {out.m}.tmp {out.m} && setfattr -n user.curi.type -v T {out.m} &&
			cp {in.large} {out.all}/large && ln {out.all}/large {out.all}/linked && flock {work.w} true && echo c > {work.w}/c`)
	}
	r := stage("own") // in a mount of its own
	if again := stage("own"); again.Cached != true || again.Outputs["m"].Digest != r.Outputs["m"].Digest {
		t.Errorf("the second call: %+v", again)
	}
	if meta := s.ok("curi", "meta", "own"); strings.TrimSpace(meta) != "type=T" {
		t.Errorf("metadata set by the program: %q", meta)
	}
	s.ok("cmp", s.path("large"), s.path("own@last.all/linked"))
	if p := s.path("digits"); s.read(p+"/link") != "5 6\n" {
		t.Errorf("the view %s", p)
	}

	dir := s.mountLab()
	wantPassthrough := "passthrough on"
	if kind == diskNested {
		wantPassthrough = "passthrough off: the store's filesystem is stacked too deep"
	}
	if status := s.ok("curi", "status"); !strings.Contains(status, wantPassthrough) || !strings.Contains(status, " free on "+kind.statusName()) {
		t.Errorf("curi status: %s", status)
	}
	stage("mounted")
	s.ok("cmp", s.path("large"), dir+"/artifacts/large/large")
	if o := s.run("sh", "-c", "echo x > "+dir+"/artifacts/digits/numbers.txt"); o.status == 0 {
		t.Error("an artifact could be written to")
	}
	s.ok("curi", "rm", "digits@1")
	s.ok("curi", "add", "digits", "--name", "digits")
	s.ok("curi", "gc")
	s.ok("curi", "fsck")
	s.ok("cmp", s.path("own@last.all/large"), dir+"/runs/"+r.Run+"/in/large/large")
	s.ok("curi", "umount", dir)
	if text := s.ok("sh", "-c", `cat "$(curi path digits)/numbers.txt"`); text != "1 2 3 4\n" {
		t.Error(text)
	}
}
