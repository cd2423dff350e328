//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// On a disk no signal but one that ends the process ends a read: programs in C
// do not expect it, and a page that is not read by a fault ends the process
// with SIGBUS. Nodes are not told of interrupts ([watched]). One that waits for
// a remote asks here for a context that ends when the process that waits is
// being killed: without, it could not be killed before the answer.
//
// The context of a request has nothing but the channel of its interrupt that
// would lead to it, so each request gets a channel of its own in its place,
// which never closes and by which the true one is found.
type interrupts struct {
	used  atomic.Bool // some node may ask
	spare sync.Pool
	slots sync.Map // by the channel in place of the true one
}

type interruptSlot struct {
	stand <-chan struct{}
	true  atomic.Pointer[<-chan struct{}]
}

// hide returns what a request gets in place of the channel of its interrupt,
// until done is called.
func (i *interrupts) hide(interrupt <-chan struct{}) (stand <-chan struct{}, done func()) {
	if !i.used.Load() || interrupt == nil {
		return never, func() {}
	}
	s, _ := i.spare.Get().(*interruptSlot)
	if s == nil {
		s = &interruptSlot{stand: make(chan struct{})}
		i.slots.Store(s.stand, s)
	}
	s.true.Store(&interrupt)
	return s.stand, func() {
		s.true.Store(nil)
		i.spare.Put(s)
	}
}

// killedEvery is how often a process that got a signal is looked at: the kernel
// tells of the first signal only, which may not be the one that kills it.
const killedEvery = 50 * time.Millisecond

// untilKilled returns a context for a request that ends when the process that
// waits for its answer is being killed, or this server ends. done gives it up.
func (f *filesystem) untilKilled(ctx context.Context) (_ context.Context, done func()) {
	sub, cancel := context.WithCancel(f.ctx)
	slot, ok := f.interrupts.slots.Load(ctx.Done())
	caller, known := fuse.FromContext(ctx)
	if !ok || !known {
		return sub, cancel
	}
	interrupt := slot.(*interruptSlot).true.Load()
	if interrupt == nil {
		return sub, cancel
	}
	go func() {
		select {
		case <-*interrupt:
		case <-sub.Done():
			return
		}
		t := time.NewTicker(killedEvery)
		defer t.Stop()
		for !isKilled(caller.Pid) {
			select {
			case <-t.C:
			case <-sub.Done():
				return
			}
		}
		cancel()
	}()
	return sub, cancel
}

// isKilled reports whether a signal that ends the thread's process waits for
// it. The kernel turns each such signal into SIGKILL for all of its threads.
func isKilled(thread uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", thread))
	if err != nil {
		return false // of another pid namespace, perhaps
	}
	for line := range bytes.Lines(b) {
		for _, field := range []string{"SigPnd:", "ShdPnd:"} {
			if text, ok := bytes.CutPrefix(line, []byte(field)); ok {
				set, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 16, 64)
				if err == nil && set&(1<<(unix.SIGKILL-1)) != 0 {
					return true
				}
			}
		}
	}
	return false
}
