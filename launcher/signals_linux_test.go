package launcher

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// alive reports whether a process that is no zombie has that pid.
func alive(pid int) bool {
	st, ok := readStat(strconv.Itoa(pid))
	return ok && !st.dead
}

func TestSignalReachesTheCommandAlone(t *testing.T) {
	// The child would leave a mark if it got the signal too.
	text := `trap 'echo got > {work.ck}/trapped; kill $child; exit 7' INT TERM HUP QUIT
(trap 'echo bad > {work.ck}/child; exit' INT; echo ready; sleep 60 & wait) & child=$!
wait`
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGQUIT: 131} {
		t.Run(sig.String(), func(t *testing.T) {
			c := shell(t, text)
			ch := c.start(t)
			ch.stdout.await(t, "ready")
			ch.signal(t, sig)
			if got := ch.wait(t); got != want {
				t.Errorf("exit status %d, want %d; it said:\n%s", got, want, ch.stderr.String())
			}
			wantFile(t, filepath.Join(c.at(t), "work", "ck", "trapped"), "got\n")
			if _, err := os.Stat(filepath.Join(c.at(t), "work", "ck", "child")); err == nil {
				t.Error("the command's child got the signal too")
			}
			if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Interrupted || rs[0].Exit != want {
				t.Errorf("runs: %+v", rs)
			}
			wantText(t, ch.stderr.String(), "was interrupted", "work directory ck")
		})
	}
}

// bash train.sh: the shell waits for the trainer, which must hear of Ctrl-C as
// it does at a terminal; the trainer's own children must not.
func TestInterruptReachesWhatAShellRuns(t *testing.T) {
	c := shell(t, "sh -c 'python3 trainer.py; echo after'; echo after")
	trainer := `import os, signal, subprocess, sys
mark = os.environ["MARKS"] + "/loader"
loader = "import signal, sys, time; signal.signal(signal.SIGINT, lambda *a: open(sys.argv[1], 'w').close()); print('ready', flush=True); time.sleep(100)"
child = subprocess.Popen([sys.executable, "-c", loader, mark])
def stop(*_):
    child.kill()
    print("trainer told", flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, stop)
child.wait()
`
	if err := os.WriteFile(filepath.Join(c.Stage.Dir, "trainer.py"), []byte(trainer), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Grace = 20 * time.Second
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	ch.signal(t, syscall.SIGINT)
	if got := ch.wait(t); got != 130 {
		t.Errorf("exit status %d, want 130; it said:\n%s", got, ch.stderr.String())
	}
	wantText(t, ch.stdout.String(), "trainer told")
	if strings.Contains(ch.stderr.String(), "killing") {
		t.Errorf("it was killed:\n%s", ch.stderr.String())
	}
	if _, err := os.Stat(filepath.Join(c.marks(), "loader")); err == nil {
		t.Error("the trainer's child got the signal too")
	}
}

func TestSecondInterruptKills(t *testing.T) {
	c := shell(t, "trap '' INT; echo ready; while true; do sleep 0.1; done")
	c.Grace = time.Minute
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	ch.signal(t, syscall.SIGINT)
	ch.stderr.await(t, "Ctrl-C again kills it")
	time.Sleep(secondInt + 100*time.Millisecond)
	ch.signal(t, syscall.SIGINT)
	if got := ch.wait(t); got != 130 {
		t.Errorf("exit status %d, want 130", got)
	}
	wantText(t, ch.stderr.String(), "interrupted again")
}

func TestGraceEndsInKill(t *testing.T) {
	c := shell(t, "trap '' TERM; echo $$ > $MARKS/pid; echo ready; while true; do sleep 0.1; done")
	c.Grace = 500 * time.Millisecond
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	pid := c.pidIn(t, "pid")
	ch.signal(t, syscall.SIGTERM)
	if got := ch.wait(t); got != 143 {
		t.Errorf("exit status %d, want 143", got)
	}
	if alive(pid) {
		t.Error("the command lives")
	}
}

func TestTimeout(t *testing.T) {
	c := shell(t, "echo ready; sleep 60")
	c.Timeout = 300 * time.Millisecond
	res, out, err := c.run(t)
	if err != nil || res.Exit != 143 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantText(t, out, "timed out after 300ms")
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.TimedOut || rs[0].Exit != 143 {
		t.Errorf("runs: %+v", rs)
	}
}

func TestKilledByASignal(t *testing.T) {
	c := shell(t, "kill -SEGV $$")
	res, out, err := c.run(t)
	if err != nil || res.Exit != 139 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantText(t, out, "SIGSEGV")
}

func TestOrphansAreNamedAndEnded(t *testing.T) {
	// Daemonised twice over, in a session of its own.
	c := shell(t, "echo x > {out.model}; (setsid sh -c 'sleep 60 & echo $! > $MARKS/pid; wait' > /dev/null 2>&1 &)")
	c.Grace = time.Second
	res, out := c.must(t)
	wantText(t, out, "left running", "sleep", "killing")
	if alive(c.pidIn(t, "pid")) {
		t.Error("the orphan lives")
	}
	if res.Outputs["model"].Bytes != 2 {
		t.Errorf("%+v", res)
	}
}

func TestOrphansMayFinishWithinTheGrace(t *testing.T) {
	c := shell(t, "(setsid sh -c 'sleep 0.7; echo late > {out.model}' > /dev/null 2>&1 &)")
	res, out := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "late\n")
	wantText(t, out, "left running")
}

func TestCuriKilled(t *testing.T) {
	c := shell(t, `if [ -e $MARKS/second ]; then echo $CURI_ATTEMPT $CURI_RESUME > {out.model}; exit; fi
echo half > {out.model}; echo ck > {work.ck}/f
(setsid sleep 60 & echo $! > $MARKS/orphan); echo $$ > $MARKS/pid; echo ready; sleep 60`)
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	pid, orphan := c.pidIn(t, "pid"), c.pidIn(t, "orphan")
	ch.signal(t, syscall.SIGKILL)
	ch.wait(t)
	s := c.open(t)
	var key string
	for _, r := range c.runs(t) {
		key = r.Key
	}
	// The lock is free only when the tree is gone.
	lock, err := s.Lock(t.Context(), cas.KeyLock(key), "test", func(cas.Holder) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if alive(pid) || alive(orphan) {
		t.Error("the key's lock is free and the command lives")
	}
	if rs := c.runs(t); len(rs) != 1 || rs[0].Status != stages.Lost {
		t.Errorf("runs: %+v", rs)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.marks(), "second"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	res, _ := c.must(t)
	wantFile(t, res.Outputs["model"].Path, "2 1\n")
}

func TestGuardKilled(t *testing.T) {
	c := shell(t, "echo $$ > $MARKS/pid; echo $PPID > $MARKS/guard; (setsid sleep 60 & echo $! > $MARKS/orphan); echo ready; sleep 60")
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	pid, orphan := c.pidIn(t, "pid"), c.pidIn(t, "orphan")
	if err := syscall.Kill(c.pidIn(t, "guard"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := ch.wait(t); got != 137 {
		t.Errorf("exit status %d, want 137; it said:\n%s", got, ch.stderr.String())
	}
	if alive(pid) || alive(orphan) {
		t.Error("the command lives")
	}
}

// What nobody was left to kill, the next call of the stage kills.
func TestLiveOrphanOfALostRun(t *testing.T) {
	c := shell(t, `[ -e $MARKS/guard ] && { grep -qs '^State:.[RSD]' /proc/$(cat $MARKS/orphan)/status && exit 3; echo m > {out.model}; exit 0; }
		echo $PPID > $MARKS/guard; (setsid sleep 60 & echo $! > $MARKS/orphan); echo ready; sleep 60`)
	ch := c.start(t)
	ch.stdout.await(t, "ready")
	orphan := c.pidIn(t, "orphan")
	guard := c.pidIn(t, "guard")
	// Both at once, as when a machine's memory runs out: stopped first, so
	// that neither can settle anything.
	for _, pid := range []int{guard, ch.cmd.Process.Pid} {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	for _, pid := range []int{ch.cmd.Process.Pid, guard} {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	ch.wait(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		r, err := MarkLost(t.Context(), c.open(t), c.runs(t)[0])
		if err == nil && r.Status == stages.Lost {
			break
		}
		// The guard, whose lock it is, may be on its way out still.
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v, want it lost", r, err)
		}
	}
	if !alive(orphan) {
		t.Fatal("there is no orphan")
	}
	res, out := c.must(t)
	wantText(t, out, strconv.Itoa(orphan), "sleep")
	wantFile(t, res.Outputs["model"].Path, "m\n")
	if rs := c.runs(t); len(rs) != 2 || rs[1].Status != stages.Lost {
		t.Errorf("runs: %+v", rs)
	}
}

// A pid that another process has by now must not be signalled.
func TestSignalsKnowAReusedPID(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	st, ok := readStat(strconv.Itoa(cmd.Process.Pid))
	if !ok || st.start == 0 {
		t.Fatalf("%+v", st)
	}
	signalAll([]process{{PID: st.pid, Name: st.name, start: st.start - 1}}, syscall.SIGKILL)
	if again, ok := readStat(strconv.Itoa(st.pid)); !ok || again.dead {
		t.Fatal("it killed a process that only has the pid")
	}
	signalAll([]process{{PID: st.pid, Name: st.name, start: st.start}}, syscall.SIGKILL)
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
}

// A reader of stderr that is stuck keeps no signal and no time limit from the
// command.
func TestSignalWithStuckStderr(t *testing.T) {
	for _, why := range []string{"signal", "timeout"} {
		t.Run(why, func(t *testing.T) {
			c := shell(t, `trap ': > "$MARKS/trapped"; exit 7' TERM; : > "$MARKS/ready"; while true; do sleep 0.05; done`)
			if why == "timeout" {
				c.Timeout = 3 * time.Second
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, callArg, c.json(t))
			cmd.Stderr = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			mark := func(name string) func() bool {
				return func() bool { _, err := os.Stat(filepath.Join(c.marks(), name)); return err == nil }
			}
			ended := make(chan struct{})
			go func() {
				_ = cmd.Wait()
				close(ended)
			}()
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				<-ended
			})
			waitFor(t, "the command", mark("ready"))
			fillPipe(t, w)
			if why == "signal" {
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "the signal in the command", mark("trapped"))
			go io.Copy(io.Discard, r)
			<-ended
			if got := cmd.ProcessState.ExitCode(); got != 143 {
				t.Errorf("exit status %d, want 143", got)
			}
		})
	}
}

// The command may have ended a moment ago, and another process have its pid.
func TestSignalForWhoHasThePidNow(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap 'exit 3' HUP; trap 'exit 4' TERM; echo ready; while true; do sleep 0.05; done")
	var out output
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	out.await(t, "ready")
	kill, stopping := time.NewTimer(time.Hour), true
	defer kill.Stop()
	g := guard{command: processWith(cmd.Process.Pid), running: true}
	g.command.start++
	g.obey(guardOrder{Signal: int(syscall.SIGHUP)}, &stopping, kill)
	g.command.start--
	g.obey(guardOrder{Signal: int(syscall.SIGTERM)}, &stopping, kill)
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 4 {
		t.Errorf("exit status %d: a process that is not the command got its signal", got)
	}
}
