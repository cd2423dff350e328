package main_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// Row 7: Ctrl-C was swallowed and the parent went on to cache.
func TestRow07InterruptReachesTheCommand(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		for _, c := range []struct {
			signal syscall.Signal
			status int
		}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
			s := newSite(t, w)
			// The output is written: only the interruption keeps it from being published.
			j := s.begin(s.execArgv("--name", "train", "--out", "model=model.ckpt", "--publish", "model=model", "--",
				"sh", "-c", `echo weights > {out.model}
					trap 'echo told; exit 0' INT TERM
					echo $$ > `+s.side+`/pid
					while :; do sleep 0.05; done`)...)
			s.eventually(j, "the command to begin", func() bool { return len(s.lines("pid")) == 1 })
			if err := j.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			o := s.finish(j)
			if o.status != c.status {
				t.Errorf("%v: want status %d, got %s", c.signal, c.status, o)
			}
			if !strings.Contains(o.stdout+o.stderr, "told") {
				t.Errorf("%v did not reach the command: %s", c.signal, o)
			}
			if pid := s.lines("pid")[0]; alive(pid) {
				t.Errorf("%v: process %s goes on", c.signal, pid)
			}
			s.wantStatus("interrupted")
			s.nothingPublished()
		}
	})
}

// Row 7 as a person does it: Ctrl-C typed at a terminal.
func TestRow07ControlC(t *testing.T) {
	s := newSite(t, byMount)
	cmd := s.command("curi", "stage", "exec", "--name", "train", "--out", "model=model.ckpt", "--publish", "model=model", "--",
		"sh", "-c", "echo weights > {out.model}; test -t 1 && echo $$ > "+s.side+"/pid; while :; do sleep 0.05; done")
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	var shown syncBuffer
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			_, _ = shown.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	s.eventually(nil, "the command to begin at a terminal", func() bool { return len(s.lines("pid")) == 1 })
	if _, err := terminal.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	terminal.Close()
	<-drained
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		t.Errorf("exit status %d, want 130; shown:\n%s", got, shown.String())
	}
	if pid := s.lines("pid")[0]; alive(pid) {
		t.Errorf("process %s goes on", pid)
	}
	s.wantStatus("interrupted")
	s.nothingPublished()
}

// Row 7 at its worst: curi itself is killed. Its command ends with it, and
// what it left is no result.
func TestRow07KilledCuriLeavesNothingRunning(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		args := s.execArgv("--name", "train", "--out", "model=model.ckpt", "--publish", "model=model", "--",
			"sh", "-c", "echo weights > {out.model}; echo $$ >> "+s.side+"/pid; test -e "+s.side+"/go || exec sleep 600")
		j := s.begin(args...)
		s.eventually(j, "the command to begin", func() bool { return len(s.lines("pid")) == 1 })
		if err := j.Process.Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		_ = j.Wait()
		s.eventually(nil, "the orphan to end", func() bool { return !alive(s.lines("pid")[0]) })
		s.nothingPublished()

		s.touch("go")
		if r := decode[result](s, s.ok(args...)); r.Cached || len(s.lines("pid")) != 2 {
			t.Errorf("the second run: %+v", r)
		}
	})
}
