package launcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// drainTime is how long the output of a finished tree may take to end. It
// ends at once, unless a process of another user still holds it. Only tests
// change it.
var drainTime = 3 * time.Second

// stdio connects the command's output with the caller's and the log. With a
// terminal as the caller's stdout the command gets a pseudo-terminal, else
// pipes; its bytes pass as they are and as they come.
type stdio struct {
	tty     bool
	command [3]*os.File // for the command; closed by started
	ends    []*os.File  // curi's ends
	readers sync.WaitGroup
	keeping atomic.Int32 // readers that wait for the disk to take their bytes
	showing atomic.Int32 // readers that wait for the caller to do so
	winch   chan os.Signal
}

// terminal returns w as the terminal that it is, or nil.
func terminal(w any) *os.File {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// newStdio prepares it. stdin is closed by started.
func newStdio(stdin *os.File, stdout, stderr io.Writer, log *keptLog) (s *stdio, err error) {
	s = &stdio{command: [3]*os.File{stdin}}
	defer func() {
		if err != nil {
			s.started()
			s.abandon()
			err = fmt.Errorf("connect the command's output: %w", err)
		}
	}()
	// Both may be one writer that takes no concurrent calls.
	var live sync.Mutex
	out := terminal(stdout)
	if out != nil {
		master, slave, err := pty.Open()
		if err != nil {
			return s, err
		}
		s.tty, s.command[1] = true, slave
		s.ends = append(s.ends, master)
		if err := rawOutput(slave); err != nil {
			return s, err
		}
		s.followSize(out, master)
		s.copy(master, stdout, &live, log)
		if terminal(stderr) != nil {
			s.command[2] = slave
			return s, nil
		}
	} else {
		if s.command[1], err = s.pipe(stdout, &live, log); err != nil {
			return s, err
		}
	}
	s.command[2], err = s.pipe(stderr, &live, log)
	return s, err
}

// pipe returns the end that the command writes to.
func (s *stdio) pipe(live io.Writer, mu *sync.Mutex, log *keptLog) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.ends = append(s.ends, r)
	s.copy(r, live, mu, log)
	return w, nil
}

// copy passes on what src says until it ends. A caller that went away
// (`| head`) does not end the run: the log goes on.
func (s *stdio) copy(src *os.File, live io.Writer, mu *sync.Mutex, log *keptLog) {
	kept := log.stream()
	s.readers.Go(func() {
		defer kept.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				// The log first: a caller may take its time (`| less`).
				s.keeping.Add(1)
				_, _ = kept.Write(buf[:n])
				s.keeping.Add(-1)
				if live != nil {
					s.showing.Add(1)
					mu.Lock()
					if _, werr := live.Write(buf[:n]); werr != nil {
						live = nil
					}
					mu.Unlock()
					s.showing.Add(-1)
				}
			}
			if err != nil && !errors.Is(err, syscall.EINTR) {
				return // EOF; EIO is how a pseudo-terminal says it
			}
		}
	})
}

// followSize keeps the size of the pseudo-terminal that of the caller's.
func (s *stdio) followSize(outer, master *os.File) {
	_ = pty.InheritSize(outer, master)
	s.winch = make(chan os.Signal, 1)
	signal.Notify(s.winch, syscall.SIGWINCH)
	go func(winch chan os.Signal) {
		for range winch {
			_ = pty.InheritSize(outer, master)
		}
	}(s.winch)
}

// started closes the command's descriptors: only the tree has them now.
func (s *stdio) started() {
	for i, f := range s.command {
		if f != nil && (i != 2 || f != s.command[1]) {
			f.Close()
		}
	}
	s.command = [3]*os.File{}
}

// drain waits for the end of the output, once the tree is gone: as long as the
// log's disk takes, and the caller to read it, unless ctx ends; else for
// drainTime.
func (s *stdio) drain(ctx context.Context) {
	ended := make(chan struct{})
	go func() { s.readers.Wait(); close(ended) }()
	for last := time.Now(); time.Since(last) < drainTime; {
		select {
		case <-ended:
			s.abandon()
			return
		case <-time.After(drainTime / 30):
		}
		if s.keeping.Load() > 0 || s.showing.Load() > 0 && ctx.Err() == nil {
			last = time.Now()
		}
	}
	s.abandon()
}

// abandon closes curi's ends.
func (s *stdio) abandon() {
	for _, f := range s.ends {
		f.Close()
	}
	s.ends = nil
	if s.winch != nil {
		signal.Stop(s.winch)
		close(s.winch)
		s.winch = nil
	}
}
