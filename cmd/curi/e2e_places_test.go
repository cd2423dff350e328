package main_test

import (
	"os"
	"strings"
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
	s.fails(124, "another filesystem", argv("--places", "/dev", "--force")...)
	s.ok("find", places, s.store+"/at/", "-exec", "touch", "-h", "-d", "30 days ago", "{}", "+")
	s.ok("curi", "gc")
	if left := s.ok("find", places, "-mindepth", "1"); left != "" {
		t.Errorf("left after a collection: %s", left)
	}
	s.ok("curi", "fsck")
}
