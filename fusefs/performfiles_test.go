//go:build linux

package fusefs_test

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// What is done with the contents of files.
func init() {
	for name, fn := range map[string]func(*performer, operation) (outcome, error){
		"open": (*performer).openFile, "close": (*performer).closeFile, "dup": (*performer).dup, "append": (*performer).setAppend,
		"read": (*performer).read, "pread": (*performer).read, "readv": (*performer).read,
		"write": (*performer).write, "pwrite": (*performer).write, "writev": (*performer).write,
		"lseek": (*performer).lseek, "truncate": (*performer).truncate, "ftruncate": (*performer).truncate,
		"fallocate": (*performer).fallocate, "sync": (*performer).sync, "drop": (*performer).drop,
		"copy": (*performer).copyRange, "sendfile": (*performer).sendfile, "splice": (*performer).splice,
	} {
		performances[name] = fn
	}
}

func (p *performer) openFile(op operation) (outcome, error) {
	flags := op.Flags | unix.O_CLOEXEC
	var st unix.Stat_t
	if unix.Fstatat(p.dir(op.Dir), op.A, &st, 0) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		flags |= unix.O_NONBLOCK // nobody may ever come to the other end
	}
	fd, err := unix.Openat(p.dir(op.Dir), op.A, flags, p.usable(op.Mode, unix.S_IFREG))
	if err != nil {
		return outcome{}, err
	}
	if flags&unix.O_TMPFILE == unix.O_TMPFILE {
		return outcome{}, unix.Close(fd) // see difference
	}
	p.put(op.Slot, fd)
	return outcome{N: int64(p.flags(op.Slot) &^ unix.O_LARGEFILE)}, nil
}

func (p *performer) closeFile(op operation) (outcome, error) {
	err := unix.Close(p.fd(op.Slot))
	p.open[op.Slot] = nothing
	return outcome{}, err
}

func (p *performer) dup(op operation) (outcome, error) {
	fd, err := unix.FcntlInt(uintptr(p.fd(op.Slot)), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		p.put(op.Other, fd)
	}
	return outcome{}, err
}

// setAppend turns O_APPEND on or off.
func (p *performer) setAppend(op operation) (outcome, error) {
	_, err := unix.FcntlInt(uintptr(p.fd(op.Slot)), unix.F_SETFL, p.flags(op.Slot)&^unix.O_APPEND|op.How&unix.O_APPEND)
	return outcome{}, err
}

// vectors splits memory for readv and writev.
func vectors(b []byte) [][]byte {
	if len(b) < 3 {
		return [][]byte{b}
	}
	return [][]byte{b[:len(b)/3], b[len(b)/3 : len(b)/3+1], b[len(b)/3+1:]}
}

func (p *performer) read(op operation) (outcome, error) {
	b, err := p.buffer(&op)
	if err != nil {
		return outcome{}, err
	}
	defer free(b)
	if p.partBlock(op.Slot) {
		return outcome{Data: "not tried"}, nil
	}
	var n int
	switch fd := p.fd(op.Slot); op.Do {
	case "read":
		n, err = unix.Read(fd, b)
	case "pread":
		n, err = unix.Pread(fd, b, op.Offset)
	case "readv":
		n, err = unix.Preadv(fd, vectors(b), op.Offset)
	}
	n = max(n, 0)
	return outcome{N: int64(n), Data: shownBytes(b[:n])}, err
}

func (p *performer) write(op operation) (outcome, error) {
	b, err := p.buffer(&op)
	if err != nil {
		return outcome{}, err
	}
	defer free(b)
	fill(b, op.Seed)
	if p.partBlock(op.Slot) {
		return outcome{Data: "not tried"}, nil
	}
	var n int
	switch fd := p.fd(op.Slot); op.Do {
	case "write":
		n, err = unix.Write(fd, b)
	case "pwrite":
		n, err = unix.Pwrite(fd, b, op.Offset)
	case "writev":
		n, err = unix.Pwritev(fd, vectors(b), op.Offset)
	}
	return outcome{N: int64(max(n, 0))}, err
}

// partBlock reports whether reading or writing with O_DIRECT would begin in the
// middle of a block, which without passthrough is no error.
func (p *performer) partBlock(slot int) bool {
	if !p.writeback || !p.direct(slot) {
		return false
	}
	var st unix.Stat_t
	pos, err := unix.Seek(p.fd(slot), 0, unix.SEEK_CUR)
	if err != nil || unix.Fstat(p.fd(slot), &st) != nil {
		return false
	}
	return pos%block != 0 || p.flags(slot)&unix.O_APPEND != 0 && st.Size%block != 0
}

func (p *performer) lseek(op operation) (outcome, error) {
	if !p.regular(op.Slot) {
		return outcome{Data: "not tried"}, nil // the offsets of directories are the filesystem's business
	}
	if p.direct(op.Slot) {
		op.Offset = op.Offset / block * block
	}
	if op.How != unix.SEEK_DATA && op.How != unix.SEEK_HOLE {
		n, err := unix.Seek(p.fd(op.Slot), op.Offset, op.How)
		return outcome{N: max(n, 0)}, err
	}
	// What is no hole is found in another way without passthrough, see
	// difference: it must not tell where the next write goes.
	var st unix.Stat_t
	if err := unix.Fstat(p.fd(op.Slot), &st); err != nil {
		return outcome{}, err
	}
	here, err := unix.Seek(p.fd(op.Slot), 0, unix.SEEK_CUR)
	if err != nil {
		return outcome{}, err
	}
	n, err := unix.Seek(p.fd(op.Slot), op.Offset, op.How)
	if _, err := unix.Seek(p.fd(op.Slot), here, unix.SEEK_SET); err != nil {
		return outcome{}, err
	}
	return outcome{N: max(n, 0), Data: fmt.Sprint(op.Offset, st.Size)}, err
}

func (p *performer) truncate(op operation) (outcome, error) {
	if op.Do == "truncate" {
		if p.writeback && p.target(op).Size == op.Length {
			op.Length++ // what stays as long as it is does not get another time
		}
		return outcome{}, unix.Truncate(op.A, op.Length)
	}
	return outcome{}, unix.Ftruncate(p.fd(op.Slot), op.Length)
}

func (p *performer) fallocate(op operation) (outcome, error) {
	return outcome{}, unix.Fallocate(p.fd(op.Slot), uint32(op.How), op.Offset, op.Length)
}

func (p *performer) sync(op operation) (outcome, error) {
	switch fd := p.fd(op.Slot); op.How {
	case 0:
		return outcome{}, unix.Fsync(fd)
	case 1:
		return outcome{}, unix.Fdatasync(fd)
	case 2:
		return outcome{}, unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	default:
		return outcome{}, unix.Syncfs(fd)
	}
}

// drop takes a file out of the page cache as far as it is clean.
func (p *performer) drop(op operation) (outcome, error) {
	return outcome{}, unix.Fadvise(p.fd(op.Slot), 0, 0, unix.FADV_DONTNEED)
}

// copies reports whether an operation copies from one regular file to another;
// without passthrough one with O_DIRECT takes any part of a block.
func (p *performer) copies(op operation) bool {
	return p.regular(op.Slot) && p.regular(op.Other) && !(p.writeback && p.direct(op.Other))
}

// copyRange copies by copy_file_range(2), to its end or an error.
func (p *performer) copyRange(op operation) (o outcome, err error) {
	if !p.copies(op) {
		return outcome{Data: "not tried"}, nil
	}
	p.align(&op)
	for from, to := op.Offset, op.To; o.N < op.Length; {
		n, err := unix.CopyFileRange(p.fd(op.Slot), &from, p.fd(op.Other), &to, int(op.Length-o.N), 0)
		if err != nil || n == 0 {
			return o, err
		}
		o.N += int64(n)
	}
	return o, nil
}

func (p *performer) sendfile(op operation) (o outcome, err error) {
	if !p.copies(op) {
		return outcome{Data: "not tried"}, nil
	}
	p.align(&op)
	for from := op.Offset; o.N < op.Length; {
		n, err := unix.Sendfile(p.fd(op.Other), p.fd(op.Slot), &from, int(op.Length-o.N))
		if err != nil || n == 0 {
			return o, err
		}
		o.N += int64(n)
	}
	return o, nil
}

// splice copies what a pipe holds at once from one file to another.
func (p *performer) splice(op operation) (outcome, error) {
	if !p.copies(op) {
		return outcome{Data: "not tried"}, nil
	}
	p.align(&op)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return outcome{}, err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	from, to := op.Offset, op.To
	in, err := unix.Splice(p.fd(op.Slot), &from, pipe[1], nil, int(min(op.Length, 16*block)), 0)
	if err != nil || in == 0 {
		return outcome{}, err
	}
	o := outcome{}
	for o.N < in {
		n, err := unix.Splice(pipe[0], nil, p.fd(op.Other), &to, int(in-o.N), 0)
		if err != nil || n == 0 {
			return o, err
		}
		o.N += n
	}
	return o, nil
}

// What is done with mappings.
func init() {
	for name, fn := range map[string]func(*performer, operation) (outcome, error){
		"mmap": (*performer).mmap, "munmap": (*performer).munmap, "msync": (*performer).msync,
		"load": (*performer).load, "store": (*performer).store,
		"write mapped": (*performer).writeMapped, "read mapped": (*performer).readMapped,
	} {
		performances[name] = fn
	}
}

func (p *performer) mmap(op operation) (outcome, error) {
	b, err := unix.Mmap(p.fd(op.Other), op.Offset/block*block, int(op.Length), int(op.Mode), op.How)
	if err != nil {
		return outcome{}, err
	}
	if old := p.maps[op.Slot]; old != nil {
		_ = unix.Munmap(old)
	}
	p.maps[op.Slot] = b
	return outcome{}, nil
}

func (p *performer) munmap(op operation) (outcome, error) {
	b := p.maps[op.Slot]
	p.maps[op.Slot] = nil
	if b == nil {
		return outcome{}, nil
	}
	return outcome{}, unix.Munmap(b)
}

// mapped is a part of a mapping, nil where there is none.
func (p *performer) mapped(op operation) []byte {
	b := p.maps[op.Slot]
	off := min(op.Offset, int64(len(b)))
	return b[off:min(off+op.Length, int64(len(b)))]
}

func (p *performer) msync(op operation) (outcome, error) {
	if b := p.maps[op.Slot]; b != nil {
		return outcome{}, unix.Msync(b, op.How)
	}
	return outcome{}, nil
}

func (p *performer) load(op operation) (outcome, error) {
	b := make([]byte, len(p.mapped(op)))
	copy(b, p.mapped(op))
	return outcome{Data: shownBytes(b)}, nil
}

func (p *performer) store(op operation) (outcome, error) {
	b := p.mapped(op)
	fill(b, op.Seed)
	return outcome{N: int64(len(b))}, nil
}

// writeMapped writes a file from a mapping, perhaps of the same file.
func (p *performer) writeMapped(op operation) (outcome, error) {
	p.align(&op)
	if p.partBlock(op.Other) {
		return outcome{Data: "not tried"}, nil
	}
	// A write that fails for want of its source makes a file longer on ext4.
	if _, err := p.load(op); err != nil {
		return outcome{}, err
	}
	n, err := unix.Pwrite(p.fd(op.Other), p.mapped(op), op.To)
	return outcome{N: int64(max(n, 0))}, err
}

// readMapped reads a file into a mapping, perhaps of the same file.
func (p *performer) readMapped(op operation) (outcome, error) {
	p.align(&op)
	n, err := unix.Pread(p.fd(op.Other), p.mapped(op), op.To)
	return outcome{N: int64(max(n, 0))}, err
}
