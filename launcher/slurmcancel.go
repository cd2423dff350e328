package launcher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/stages"
)

// signal takes a signal to the one who follows; a result ends that.
func (f *follower) signal(ctx context.Context, sig syscall.Signal) *Result {
	if sig != syscall.SIGINT || !f.owns {
		f.say("job %s goes on; curi attach %s shows it again, curi cancel %s ends it", f.job.ID, f.id, f.id)
		res := f.result(128 + int(sig))
		res.Job = f.job.ID
		return res
	}
	if f.interrupts > 0 && time.Since(f.lastInt) < secondInt {
		return nil
	}
	f.interrupts++
	f.lastInt = time.Now()
	switch f.interrupts {
	case 1:
		if f.interrupt(ctx, 1) {
			f.warn("interrupted: SIGINT to the command of %s, which has %s to end; Ctrl-C again kills it", f.whole(), f.o.Grace)
		}
	case 2:
		if f.interrupt(ctx, 2) {
			f.warn("interrupted again: %s is cancelled; Ctrl-C again waits no longer for its end", f.whole())
		}
	default:
		res := f.result(128 + int(sig))
		res.Job = f.job.ID
		return res
	}
	f.askEvery, f.asked = askFirst, time.Time{}
	return nil
}

// interrupt passes the level-th Ctrl-C on, and reports whether it was this
// follower that did: those of an array's tasks all get it.
func (f *follower) interrupt(ctx context.Context, level int) bool {
	var err error
	did := true
	switch {
	case f.array != nil:
		did, err = f.array.interrupt(ctx, f.env, level)
	case level == 1:
		err = interruptJob(ctx, f.env, f.job.ID)
	default:
		_, err = slurmctl(ctx, f.env, "", "scancel", f.job.ID)
	}
	if err != nil {
		f.warn("%s", oneLine(err))
	}
	return did
}

// whole is what Ctrl-C ends.
func (f *follower) whole() string {
	if f.array != nil {
		return "each task of job array " + f.array.id
	}
	return "job " + f.job.ID
}

// interruptJob ends a job as Ctrl-C ends a local run: one that waits is
// cancelled; in one that runs, the command alone gets SIGINT, and what it
// wrote is kept and recorded before the job ends. Of an array that is true of
// each task.
func interruptJob(ctx context.Context, env environment, id string) error {
	// Told to look at states, scancel takes a waiting task for all that wait.
	cancel := []string{"scancel", "--quiet", "--state=PENDING", id}
	if array, task, ok := strings.Cut(id, "_"); ok {
		cancel = []string{"scancel", "--quiet", id}
		n, _ := strconv.Atoi(task)
		out, err := slurmctl(ctx, env, "", "scontrol", "--oneliner", "show", "job", array)
		if err != nil {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
		if j, _ := parseSlurmJob(slurmRecord(out, stages.Job{Array: array, Task: n})); j.state != "PENDING" {
			cancel = nil
		}
	}
	if cancel != nil {
		if err := scancel(ctx, env, cancel...); err != nil {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
	}
	if err := scancel(ctx, env, "scancel", "--quiet", "--state=RUNNING", "--batch", "--signal=INT", id); err != nil {
		return fmt.Errorf("interrupt job %s: %w", id, err)
	}
	return nil
}

// cancelWaiting takes those tasks of an array out of the queue that wait in it.
func cancelWaiting(ctx context.Context, env environment, array string) error {
	return scancel(ctx, env, "scancel", "--quiet", "--state=PENDING", array)
}

// scancel calls it; that there was nothing to cancel, which it fails of without
// a word, is no error.
func scancel(ctx context.Context, env environment, argv ...string) error {
	var nothing *slurmError
	if _, err := slurmctl(ctx, env, "", argv...); err != nil && !(errors.As(err, &nothing) && nothing.says == "") {
		return err
	}
	return nil
}
