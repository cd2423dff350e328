package torture

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ops are all.
var ops = slices.Concat(localOps, remoteOps)

// bucket is the directory that is the rig's remote, or that its server keeps it in.
func (r *rig) bucket() string { return cmp.Or(r.objects, r.side+"/bucket") }

func (r *rig) addRemote() {
	r.t.Helper()
	r.ok("curi", "remote", "add", "team", cmp.Or(r.url, "file://"+r.bucket()))
}

// remoteSound checks the remote, if there is one yet.
func (r *rig) remoteSound() {
	r.t.Helper()
	if _, err := os.Stat(r.bucket() + "/curi-remote.json"); err != nil {
		return
	}
	if o := r.run(nil, "curi", "remote", "fsck", "team", "--read"); o.status != 0 {
		r.t.Fatalf("the remote is not sound: %s", o)
	}
}

// elsewhere runs a command with another store.
func (r *rig) elsewhere(argv ...string) string {
	r.t.Helper()
	o := r.run([]string{"CURI_STORE=" + r.side + "/other"}, argv...)
	if o.status != 0 {
		r.t.Fatalf("with another store: %s", o)
	}
	return o.stdout
}

// without does something while the remote is away.
func (r *rig) without(do func()) {
	r.t.Helper()
	if err := os.Rename(r.bucket(), r.bucket()+".away"); err != nil {
		r.t.Fatal(err)
	}
	defer os.Rename(r.bucket()+".away", r.bucket())
	do()
}

// noTemp makes what lies in the bucket an hour older than any collection wants
// it, and checks that one leaves no temporary file.
func (r *rig) noTemp() {
	r.t.Helper()
	r.age()
	r.ok("curi", "remote", "gc", "team")
	r.ok("curi", "remote", "fsck", "team")
	if left, _ := exec.Command("find", r.bucket(), "-name", ".*").Output(); len(left) > 0 {
		r.t.Errorf("left in the bucket:\n%s", left)
	}
}

// age makes all objects of the bucket two days older.
func (r *rig) age() {
	r.t.Helper()
	if out, err := exec.Command("find", r.bucket(), "-type", "f", "-exec", "touch", "-d", "2 days ago", "{}", "+").CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
}

// hugeSize is more than what a pull brings in one piece.
const hugeSize = 33 << 20

func addHuge(r *rig) {
	r.t.Helper()
	r.write("data/huge", strings.Repeat("0123456789abcdef", hugeSize/16))
	addData(r)
}

var remoteOps = []op{
	{
		name: "push", setup: func(r *rig) { addData(r); r.addRemote() },
		argv: fixed("curi", "push", "data"),
		check: func(r *rig, _ string) {
			r.remoteSound()
			r.elsewhere("curi", "remote", "add", "team", "file://"+r.bucket())
			r.elsewhere("curi", "pull", "--now", "team/data")
			if got := r.elsewhere("curi", "cat", "team/data/sub/b"); got != dataB {
				r.t.Errorf("another store has %q", got)
			}
			r.noTemp()
		},
	}, {
		name: "pull", setup: func(r *rig) {
			r.addRemote()
			r.elsewhere("curi", "remote", "add", "team", "file://"+r.bucket())
			addHuge(r)
			r.ok("curi", "push", "data")
			r.ok("curi", "rm", "data")
			r.ok("curi", "gc")
		}, argv: fixed("curi", "pull", "--now", "team/data"),
		check: func(r *rig, _ string) {
			r.ok("curi", "gc") // takes nothing of what was pulled
			r.without(func() {
				checkData(r, "team/data")
				if got := r.ok("curi", "cat", "team/data/huge"); len(got) != hugeSize {
					r.t.Errorf("huge has %d bytes", len(got))
				}
			})
		},
	}, {
		// The mount dies, or what it serves does not come: 123 stands for that.
		name: "lazy-read", setup: func(r *rig) {
			r.addRemote()
			addHuge(r)
			r.ok("curi", "push", "data")
			r.ok("curi", "rm", "data")
			r.ok("curi", "gc")
			r.ok("curi", "pull")
		}, argv: func(r *rig) []string {
			return []string{"sh", "-c", `curi mount $0 && cmp data/huge $0/remotes/team/data/huge && cmp data/a $0/remotes/team/data/a && curi umount $0 || exit 123`, r.mnt}
		}, ends: []int{123},
		check: func(r *rig, _ string) {
			r.ok("curi", "mount", r.mnt)
			r.without(func() { r.ok("cmp", "data/huge", r.mnt+"/remotes/team/data/huge") })
		},
	}, {
		// Its lease is renewed while its command runs; whoever comes after one
		// that was killed knows that lease for one of his store's own.
		name: "exec-leased", setup: func(r *rig) {
			addData(r)
			r.addRemote()
			r.env = append(r.env, hasty)
			r.hook("sleep 0.5")
		}, argv: fixed(stageArgv("--no-mount")...),
		check: func(r *rig, text string) {
			checkResult(r, text)
			r.ok("curi", "push", "--wait")
			r.elsewhere("curi", "remote", "add", "team", "file://"+r.bucket())
			r.elsewhere("curi", "add", "data", "--name", "data")
			if out := r.elsewhere(stageArgv("--no-mount")...); !strings.Contains(out, `"cached": true`) {
				r.t.Errorf("another store runs it again: %s", out)
			}
		},
	}, {
		name: "remote-gc", setup: func(r *rig) {
			addData(r)
			r.addRemote()
			r.ok("curi", "push", "data", "--name", "other")
			r.write("data/a", "another")
			r.ok("curi", "add", "data", "--name", "new")
			r.ok("curi", "push", "new")
			r.ok("curi", "remote", "rm", "team", "other")
		}, argv: fixed("curi", "remote", "gc", "team", "--grace", "0"),
		check: func(r *rig, _ string) {
			r.remoteSound()
			for _, room := range []string{"packs", "recipes"} {
				if left, _ := filepath.Glob(r.bucket() + "/" + room + "/??/*"); len(left) != 1 {
					r.t.Errorf("left: %v", left)
				}
			}
			r.noTemp()
			r.elsewhere("curi", "remote", "add", "team", "file://"+r.bucket())
			r.elsewhere("curi", "pull")
			if got := r.elsewhere("curi", "cat", "team/new/a"); got != "another" {
				r.t.Errorf("what is needed is %q", got)
			}
		},
	},
}

// TestPushGoesOn kills a push when it has sent a pack: the next sends what
// lacks, and no more.
func TestPushGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addRemote()
	const size = 100 << 20
	r.ok("sh", "-c", "head -c 104857600 /dev/urandom > random && curi add random --move --name random")
	if o := r.run(faults("push.pack=kill"), "curi", "push", "random"); o.status != 137 {
		t.Fatalf("it was not killed: %s", o)
	}
	var there int64                                                 // of two packs, which are sent at once
	packs, err := filepath.Glob(r.bucket() + "/packs/??/[0-9a-f]*") // what has its name
	if err != nil || len(packs) == 0 {
		t.Fatalf("no pack is there: %v", err)
	}
	for _, p := range packs {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		there += fi.Size()
	}
	var pushed []struct {
		Sent int64 `json:"sent"`
	}
	text := r.ok("curi", "push", "random", "--json")
	if err := json.Unmarshal([]byte(text), &pushed); err != nil || len(pushed) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	if sent := pushed[0].Sent; sent > size-there+size/16 {
		t.Errorf("the second push sent %d of %d bytes, of which %d were there", sent, size, there)
	}
	r.sound()
}
