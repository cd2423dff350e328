package launcher

import (
	"errors"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/curi-store/curi/stages"
)

func TestWaitersTakeTheResult(t *testing.T) {
	for _, force := range []bool{false, true} {
		c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; date +%N > {out.model}")
		c.Force = force
		first := c.start(t)
		first.stdout.await(t, "started")
		rank := c
		rank.Environ = append(rank.Environ, "RANK=3")
		waiters := []*child{rank.start(t), c.start(t)}
		waiters[0].stderr.await(t, "rank 3: waiting for run train-")
		waiters[1].stderr.await(t, "waiting for run train-")
		c.mark(t, "go")
		for _, ch := range append(waiters, first) {
			if got := ch.wait(t); got != 0 {
				t.Errorf("exit status %d; it said:\n%s", got, ch.stderr.String())
			}
		}
		if rs := c.runs(t); len(rs) != 1 {
			t.Errorf("force %v: runs: %+v, want one", force, rs)
		}
	}
}

// A stage that calls itself would wait for its own end.
func TestCallInsideOfItsOwnRunIsRefused(t *testing.T) {
	c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; echo x > {out.model}")
	first := c.start(t)
	first.stdout.await(t, "started")
	inner := c
	inner.Environ = append(inner.Environ, "CURI_RUN="+c.runs(t)[0].ID)
	ch := inner.start(t)
	if got := ch.wait(t); got != exitRefused {
		t.Errorf("exit status %d, want %d", got, exitRefused)
	}
	wantText(t, ch.stderr.String(), "it would wait for itself")
	c.mark(t, "go")
	if got := first.wait(t); got != 0 {
		t.Errorf("exit status %d; it said:\n%s", got, first.stderr.String())
	}
}

func TestWaitersGetTheFailure(t *testing.T) {
	c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; exit 9")
	first := c.start(t)
	first.stdout.await(t, "started")
	waiters := []*child{c.start(t), c.start(t)}
	for _, w := range waiters {
		w.stderr.await(t, "waiting for run train-")
	}
	c.mark(t, "go")
	for _, ch := range append(waiters, first) {
		if got := ch.wait(t); got != 9 {
			t.Errorf("exit status %d, want 9; it said:\n%s", got, ch.stderr.String())
		}
	}
	if rs := c.runs(t); len(rs) != 1 {
		t.Errorf("runs: %+v, want one", rs)
	}
}

func TestWaiterGoesOnWhenTheHolderIsKilled(t *testing.T) {
	c := shell(t, "echo started; [ -e $MARKS/go ] || sleep 60; echo x > {out.model}")
	first := c.start(t)
	first.stdout.await(t, "started")
	second := c.start(t)
	second.stderr.await(t, "waiting for run train-")
	c.mark(t, "go")
	first.signal(t, syscall.SIGKILL)
	if got := second.wait(t); got != 0 {
		t.Errorf("exit status %d; it said:\n%s", got, second.stderr.String())
	}
	if rs := c.runs(t); len(rs) != 2 || rs[0].Status != stages.Succeeded || rs[1].Status != stages.Lost {
		t.Errorf("runs: %+v", rs)
	}
}

func TestWaiterCanBeInterrupted(t *testing.T) {
	c := shell(t, "echo started; while [ ! -e $MARKS/go ]; do sleep 0.05; done; echo x > {out.model}")
	first := c.start(t)
	first.stdout.await(t, "started")
	second := c.start(t)
	second.stderr.await(t, "waiting for run train-")
	second.signal(t, syscall.SIGINT)
	if got := second.wait(t); got != 130 {
		t.Errorf("exit status %d, want 130", got)
	}
	c.mark(t, "go")
	if got := first.wait(t); got != 0 {
		t.Errorf("exit status %d of the holder; it said:\n%s", got, first.stderr.String())
	}
}

func TestWaiterStopsWhenTheHolderIsSilent(t *testing.T) {
	c := shell(t, "echo started; echo $PPID > $MARKS/guard; while [ ! -e $MARKS/go ]; do sleep 0.05; done; exit 1")
	first := c.start(t)
	first.stdout.await(t, "started")
	guard := c.pidIn(t, "guard")
	for _, pid := range []int{guard, first.cmd.Process.Pid} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	before := silence
	silence = time.Second
	defer func() { silence = before }()
	_, out, err := c.run(t)
	if !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want it to stop; it said:\n%s", err, out)
	} else {
		wantText(t, err.Error(), "gave no sign of life", strconv.Itoa(first.cmd.Process.Pid))
	}
	c.mark(t, "go")
	for _, pid := range []int{guard, first.cmd.Process.Pid} {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	if got := first.wait(t); got != 1 {
		t.Errorf("exit status %d of the holder, want 1", got)
	}
}

func TestOneTaskOfSeveralNodesIsRefused(t *testing.T) {
	for _, tc := range []struct {
		command, env string
		refused      bool
	}{
		{"torchrun --nnodes 2 x.py", "SLURM_NTASKS=2", true},
		{"torchrun --nnodes=1:4 x.py", "OMPI_COMM_WORLD_SIZE=4", true},
		{"torchrun --standalone --nproc_per_node 2 x.py --nnodes 2", "SLURM_NTASKS=2", false},
		{"srun torchrun --nnodes 2 x.py", "SLURM_NTASKS=2", false},
		{"torchrun --nnodes 2 x.py", "SLURM_NTASKS=1", false},
		{"torchrun x.py", "SLURM_NTASKS=2 PET_NNODES=2", true},
		{"python x.py", "SLURM_NTASKS=2", false},
		{"torchrun --nnodes {param.n} x.py", "WORLD_SIZE=2", true},
	} {
		p := &stages.Plan{Stage: stages.Stage{Command: strings.Fields(tc.command), Params: []stages.Param{{Name: "n", Raw: "2"}}}}
		err := checkNodes(environment(strings.Fields(tc.env)), p)
		if errors.Is(err, ErrRefused) != tc.refused {
			t.Errorf("%s with %s: %v, want refused: %v", tc.command, tc.env, err, tc.refused)
		}
	}
}
