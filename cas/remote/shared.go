package remote

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/cas"
)

// What is read of objects goes from the helper to the program that started it
// through memory that both have, where the system can do that: a pipe would
// cost two copies of every byte, and as many changes of turn as it has room
// for. The memory is cut into slots, one for each request under way. The helper
// writes into a slot until it answers, the program looks at it from then on; of
// a read in pieces each has a place in the slot that the two use in turn. A slot
// whose request was called off is given to nobody else before the helper
// answered.
const (
	slotSize  = segmentSize
	slots     = 8
	slotLeast = 64 << 10 // bytes; less goes through the pipe

	// sharedFD is where the helper finds the memory.
	sharedFD = 3
)

// shared is the program's side. Slots may be taken and given back by several
// goroutines at once.
type shared struct {
	f   *os.File
	mem []byte // cannot be written to

	mu    sync.Mutex
	free  []int // the one that was used last is taken first
	ended bool
	idle  *time.Timer
}

// sharedIdle is how long the memory is kept that nobody uses.
const sharedIdle = 5 * time.Second

func newShared() (*shared, error) {
	f, err := sharedFile(slots * slotSize)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, slots*slotSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &shared{f: f, mem: mem}
	for i := range slots {
		s.free = append(s.free, i)
	}
	s.idle = time.AfterFunc(sharedIdle, s.drop)
	s.idle.Stop()
	return s, nil
}

// take takes a slot for n bytes, if there is one.
func (s *shared) take(n int) (slot int, ok bool) {
	if s == nil || n < slotLeast || n > slotSize {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := len(s.free) - 1
	if k < 0 || s.ended {
		return 0, false
	}
	slot, s.free = s.free[k], s.free[:k]
	s.idle.Stop()
	return slot, true
}

// bytes are the first n of a slot.
func (s *shared) bytes(slot, n int) []byte {
	return s.mem[slot*slotSize:][:n:slotSize]
}

// give gives a slot back, at which nobody looks any more.
func (s *shared) give(slot int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, slot)
	switch {
	case len(s.free) < slots:
	case s.ended:
		s.unmap()
	default:
		s.idle.Reset(sharedIdle)
	}
}

// drop gives the memory back to the system, which makes it anew when it is used.
func (s *shared) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) == slots && !s.ended {
		_ = punch(s.f, slots*slotSize)
	}
}

// end unmaps the memory once the last slot is given back. Only after the helper
// is gone.
func (s *shared) end() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if len(s.free) == slots {
		s.unmap()
	}
}

func (s *shared) unmap() {
	s.idle.Stop()
	_ = unix.Munmap(s.mem)
	s.mem = nil
	s.f.Close()
}

// mapShared is the helper's side.
func mapShared(size int64) ([]byte, error) {
	if size != slots*slotSize || !sealed(sharedFD, size) {
		return nil, fmt.Errorf("memory of %d bytes is not shared: %w", size, cas.ErrInvalid)
	}
	mem, err := unix.Mmap(sharedFD, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the shared memory: %w", err)
	}
	_ = syscall.Close(sharedFD)
	return mem, nil
}
