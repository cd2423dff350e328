package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
)

// helperBucket is a bucket that another process speaks to. It ends with its
// standard input, so with this process, however that ends.
type helperBucket struct {
	*helperConn
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{} // closed when the process is gone
}

// openHelper starts a helper for the bucket at a URL.
func openHelper(ctx context.Context, program, url string) (Bucket, error) {
	cmd := exec.Command(program)
	// What a terminal sends to the program that uses it is not for the helper:
	// requests that are under way when it ends in order have to end too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said := &lastWords{}
	cmd.Stderr = said
	cmd.WaitDelay = 2 * time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	mem, merr := newShared()
	if merr == nil {
		cmd.ExtraFiles = []*os.File{mem.f} // sharedFD
	}
	if err = cmd.Start(); err != nil {
		mem.end()
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("object stores need the program curi-bucket, which is neither beside curi nor in PATH; install it: %w", cas.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	for _, pipe := range []any{stdin, stdout} {
		if f, ok := pipe.(*os.File); ok {
			widen(f)
		}
	}
	h := &helperBucket{newHelperConn(stdin), cmd, stdin, make(chan struct{})}
	go func() {
		defer close(h.ended)
		err := h.read(stdout)
		stdin.Close()
		if werr := cmd.Wait(); errors.Is(err, io.EOF) {
			err = werr
		}
		if text := said.String(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		h.broken(&helperEnded{fmt.Errorf("%s ended: %w", program, err)})
	}()
	if _, err := h.ask(ctx, askOpen, []byte(url)); err != nil {
		h.Close()
		return nil, err
	}
	if mem != nil {
		// Where that cannot be, it is slower.
		if _, err := h.ask(ctx, askShare, appendNums(nil, int64(len(mem.mem)))); err == nil {
			h.share(mem)
		} else {
			mem.end()
		}
	}
	return h, nil
}

// helperEnded is the error of all requests once the helper is gone by itself.
type helperEnded struct{ error }

func (e *helperEnded) Unwrap() error { return e.error }

// Close ends the helper, and waits until it is gone.
func (h *helperBucket) Close() error {
	h.broken(errors.New("closed"))
	h.stdin.Close()
	select {
	case <-h.ended:
	case <-time.After(5 * time.Second):
		_ = h.cmd.Process.Kill() // it hangs
		<-h.ended
	}
	return nil
}

// lastWords keeps the first line of what a helper says on standard error,
// where it says something only if it fails.
type lastWords struct {
	mu sync.Mutex
	b  []byte
}

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p[:min(len(p), 400-min(400, len(l.b)))]...)
	return len(p), nil
}

func (l *lastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, _, _ := strings.Cut(strings.TrimSpace(string(l.b)), "\n")
	return strings.TrimSpace(line)
}

// helperConn is the asking side of the frames.
type helperConn struct {
	out chan message
	mem *shared // nil: there is none

	mu    sync.Mutex
	next  uint32
	calls map[uint32]chan frame
	late  map[uint32]int // slots of calls that ended before they were answered
	gone  chan struct{}  // closed with err set
	err   error
}

type message struct {
	id   uint32
	kind byte
	body [][]byte
}

func newHelperConn(w io.Writer) *helperConn {
	c := &helperConn{out: make(chan message), calls: map[uint32]chan frame{}, late: map[uint32]int{}, gone: make(chan struct{})}
	// One goroutine writes, so that nobody waits longer than he wants to for a
	// helper that hangs.
	go func() {
		for {
			select {
			case m := <-c.out:
				if err := writeFrame(w, m.id, m.kind, m.body...); err != nil {
					return // reading tells why
				}
			case <-c.gone:
				return
			}
		}
	}()
	return c
}

// read hands out answers until there are no more.
func (c *helperConn) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		f, err := readFrame(in)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if ch := c.calls[f.id]; ch != nil {
			select {
			case ch <- f:
			default: // more than was asked for
			}
		}
		slot, late := c.late[f.id]
		if late = late && f.kind != saidMore; late {
			delete(c.late, f.id)
		}
		c.mu.Unlock()
		if late {
			c.mem.give(slot)
		}
	}
}

// broken fails all calls, those to come too.
func (c *helperConn) broken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.gone)
		for _, slot := range c.late {
			c.mem.give(slot)
		}
		clear(c.late)
		c.mem.end() // no slot is taken again, whoever writes into it still
	}
}

// share has what is read come through memory.
func (c *helperConn) share(mem *shared) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mem = mem; c.err != nil {
		mem.end()
	}
}

func (c *helperConn) send(ctx context.Context, id uint32, kind byte, body ...[]byte) error {
	select {
	case c.out <- message{id, kind, body}:
		return nil
	case <-c.gone:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is a request under way.
type call struct {
	c      *helperConn
	id     uint32
	answer chan frame
	done   bool
}

func (c *helperConn) begin(ctx context.Context, kind byte, body ...[]byte) (*call, error) {
	return c.beginMany(ctx, 1, kind, body...)
}

// beginMany is begin of what may be answered so often at once.
func (c *helperConn) beginMany(ctx context.Context, answers int, kind byte, body ...[]byte) (*call, error) {
	c.mu.Lock()
	c.next++
	k := &call{c: c, id: c.next, answer: make(chan frame, answers)}
	c.calls[k.id] = k.answer
	c.mu.Unlock()
	if err := c.send(ctx, k.id, kind, body...); err != nil {
		k.done = true
		k.end()
		return nil, err
	}
	return k, nil
}

// wait returns the next answer.
func (k *call) wait(ctx context.Context) (frame, error) {
	select {
	case f := <-k.answer:
		k.done = f.kind != saidMore
		return f, f.err()
	case <-k.c.gone:
		k.done = true
		return frame{}, k.c.err
	case <-ctx.Done():
		return frame{}, ctx.Err()
	}
}

// end forgets the call; one that has no answer yet is called off.
func (k *call) end() {
	k.c.mu.Lock()
	delete(k.c.calls, k.id)
	k.c.mu.Unlock()
	if !k.done {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = k.c.send(ctx, k.id, askCancel)
	}
}

// ask makes a request that has one answer, and returns its body. The parts of
// the request may be read until the helper has them, even if ctx ends before.
func (c *helperConn) ask(ctx context.Context, kind byte, body ...[]byte) ([]byte, error) {
	k, err := c.begin(ctx, kind, body...)
	if err != nil {
		return nil, err
	}
	defer k.end()
	f, err := k.wait(ctx)
	return f.body, err
}

func (c *helperConn) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	l, err := c.lend(ctx, key, off, len(p))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	n := copy(p, l.b)
	l.back()
	return n, err
}

func (c *helperConn) Stat(ctx context.Context, key string) (Object, error) {
	if err := CheckKey(key); err != nil {
		return Object{}, err
	}
	b, err := c.ask(ctx, askStat, appendText(nil, key))
	if err != nil {
		return Object{}, err
	}
	d := &decoder{b: b}
	o := d.object()
	return o, d.end()
}

func (c *helperConn) Put(ctx context.Context, key string, data []byte) error {
	return c.put(ctx, askPut, key, data)
}

func (c *helperConn) PutNew(ctx context.Context, key string, data []byte) error {
	return c.put(ctx, askNew, key, data)
}

func (c *helperConn) put(ctx context.Context, kind byte, key string, data []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(data) > maxPack {
		return fmt.Errorf("object %s of %d bytes: at most %d can be written: %w", key, len(data), maxPack, cas.ErrInvalid)
	}
	_, err := c.ask(ctx, kind, appendText(nil, key), data)
	return err
}

func (c *helperConn) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	_, err := c.ask(ctx, askDelete, appendText(nil, key))
	return err
}

func (c *helperConn) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		k, err := c.begin(ctx, askList, appendText(appendText(nil, prefix), after))
		if err != nil {
			yield(Object{}, err)
			return
		}
		defer k.end()
		for {
			f, err := k.wait(ctx)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for d := (&decoder{b: f.body}); len(d.b) > 0 || d.err != nil; {
				o := d.object()
				if d.err != nil {
					yield(Object{}, d.end())
					return
				}
				if !yield(o, nil) {
					return
				}
			}
			if f.kind == saidOK {
				return
			}
			if err := c.send(ctx, k.id, askMore); err != nil {
				yield(Object{}, err)
				return
			}
		}
	}
}
