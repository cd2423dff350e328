package torture

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An op is something that a person does with a store, in a way that it can be
// cut off and done again.
type op struct {
	name  string
	setup func(*rig)          // makes what it needs, in a new store
	early bool                // what may be cut off is started by setup
	argv  func(*rig) []string // the command
	ends  []int               // statuses with which it may end when nothing goes wrong; 0 if there are none
	again []int               // and when it is done once more after it was cut off anywhere; 0 as well
	check func(*rig, string)  // what must hold after it was done once more; the text is its output
}

// stageArgv is a stage with a file, a directory, a work directory and a
// published name.
func stageArgv(more ...string) []string {
	argv := append([]string{"curi", "stage", "exec", "--json", "--name", "train", "--in", "data=data", "--out", "model=model.bin", "--out", "logs=logs/",
		"--work", "ck", "--publish", "model=model", "--grace", "5s"}, more...)
	return append(argv, "--", "sh", "-c", `test ! -e $SIDE/hook || . $SIDE/hook
		echo 1 > {work.ck}/step && read -r first < {in.data}/a && { echo $first; cat {in.data}/sub/b; } > {out.model} &&
		sync {out.model} && for i in 1 2 3 4; do echo $i > {out.logs}/$i || exit; done`)
}

// saveAndFail leaves a complete checkpoint.
const saveAndFail = `rm $SIDE/hook; printf '\002\000\000\000\000\000\000\000{}' > $CURI_WORK_ck/a.safetensors; exit 3`

const (
	dataA = "first\n"
	dataB = "second\n"
)

func writeData(r *rig) {
	r.write("data/a", dataA)
	r.write("data/sub/b", dataB)
	r.write("data/large", strings.Repeat("0123456789abcdef", 100<<10)) // has an outboard
	if err := os.Symlink("sub/b", filepath.Join(r.dir, "data/link")); err != nil && !os.IsExist(err) {
		r.t.Fatal(err)
	}
}

func addData(r *rig) {
	r.t.Helper()
	writeData(r)
	r.ok("curi", "add", "data", "--name", "data")
}

// checkData looks whether an artifact is what writeData wrote.
func checkData(r *rig, name string) {
	r.t.Helper()
	for path, want := range map[string]string{"a": dataA, "sub/b": dataB, "large": strings.Repeat("0123456789abcdef", 100<<10)} {
		if got := r.ok("curi", "cat", name+"/"+path); got != want {
			r.t.Errorf("%s/%s has %d bytes, %.20q", name, path, len(got), got)
		}
	}
}

// result is what `curi stage exec --json` prints.
type result struct {
	Run     string `json:"run"`
	Cached  bool   `json:"cached"`
	Exit    int    `json:"exit_status"`
	Outputs map[string]struct {
		Digest string `json:"digest"`
		Path   string `json:"path"`
	} `json:"outputs"`
}

// checkResult looks whether a stage has what its command writes.
func checkResult(r *rig, text string) {
	r.t.Helper()
	var res result
	if err := json.Unmarshal([]byte(text), &res); err != nil {
		r.t.Fatalf("%v: %q", err, text)
	}
	files := map[string]string{res.Outputs["model"].Path: dataA + dataB}
	for i := range 4 {
		files[fmt.Sprintf("%s/%d", res.Outputs["logs"].Path, i+1)] = fmt.Sprintln(i + 1)
	}
	for path, want := range files {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			r.t.Errorf("%s holds %q, %v", path, b, err)
		}
	}
	if got := r.ok("curi", "cat", "model"); got != dataA+dataB {
		r.t.Errorf("what was published is %q", got)
	}
}

func fixed(argv ...string) func(*rig) []string { return func(*rig) []string { return argv } }

// hook is a piece of shell that the stage's command runs first. It is no part
// of the key.
func (r *rig) hook(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.side+"/hook", []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// localOps need no remote.
var localOps = []op{
	{
		name: "add", setup: writeData, argv: fixed("curi", "add", "data", "--name", "data", "--tag", "best"),
		check: func(r *rig, _ string) { checkData(r, "data"); checkData(r, "data@best") },
	}, {
		name: "add-stdin", argv: fixed("sh", "-c", "head -c 3000000 /dev/zero | curi add - --as zeros --name zeros"),
		check: func(r *rig, _ string) {
			if got := r.ok("curi", "cat", "zeros"); len(got) != 3000000 {
				r.t.Errorf("%d bytes", len(got))
			}
		},
	}, {
		name: "add-move", setup: writeData, argv: fixed("curi", "add", "data", "--move", "--name", "moved"),
		again: []int{121}, // it was moved whole
		check: func(r *rig, _ string) { checkData(r, "moved") },
	}, {
		name: "add-reference", setup: writeData, argv: fixed("curi", "add", "data", "--reference", "--name", "kept"),
		check: func(r *rig, _ string) { checkData(r, "kept") },
	}, {
		name: "exec", setup: addData, argv: fixed(stageArgv()...), check: checkResult,
	}, {
		name: "exec-no-mount", setup: addData, argv: fixed(stageArgv("--no-mount")...), check: checkResult,
	}, {
		// Without passthrough, what the command reads and writes goes through curifs.
		name: "exec-unprivileged", setup: addData, check: checkResult,
		argv: fixed(append([]string{"unshare", "-U", "-r", "-m"}, stageArgv()...)...),
	}, {
		name: "exec-hit", setup: func(r *rig) { addData(r); r.ok(stageArgv("--no-mount")...) },
		argv: fixed(stageArgv()...), check: checkResult,
	}, {
		name: "exec-fails", setup: func(r *rig) { addData(r); r.hook("rm $SIDE/hook; exit 3") },
		argv: fixed(stageArgv()...), ends: []int{3}, check: checkResult,
	}, {
		name: "exec-snapshot", setup: func(r *rig) { addData(r); r.hook(saveAndFail) },
		argv: fixed(stageArgv("--snapshot", "1ms")...), ends: []int{3}, check: checkResult,
	}, {
		name: "exec-from-snapshot", setup: func(r *rig) {
			addData(r)
			r.hook(saveAndFail)
			if o := r.run(nil, stageArgv("--no-mount", "--snapshot", "1ms")...); o.status != 3 {
				r.t.Fatal(o)
			}
			if err := os.RemoveAll(r.store + "/at"); err != nil {
				r.t.Fatal(err)
			}
			r.hook("[ -s $CURI_WORK_ck/a.safetensors ] && [ $CURI_ATTEMPT -gt 1 ] || exit 4")
		}, argv: fixed(stageArgv("--no-mount")...), check: checkResult,
	}, {
		// The guard of a curi that is killed settles the run.
		name: "exec-killed", setup: func(r *rig) {
			addData(r)
			r.hook("rm $SIDE/hook; kill -9 $(awk '/^PPid/ {print $2}' /proc/$PPID/status); sleep 60")
		}, argv: fixed(stageArgv()...), ends: []int{137}, check: checkResult,
	}, {
		// The next call settles one whose guard is killed, too.
		name: "exec-after-lost", setup: func(r *rig) {
			addData(r)
			r.hook("rm $SIDE/hook; kill -9 $(awk '/^PPid/ {print $2}' /proc/$PPID/status) $PPID")
			if o := r.run(nil, stageArgv()...); o.status != 137 {
				r.t.Fatal(o)
			}
		}, argv: fixed(stageArgv()...), check: checkResult,
	}, {
		name: "exec-takeover", setup: func(r *rig) { addData(r); r.silentHost() },
		argv: fixed(stageArgv("--no-mount")...), check: checkResult,
	}, {
		name: "gc", setup: func(r *rig) {
			addData(r)
			r.ok(stageArgv("--no-mount")...)
			r.ok("curi", "rm", "model")
			r.write("new", "new")
			r.ok("curi", "add", "new", "--name", "new")
			r.write(".curi/config.yaml", "keep: 1ms\nkeep_work: 1ms\n")
		}, argv: fixed("curi", "gc"),
		check: func(r *rig, _ string) {
			checkData(r, "data")
			r.staging(0)
			if at, _ := filepath.Glob(r.store + "/at/*"); len(at) > 0 {
				r.t.Errorf("left: %v", at)
			}
		},
	}, {
		name: "rm", setup: func(r *rig) {
			addData(r)
			r.ok("curi", "tag", "data", "best")
		}, argv: fixed("curi", "rm", "data@1"), again: []int{121},
		check: func(r *rig, _ string) {
			if o := r.run(nil, "curi", "show", "data"); o.status != 121 {
				r.t.Error(o)
			}
		},
	}, {
		name: "rm-run", setup: func(r *rig) {
			addData(r)
			r.ok(stageArgv("--no-mount")...)
		}, argv: func(r *rig) []string { return []string{"curi", "rm", r.runs()[0]} }, again: []int{120, 121, 124},
		check: func(r *rig, _ string) { checkResult(r, r.ok(stageArgv("--no-mount")...)) },
	}, {
		name: "checkout", setup: addData, argv: fixed("curi", "checkout", "data", "copy"), again: []int{120}, // it is there
		check: func(r *rig, _ string) { r.ok("diff", "-r", "data", "copy") },
	}, {
		name: "path", setup: addData, argv: fixed("curi", "path", "data"),
		check: func(r *rig, text string) { r.ok("diff", "-r", "data", strings.TrimSpace(text)) },
	}, {
		name: "mount", setup: addData, argv: func(r *rig) []string { return []string{"curi", "mount", r.mnt} },
		check: func(r *rig, _ string) { r.ok("diff", "-r", "data", r.mnt+"/artifacts/data") },
	}, {
		name: "umount", setup: func(r *rig) {
			addData(r)
			r.ok("curi", "mount", r.mnt)
		}, early: true, argv: func(r *rig) []string { return []string{"curi", "umount", r.mnt} }, again: []int{121},
		check: func(r *rig, _ string) {
			if dirs := r.mounted(); len(dirs) > 0 {
				r.t.Errorf("still mounted: %v", dirs)
			}
		},
	},
}

// begin prepares the op and does it once, with faults in the environment.
func (o *op) begin(r *rig, env []string) (j *job, argv []string) {
	r.t.Helper()
	if o.early {
		whole := r.env
		r.env = append(slices.Clone(r.env), env...)
		defer func() { r.env = whole }()
	}
	if o.setup != nil {
		o.setup(r)
	}
	r.before = r.passages()
	argv = o.argv(r)
	return r.start(env, argv...), argv
}

// repeat does it once more, after it was cut off, and checks what is there then.
func (o *op) repeat(r *rig, argv []string) {
	r.t.Helper()
	_ = os.Remove(r.side + "/hook")
	out := r.run(nil, argv...)
	if out.status != 0 && !slices.Contains(o.again, out.status) {
		r.t.Errorf("it does not go on: %s", out)
		return
	}
	o.check(r, out.stdout)
}

// runs lists the runs, newest first.
func (r *rig) runs() (ids []string) {
	r.t.Helper()
	var list []struct {
		Run string `json:"run"`
	}
	if err := json.Unmarshal([]byte(r.ok("curi", "log", "--json")), &list); err != nil {
		r.t.Fatal(err)
	}
	for _, l := range list {
		ids = append(ids, l.Run)
	}
	return ids
}

// silentHost makes the key of the stage one that another host took and then
// said nothing.
func (r *rig) silentHost() {
	r.t.Helper()
	var dry struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(r.ok(stageArgv("--dry-run")...)), &dry); err != nil {
		r.t.Fatal(err)
	}
	lock := r.store + "/locks/key/" + dry.Key
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		r.t.Fatal(err)
	}
	holder := `{"host":"elsewhere","boot_id":"00000000-0000-0000-0000-000000000000","pid":1,"start":1,"what":"run train-000001","since":"2026-01-01T00:00:00Z"}`
	if err := os.WriteFile(lock, fmt.Appendf(nil, "%-1023s\n", holder), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.ok("touch", "-d", "1 hour ago", lock)
}

// staging checks that a collection leaves at most so many things in staging,
// a day later.
func (r *rig) staging(most int) {
	r.t.Helper()
	clock := filepath.Join(r.side, "clock")
	if err := os.WriteFile(clock, []byte("25h"), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if o := r.run([]string{"CURI_FAULT_CLOCK=" + clock}, "curi", "gc"); o.status != 0 {
		r.t.Errorf("gc a day later: %s", o)
	}
	if left, _ := filepath.Glob(r.store + "/staging/*"); len(left) > most {
		r.t.Errorf("left in staging: %v", left)
	}
}
