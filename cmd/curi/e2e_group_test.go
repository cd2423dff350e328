package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// A group is a lab whose store two users share, each with a project of the
// same name. A third is no member.
type group struct {
	*site
	ann, bob, carl user
	sites          map[user]*site
}

// groups counts the groups. What users have outside of their lab, below /tmp,
// goes by the user's number: each group of each run of the tests has its own.
var groups atomic.Int32

// newGroup makes the users, who exist in the lab alone, and the store.
func newGroup(t *testing.T) *group {
	t.Helper()
	first := 100_000 + os.Getpid()%10_000*100 + 10*int(groups.Add(1))
	gid := strconv.Itoa(first)
	g := &group{
		site: newLab(t), sites: map[user]*site{},
		ann: user{name: "ann", id: first + 1, groups: gid}, bob: user{name: "bob", id: first + 2, groups: gid}, carl: user{name: "carl", id: first + 3},
	}
	var passwd, members strings.Builder
	for _, u := range []user{g.ann, g.bob, g.carl} {
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/bin/sh\n", u.name, u.id, u.id, g.in("home/"+u.name))
		fmt.Fprintf(&members, "%s:x:%d:\n", u.name, u.id)
		t.Cleanup(func() { _ = os.RemoveAll(fmt.Sprintf("/tmp/curi-%d", u.id)) })
	}
	fmt.Fprintf(&members, "lab:x:%s:ann,bob\n", gid)
	for file, more := range map[string]string{"/etc/passwd": passwd.String(), "/etc/group": members.String()} {
		g.ok("sh", "-c", `cp "$1" "$2" && printf %s "$3" >>"$2" && mount --bind "$2" "$1"`, "sh", file, g.side+file[4:], more)
	}
	g.ok("sh", "-c", `chmod 777 "$SIDE"; mkdir "$1"; chown ann:ann "$1"`, "sh", g.in("shared"))
	g.store = g.in("shared/store")
	g.env = append(g.env, "CURI_STORE="+g.store)
	g.of(g.ann).strictOK("curi", "store", "init", g.store, "--group", "lab")
	return g
}

// of is the lab as one of its users sees it.
func (g *group) of(u user) *site {
	if c := g.sites[u]; c != nil {
		return c
	}
	home := g.in("home/" + u.name)
	g.ok("cp", "-r", g.dir, home)
	g.give(u, home)
	c := g.as(u)
	c.dir = home
	c.env = append(c.env, "HOME="+home)
	g.sites[u] = c
	return c
}

// killAll kills every process of a user in the lab.
func (g *group) killAll(u user) {
	g.t.Helper()
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", g.space.pid))
	if err != nil {
		g.t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, dir := range dirs {
		fi, err := os.Stat(dir)
		if ns, nerr := os.Readlink(dir + "/ns/mnt"); err != nil || nerr != nil || ns != own || int(fi.Sys().(*syscall.Stat_t).Uid) != u.id {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// strict runs a command with umask 077.
func (s *site) strict(argv ...string) outcome {
	s.t.Helper()
	return s.run(strictly(argv)...)
}

func strictly(argv []string) []string {
	return append([]string{"sh", "-c", `umask 077; exec "$@"`, "sh"}, argv...)
}

// strictOK is strict for what must succeed.
func (s *site) strictOK(argv ...string) string {
	s.t.Helper()
	o := s.strict(argv...)
	if o.status != 0 {
		s.t.Fatalf("%s: %s: %s", s.who.name, strings.Join(argv, " "), o)
	}
	return o.stdout
}

// strictStage runs a stage that must succeed.
func (s *site) strictStage(args ...string) result {
	s.t.Helper()
	return decode[result](s, s.strictOK(s.execArgv(args...)...))
}

// Two members of a group, and root beside them, use one store as if it were
// each one's own; whoever is no member cannot look in.
func TestGroupSharesAStore(t *testing.T) {
	t.Parallel()
	s := newGroup(t)
	a, b := s.of(s.ann), s.of(s.bob)
	a.write("large", strings.Repeat("of ann\n", 300_000))
	s.give(s.ann, a.dir+"/large")
	a.strictOK("curi", "add", "large", "--name", "large")
	b.strictOK("curi", "add", "digits", "--name", "digits")
	if o := s.of(s.carl).strict("curi", "ls"); o.status != 123 || !strings.Contains(o.stderr, "permission denied") {
		t.Errorf("who is no member: %s", o)
	}
	if text := a.strictOK("curi", "cat", "digits/sub/more.txt"); text != "5 6\n" {
		t.Error(text)
	}
	b.strictOK("curi", "checkout", "large", "copy")
	b.ok("sh", "-c", `head -n 1 copy/large | grep -qx "of ann"`)
	// The next version of the other's artifact, and the same bytes once more.
	b.strictOK("sh", "-c", "cp copy/large . && curi add large --name large --tag good && echo x >>large && curi add large --name large && curi tag large@1 first")
	a.strictOK("curi", "tag", "large", "good")
	a.strictOK("curi", "rm", "large@2")

	for _, way := range []way{byMount, byCopy} {
		a.way, b.way = way, way
		stage := []string{"--name", "count", "--param", "way=" + string(way), "--in", "d=digits", "--out", "n=n", "--work", "w", "--publish", "n=n", "--shell", "--",
			"id -un > {out.n}; mkdir -p {work.w}/deep; echo c > {work.w}/deep/c"}
		r := a.strictStage(stage...)
		if again := b.strictStage(stage...); !again.Cached || again.Run != r.Run || b.ok("cat", again.Outputs["n"].Path) != "ann\n" {
			t.Errorf("%s: the other's call: %+v", way, again)
		}
		if forced := b.strictStage(append([]string{"--force"}, stage...)...); forced.Cached || b.ok("cat", forced.Outputs["n"].Path) != "bob\n" {
			t.Errorf("%s: the other's own call: %+v", way, forced)
		}
		a.strictOK("curi", "rm", r.Run) // and what is not his own
	}
	// The places that the other's runs left go, too.
	a.strictOK("sh", "-c", `mkdir .curi; printf 'keep: 1ms\nkeep_work: 1ms\n' >.curi/config.yaml`)
	for _, member := range []*site{b, a} {
		if o := member.strict("curi", "gc"); o.status != 0 || strings.Contains(o.stderr, "could not") {
			t.Errorf("curi gc: %s", o)
		}
		member.strictOK("curi", "fsck")
	}
	if left := s.ok("ls", s.store+"/at"); left != "" {
		t.Errorf("places that stay:\n%s", left)
	}

	root := *s
	root.way = byCopy
	root.ok("curi", "add", "digits", "--name", "roots")
	fails := []string{"--name", "later", "--in", "d=roots", "--out", "o=o", "--work", "w", "--shell", "--",
		`mkdir -p {work.w}/deep; echo $CURI_ATTEMPT >> {work.w}/deep/tries; test -e "$SIDE/pass" && cat {work.w}/deep/tries > {out.o}`}
	root.stageFails(1, "", fails...)
	s.touch("pass")
	r := a.strictStage(fails...)
	if text := b.strictOK("sh", "-c", `cat "$1"`, "sh", r.Outputs["o"].Path); text != "1\n2\n" {
		t.Errorf("after root's try: %q", text)
	}
	root.ok("curi", "gc")
	b.strictOK("curi", "fsck")
	wrong := s.ok("sh", "-c", `cd "$CURI_STORE" && find . -path "./at/*" -prune -o -type d ! -perm 2770 -print -o -not -group lab -print -o -type f -path "./refs/*" ! -perm 660 -print`)
	if wrong != "" {
		t.Errorf("not shared:\n%s", s.ok("sh", "-c", `cd "$CURI_STORE" && ls -ld "$@"`, "sh", strings.Fields(wrong)[0]))
	}
}

// While one member runs a stage the other waits for its result; when that one
// and all of his are killed, the other goes on with what is in the work
// directories.
func TestGroupWaitsAndTakesOver(t *testing.T) {
	for _, way := range []way{byMount, byCopy} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			s := newGroup(t)
			a, b := s.of(s.ann), s.of(s.bob)
			a.way, b.way = way, way
			a.strictOK("curi", "add", "digits", "--name", "digits")
			stage := func(name string) []string {
				return strictly(a.execArgv("--name", name, "--in", "d=digits", "--out", "o=o", "--work", "w", "--shell", "--",
					`mkdir -p {work.w}/deep "$TMPDIR/private"; chmod 700 "$TMPDIR/private"
					f={work.w}/deep/tries; echo $CURI_ATTEMPT >> $f; test -e $f.linked || ln $f $f.linked; touch $f; : > {work.w}/deep/empty; chmod 600 $f
					: > "$SIDE/`+name+`.$(id -u)"
					while ! test -e "$SIDE/`+name+`.go"; do sleep 0.05; done; cat $f > {out.o}`))
			}
			ran := func(name string, u user) bool {
				_, err := os.Stat(fmt.Sprintf("%s/%s.%d", s.side, name, u.id))
				return err == nil
			}
			first := a.begin(stage("wait")...)
			s.eventually(first, "the first to run", func() bool { return ran("wait", s.ann) })
			second := b.begin(stage("wait")...)
			s.eventually(second, "the second to wait", func() bool { return strings.Contains(second.stderr.String(), "waiting for") })
			s.touch("wait.go")
			if o := s.finish(first); o.status != 0 {
				t.Fatal(o)
			}
			o := s.finish(second)
			if r := decode[result](b, o.stdout); o.status != 0 || !r.Cached || b.ok("cat", r.Outputs["o"].Path) != "1\n" {
				t.Errorf("who waited: %s", o)
			}
			if ran("wait", s.bob) {
				t.Error("who waited ran it too")
			}

			for _, guardToo := range []bool{false, true} {
				name := fmt.Sprintf("kill-%t", guardToo)
				j := a.begin(stage(name)...)
				s.eventually(j, "the run", func() bool { return ran(name, s.ann) })
				if guardToo {
					// Everything of ann's at once: nobody is left to tidy up.
					s.killAll(s.ann)
				} else if err := syscall.Kill(curiOf(t, j), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = j.Wait()
				s.touch(name + ".go")
				o := b.run(stage(name)...)
				want := "1\n2\n"
				if guardToo && strings.Contains(o.stderr, "only another user may read") {
					want = "1\n" // and said so
				}
				if r := decode[result](b, o.stdout); o.status != 0 || r.Cached || b.ok("cat", r.Outputs["o"].Path) != want {
					t.Errorf("after the kill (guard too: %t): %s", guardToo, o)
				}
				if !ran(name, s.bob) {
					t.Error("the other did not run it")
				}
			}
			b.strictOK("curi", "fsck")
			a.strictOK("curi", "umount", "--stale")
		})
	}
}

// Root can run a stage in the private store of another user, who goes on with
// what is left; what has a name outside of the place stays whose it is.
func TestRootInAnothersStore(t *testing.T) {
	for _, way := range []way{byMount, byCopy} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			g := newGroup(t)
			a, root := g.of(g.ann), *g.site
			a.way, root.way = way, way
			dir := a.dir + "/store"
			a.env, root.env = append(a.env, "CURI_STORE="+dir), append(root.env, "CURI_STORE="+dir)
			a.strictOK("curi", "store", "init", dir)
			a.strictOK("curi", "add", "digits", "--name", "digits")
			g.ok("sh", "-c", `echo secret >"$1"; chmod 600 "$1"`, "sh", a.dir+"/secret")
			stage := []string{"--name", "s", "--in", "d=digits", "--out", "o=o", "--work", "w", "--shell", "--",
				`mkdir -p {work.w}/deep; echo $CURI_ATTEMPT >> {work.w}/deep/tries; test -e "$SIDE/pass" && mv {work.w}/deep/tries {out.o}`}
			root.stageFails(1, "", stage...)
			root.ok("sh", "-c", `ln "$1" "$(echo "$2"/at/*/work/w)/planted"`, "sh", a.dir+"/secret", dir)
			root.stageFails(1, "", stage...)
			root.touch("pass")
			r := a.strictStage(stage...)
			if text := a.ok("cat", r.Outputs["o"].Path); text != "1\n2\n3\n" {
				t.Errorf("%q", text)
			}
			a.strictOK("curi", "fsck")
			a.strictOK("sh", "-c", `mkdir .curi; printf 'keep: 1ms\nkeep_work: 1ms\n' >.curi/config.yaml; curi gc`)
			if left := root.ok("ls", dir+"/at"); left != "" {
				t.Errorf("places that stay:\n%s", left)
			}
			if owner := root.ok("stat", "-c", "%u %a", a.dir+"/secret"); owner != "0 600\n" {
				t.Errorf("the file of root's is of user and mode %s", owner)
			}
		})
	}
}

// curiOf is the process of curi that a job started through sh.
func curiOf(t *testing.T, j *job) int {
	t.Helper()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", j.Process.Pid))
	if err != nil || strings.TrimSpace(string(comm)) != "curi" {
		t.Fatalf("process %d is %q (%v), not curi", j.Process.Pid, comm, err)
	}
	return j.Process.Pid
}
