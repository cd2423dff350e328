package torture

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// paid waits until a rig owes nothing to the remote, as its own processes see to.
func (r *rig) paid() {
	r.t.Helper()
	r.eventually("what is owed to be uploaded", func() bool {
		left, err := filepath.Glob(r.store + "/remotes/team/owed/*")
		return err == nil && len(left) == 0
	})
}

// A machine that goes down once a stage has succeeded loses nothing: the next
// command of its store brings the result to the remote, in the background.
func TestResultOfTheKilledIsPublished(t *testing.T) {
	for name, c := range map[string]struct{ rule, push string }{
		"owed":        {"curi/run.owed=kill", "now"},
		"published":   {"curi/run.published=kill", "now"},
		"closed":      {"curi/run.closed=kill", "now"},
		"in the push": {"curi/push.recipe=kill", "now"},
		"later":       {"", "later"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := twoMachines(t, "file")
			m.goOn(t, "a")
			m.goOn(t, "b")
			argv := stage("echo model > {out.m}")
			argv = append([]string{"curi", "stage", "exec", "--push", c.push}, argv[3:]...)
			o := m.a.run(faults(c.rule), argv...)
			switch {
			case c.rule != "" && o.status != 137:
				t.Fatalf("it was not killed: %s", o)
			case c.rule == "" && (o.status != 0 || !strings.Contains(o.stderr, "is not on remote team yet")):
				t.Fatalf("--push later: %s", o)
			}
			if out := m.a.ok("curi", "status"); !strings.Contains(out, "1 result to remote team") {
				t.Errorf("status says %q", out)
			}
			m.a.ok("curi", "ls")
			m.a.paid()
			if o := m.b.run(nil, argv...); o.status != 0 || m.ran() != "a" {
				t.Errorf("it ran on %q: %s", m.ran(), o)
			}
			m.a.sound()
		})
	}
}

// A result that was reported while its remote was away, on a machine that went
// down right after, is brought there by the first command that finds the remote
// back.
func TestResultWithoutItsRemoteIsPublished(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	m.goOn(t, "a")
	m.goOn(t, "b")
	a, bucket := m.a, m.dir+"/bucket"
	// Once with the remote, which is known then.
	a.ok(stage("echo first > {out.m}")...)
	if err := os.Rename(bucket, bucket+".away"); err != nil {
		t.Fatal(err)
	}
	argv := stage("echo model > {out.m}")
	o := a.run(nil, argv...)
	for _, pid := range a.pids() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if o.status != 0 || !strings.Contains(o.stderr, "is not on remote team yet") {
		t.Fatalf("without the remote: %s", o)
	}
	if out := a.ok("curi", "status"); !strings.Contains(out, "1 result to remote team") {
		t.Errorf("status says %q", out)
	}
	// A command that finds it away still changes nothing.
	later := func(by string) []string {
		clock := a.side + "/clock"
		if err := os.WriteFile(clock, []byte(by), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{"CURI_FAULT_CLOCK=" + clock}
	}
	if o := a.run(later("2m"), "curi", "ls"); o.status != 0 {
		t.Error(o)
	}
	a.eventually("the upload to give up", func() bool { return len(a.pids()) == 0 })
	if left, err := filepath.Glob(a.store + "/remotes/team/owed/*"); err != nil || len(left) != 1 {
		t.Errorf("while it is away %d are owed, %v", len(left), err)
	}
	if err := os.Rename(bucket+".away", bucket); err != nil {
		t.Fatal(err)
	}
	if o := a.run(later("4m"), "curi", "ls"); o.status != 0 {
		t.Error(o)
	}
	a.paid()
	if o := m.b.run(nil, argv...); o.status != 0 || m.ran() != "a a" {
		t.Errorf("it ran on %q: %s", m.ran(), o)
	}
	a.sound()
}

// Those who upload for one store do so one after the other, and no command
// waits for another's upload but those that say so.
func TestOneUploaderAtATime(t *testing.T) {
	t.Parallel()
	m := twoMachines(t, "file")
	m.goOn(t, "a")
	a := m.a
	a.ok(append([]string{"curi", "stage", "exec", "--push", "later"}, stage("echo model > {out.m}")[3:]...)...)
	// It is stopped while it has the right to upload.
	uploader := a.start(a.traced("curi/push.recipe=stop"), "curi", "push", "--owed")
	a.eventually("the uploader to stop", func() bool { return a.stopped() != 0 })
	a.ok("curi", "ls")
	waiting := a.start(nil, "curi", "push", "--wait")
	a.eventually("the second to wait", func() bool {
		return done(waiting) || strings.Contains(waiting.stderr.String(), "which uploads what this store owes")
	})
	if done(waiting) {
		t.Errorf("two upload at once: %s", a.finish(waiting))
	}
	if err := uploader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.finish(uploader)
	o := a.finish(waiting)
	if left, err := filepath.Glob(a.store + "/remotes/team/owed/*"); o.status != 0 || err != nil || len(left) != 0 {
		t.Errorf("after the first was killed %d are owed: %s", len(left), o)
	}
}

// A machine that goes down while it publishes leaves others the result of a
// stage, or what they need to go on with it, or both; and the next command of
// its store leaves the result alone.
func TestSnapshotsStayUntilTheResultIsThere(t *testing.T) {
	for _, at := range []string{"run.published", "push.recipe", "result.named"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			m := twoMachines(t, "file")
			argv := []string{"curi", "stage", "exec", "--no-mount", "--snapshot", "1ms", "--name", "train", "--out", "m=m.txt", "--work", "ck", "--shell", "--",
				`[ "$CURI_ATTEMPT" -gt 1 ] && echo model > {out.m} && exit; printf '\002\000\000\000\000\000\000\000{}' > {work.ck}/a.safetensors; exit 3`}
			if o := m.a.run(nil, argv...); o.status != 3 {
				t.Fatal(o)
			}
			there := func(kind string) bool {
				found, err := filepath.Glob(m.dir + "/bucket/refs/" + kind)
				return err == nil && len(found) > 0
			}
			if !there("work/*/*") {
				t.Fatal("there is no snapshot to begin with")
			}
			if o := m.a.run(faults("curi/"+at+"=kill"), argv...); o.status != 137 {
				t.Fatalf("it was not killed: %s", o)
			}
			if !there("stage/*") && !there("work/*/*") {
				t.Error("others have neither the result nor the snapshot")
			}
			m.a.ok("curi", "push", "--wait")
			if !there("stage/*") || there("work/*/*") {
				t.Errorf("afterwards the result is there: %v, a snapshot: %v", there("stage/*"), there("work/*/*"))
			}
			m.a.sound()
		})
	}
}
