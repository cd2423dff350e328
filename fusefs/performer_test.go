//go:build linux

package fusefs_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// operation is one call, or a few, that a performer makes. Names are relative
// to the performer's directory, or to the directory open in slot Dir-1.
type operation struct {
	Who                int    `json:",omitempty"` // which of a side's processes
	Do                 string // a key of performances
	A, B               string `json:",omitempty"` // names
	Dir, DirB          int    `json:",omitempty"` // 0, or a slot and one
	Slot, Other        int    `json:",omitempty"` // open files, or a mapping and a file
	Offset, To, Length int64  `json:",omitempty"`
	Flags              int    `json:",omitempty"`
	How                int    `json:",omitempty"`
	Mode               uint32 `json:",omitempty"`
	Seed               byte   `json:",omitempty"` // of the bytes that are written
}

// outcome is what an operation came to, the same wherever files are files.
type outcome struct {
	N     int64  `json:",omitempty"`
	Errno string `json:",omitempty"`
	Data  string `json:",omitempty"`
}

const (
	slots    = 6 // files and directories that one performer has open
	mappings = 3
	nothing  = -1
)

// performer is a process that does what it is told with the files of one
// directory.
type performer struct {
	base      int // the directory
	ino       uint64
	writeback bool // there is no passthrough: some things are not tried, see difference
	open      [slots]int
	maps      [mappings][]byte
}

// performances are what a performer can do. Names with a slash at the end or
// none at all are as good as others: the kernel's answer is the outcome.
var performances = map[string]func(*performer, operation) (outcome, error){}

// perform is the main of a performer: operations come as lines of JSON on
// stdin, outcomes go to stdout.
func perform() error {
	debug.SetPanicOnFault(true) // SIGBUS is an outcome too
	p := &performer{base: nothing}
	for i := range p.open {
		p.open[i] = nothing
	}
	in := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := json.NewEncoder(os.Stdout)
	for {
		var op operation
		if err := in.Decode(&op); err != nil {
			return nil // the other end is done
		}
		if err := out.Encode(p.do(op)); err != nil {
			return err
		}
	}
}

func (p *performer) do(op operation) (o outcome) {
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(interface{ Addr() uintptr }); !ok {
				panic(v)
			}
			o = outcome{Errno: "fault"}
		}
	}()
	fn := performances[op.Do]
	if fn == nil {
		return outcome{Errno: "no such operation: " + op.Do}
	}
	o, err := fn(p, op)
	if err != nil {
		o.Errno = errnoName(err)
	}
	return o
}

func errnoName(err error) string {
	if errno, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func init() {
	performances["begin"] = (*performer).begin
	performances["end"] = (*performer).end
}

// begin makes a directory, if there is none yet, and works there.
func (p *performer) begin(op operation) (outcome, error) {
	if _, err := p.end(op); err != nil {
		return outcome{}, err
	}
	unix.Umask(0o022)
	if err := unix.Mkdir(op.A, 0o755); err != nil && err != unix.EEXIST {
		return outcome{}, err
	}
	if err := unix.Chdir(op.A); err != nil {
		return outcome{}, err
	}
	if p.base != nothing {
		unix.Close(p.base)
	}
	base, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome{}, err
	}
	var st unix.Stat_t
	err = unix.Fstat(base, &st)
	p.base, p.ino, p.writeback = base, st.Ino, op.How != 0
	return outcome{}, err
}

// end lets go of everything but the directory itself.
func (p *performer) end(operation) (outcome, error) {
	for i, b := range p.maps {
		if b != nil {
			_ = unix.Munmap(b)
		}
		p.maps[i] = nil
	}
	for i := range p.open {
		p.put(i, nothing)
	}
	return outcome{}, nil
}

// dir is the directory that a name is relative to.
func (p *performer) dir(slot int) int {
	if slot <= 0 {
		return unix.AT_FDCWD
	}
	return p.open[slot-1]
}

// put puts an open file into a slot; what was there is closed.
func (p *performer) put(slot, fd int) {
	if old := p.open[slot]; old != nothing {
		unix.Close(old)
	}
	p.open[slot] = fd
}

// fd is an open file; one of an empty slot is EBADF to the kernel.
func (p *performer) fd(slot int) int { return p.open[slot] }

// regular reports whether a slot holds a regular file: reading from a FIFO
// into another could wait.
func (p *performer) regular(slot int) bool {
	var st unix.Stat_t
	return unix.Fstat(p.open[slot], &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// direct reports whether a slot was opened with O_DIRECT, for which offsets and
// lengths are made whole blocks.
func (p *performer) direct(slot int) bool { return p.flags(slot)&unix.O_DIRECT != 0 }

// flags are those of an open file; 0 for an empty slot.
func (p *performer) flags(slot int) int {
	flags, err := unix.FcntlInt(uintptr(p.open[slot]), unix.F_GETFL, 0)
	if err != nil {
		return 0
	}
	return flags
}

const block = 4096

// buffer is memory for reading or writing: whole blocks at whole blocks for
// O_DIRECT. The caller unmaps it.
func (p *performer) buffer(op *operation) ([]byte, error) {
	if p.direct(op.Slot) {
		op.Offset = op.Offset / block * block
		op.Length = (op.Length + block - 1) / block * block
	}
	b, err := unix.Mmap(-1, 0, int(max(op.Length, 1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	return b[:op.Length], nil
}

// align makes whole blocks of what goes from or to a file opened with O_DIRECT.
func (p *performer) align(op *operation) {
	if p.direct(op.Slot) || p.direct(op.Other) {
		op.Offset, op.To, op.Length = op.Offset/block*block, op.To/block*block, op.Length/block*block
	}
}

func free(b []byte) { _ = unix.Munmap(b[:cap(b)]) }

// fill makes bytes that tell one write from another.
func fill(b []byte, seed byte) {
	for i := range b {
		b[i] = seed + byte(i*7) ^ byte(i>>8)
	}
}

// shown is bytes as an outcome shows them, in a few characters.
func shownBytes(b []byte) string {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	text := fmt.Sprintf("%d:%x", len(b), h)
	if len(b) <= 8 {
		text = fmt.Sprintf("%q", b)
	}
	return text
}
