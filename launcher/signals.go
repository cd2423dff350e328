package launcher

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// signals are those that ask curi to end. ctx ends with the first, for all
// that waits or prepares; each goes to more, for the running command.
type signals struct {
	ctx    context.Context
	cancel context.CancelFunc
	more   chan syscall.Signal
	ch     chan os.Signal
	done   chan struct{}
	first  atomic.Int32

	stoodFor atomic.Bool // one was taken for another, see standFor
}

// parentGrace is how long the end of the parent context may precede the
// signal that caused it.
const parentGrace = 200 * time.Millisecond

// catchSignals begins to take signals. One that was ignored when curi started
// stays ignored (nohup, a background job of a script).
func catchSignals(parent context.Context) *signals {
	s := &signals{more: make(chan syscall.Signal, 16), ch: make(chan os.Signal, 16), done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(parent))
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(sig) {
			signal.Notify(s.ch, sig)
		}
	}
	// A reader that went away (`| head`) must not end the run: with a handler
	// the write only fails.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go s.watch(parent)
	return s
}

func (s *signals) watch(parent context.Context) {
	ended := parent.Done()
	var late <-chan time.Time
	for {
		select {
		case sig := <-s.ch:
			s.took(sig.(syscall.Signal))
		case <-ended:
			ended = nil
			late = time.After(parentGrace)
		case <-late:
			late = nil
			if s.caught() == 0 {
				s.took(syscall.SIGTERM)
			}
		case <-s.done:
			return
		}
	}
}

func (s *signals) took(sig syscall.Signal) {
	s.first.CompareAndSwap(0, int32(sig))
	s.cancel()
	select {
	case s.more <- sig:
	default: // nobody needs the seventeenth
	}
}

// caught returns the first signal, or 0.
func (s *signals) caught() syscall.Signal { return syscall.Signal(s.first.Load()) }

func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.done)
	s.cancel()
}

// standFor takes each signal of other for one that ends the run as sig does.
func (s *signals) standFor(other <-chan os.Signal, sig syscall.Signal) {
	go func() {
		for {
			select {
			case <-other:
				s.stoodFor.Store(true)
				s.took(sig)
			case <-s.done:
				return
			}
		}
	}()
}
