package main_test

import (
	"strings"
	"testing"
)

// boxScript runs the shell text $2 as the user 4000 in a box: a root directory
// of its own into which of the places of a run only {root}, $1, is bound, as a
// container does.
const boxScript = `#!/bin/sh
set -e
box=$SIDE/box; mkdir -p "$box"
exec unshare --mount sh -c 'set -e
	mount -t tmpfs -o mode=755 none "$1"
	for d in usr bin lib lib64 sbin etc dev; do
		[ ! -L /$d ] || { ln -s "$(readlink /$d)" "$1/$d"; continue; }
		[ ! -d /$d ] || { mkdir "$1/$d"; mount --rbind /$d "$1/$d"; }
	done
	mkdir -m 1777 "$1/tmp"
	mkdir -p "$1$2"
	mount --rbind "$2" "$1$2"
	chroot --userspec=4000:4000 "$1" sh -c "$3"' sh "$box" "$1" "$2"
`

// A trainer that runs as another user, by itself or in a container that binds
// {root}, reads and writes in a mount for all; what it makes is its own while
// it runs, and a result like any other afterwards.
func TestTrainerOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := newLab(t)
	s.useStore(s.in("store"))
	s.ok("curi", "add", "digits", "--name", "digits")
	s.write("box.sh", boxScript)
	s.ok("chmod", "755", "box.sh")
	s.mountLab("-o", "allow_other")
	const work = `umask 077; cat {in.d}/link > {out.m} && mkdir {out.all}/deep && cp {in.d}/numbers.txt {out.all}/deep/ && echo c >> {work.w}/c &&
		! echo x > {in.d}/numbers.txt && python3 -c "import tempfile, os; tempfile.mkstemp(); os.link(\"{work.w}/c\", \"{work.w}/c2\")" &&
		stat -c %u:%g {out.m} {out.all}/deep {work.w}/c > {out.all}/owners`
	for name, argv := range map[string][]string{
		"user": {"setpriv", "--reuid", "4000", "--regid", "4000", "--clear-groups", "sh", "-c", work},
		"box":  {"./box.sh", "{root}", work},
	} {
		// The places are root's until somebody is let in.
		script := `chmod 777 {out.m}/.. {out.all} {work.w} "$TMPDIR" && exec "$@"`
		stage := append([]string{"--name", name, "--in", "d=digits", "--out", "m=m", "--out", "all=all/", "--work", "w", "--publish", "m=" + name, "--",
			"sh", "-c", strings.ReplaceAll(script, "{out.m}/..", `"$(dirname {out.m})"`), "sh"}, argv...)
		r := s.stage(stage...)
		if s.read(r.Outputs["m"].Path) != "5 6\n" || s.read(r.Outputs["all"].Path+"/deep/numbers.txt") != "1 2 3 4\n" {
			t.Errorf("%s: %+v", name, r)
		}
		if owners := s.read(r.Outputs["all"].Path + "/owners"); owners != strings.Repeat("4000:4000\n", 3) {
			t.Errorf("%s: what it made belonged to %q", name, owners)
		}
		if again := s.stage(stage...); !again.Cached {
			t.Errorf("%s: no hit: %+v", name, again)
		}
		if o := s.run("setpriv", "--reuid", "4000", "--regid", "4000", "--clear-groups", "sh", "-c", "echo x > "+r.Outputs["m"].Path); o.status == 0 {
			t.Errorf("%s: who made a result could change it", name)
		}
	}
	s.ok("curi", "fsck")
}
