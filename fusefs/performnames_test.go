//go:build linux

package fusefs_test

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What is done with names, attributes and locks.
func init() {
	for name, fn := range map[string]func(*performer, operation) (outcome, error){
		"rename": (*performer).rename, "link": (*performer).link, "link open": (*performer).linkOpen, "symlink": (*performer).symlink,
		"unlink": (*performer).unlink, "mkdir": (*performer).mkdir, "mknod": (*performer).mknod, "readlink": (*performer).readlink,
		"stat": (*performer).stat, "fstat": (*performer).fstat, "access": (*performer).access, "statfs": (*performer).statfs,
		"chmod": (*performer).chmod, "chown": (*performer).chown, "utimes": (*performer).utimes, "umask": (*performer).umask,
		"setxattr": (*performer).setxattr, "getxattr": (*performer).getxattr, "listxattr": (*performer).listxattr,
		"flock": (*performer).flock, "lock": (*performer).lock,
	} {
		performances[name] = fn
	}
}

func (p *performer) rename(op operation) (outcome, error) {
	return outcome{}, unix.Renameat2(p.dir(op.Dir), op.A, p.dir(op.DirB), op.B, uint(op.Flags))
}

func (p *performer) link(op operation) (outcome, error) {
	return outcome{}, unix.Linkat(p.dir(op.Dir), op.A, p.dir(op.DirB), op.B, op.Flags)
}

// linkOpen gives an open file a name.
func (p *performer) linkOpen(op operation) (outcome, error) {
	if op.How == 0 {
		return outcome{}, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", p.fd(op.Slot)), p.dir(op.Dir), op.A, unix.AT_SYMLINK_FOLLOW)
	}
	return outcome{}, unix.Linkat(p.fd(op.Slot), "", p.dir(op.Dir), op.A, unix.AT_EMPTY_PATH)
}

func (p *performer) symlink(op operation) (outcome, error) {
	return outcome{}, unix.Symlinkat(op.B, p.dir(op.Dir), op.A)
}

func (p *performer) unlink(op operation) (outcome, error) {
	return outcome{}, unix.Unlinkat(p.dir(op.Dir), op.A, op.Flags)
}

func (p *performer) mkdir(op operation) (outcome, error) {
	return outcome{}, unix.Mkdirat(p.dir(op.Dir), op.A, op.Mode)
}

func (p *performer) mknod(op operation) (outcome, error) {
	return outcome{}, unix.Mknodat(p.dir(op.Dir), op.A, p.usable(op.Mode, op.Mode&unix.S_IFMT), 0)
}

func (p *performer) readlink(op operation) (outcome, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dir(op.Dir), op.A, b)
	return outcome{Data: string(b[:max(n, 0)])}, err
}

// attributes shows what stat(2) says that is the same on each filesystem.
func attributes(st *unix.Stat_t) string {
	size := fmt.Sprint(st.Size)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = "-" // how a directory is kept is the filesystem's business
	}
	return fmt.Sprintf("%06o links %d size %s owner %d:%d", st.Mode, st.Nlink, size, st.Uid, st.Gid)
}

func (p *performer) stat(op operation) (outcome, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir(op.Dir), op.A, &st, op.Flags); err != nil {
		return outcome{}, err
	}
	return outcome{Data: attributes(&st)}, nil
}

func (p *performer) fstat(op operation) (outcome, error) {
	var st unix.Statx_t
	err := unix.Statx(p.fd(op.Slot), "", unix.AT_EMPTY_PATH|op.Flags, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return outcome{}, err
	}
	var plain unix.Stat_t
	if err := unix.Fstat(p.fd(op.Slot), &plain); err != nil {
		return outcome{}, err
	}
	if int64(st.Size) != plain.Size || uint32(st.Mode) != plain.Mode || uint64(st.Nlink) != uint64(plain.Nlink) {
		return outcome{Data: "statx and fstat differ"}, nil
	}
	return outcome{Data: attributes(&plain)}, nil
}

func (p *performer) access(op operation) (outcome, error) {
	return outcome{}, unix.Faccessat2(p.dir(op.Dir), op.A, op.Mode, op.Flags)
}

func (p *performer) statfs(op operation) (outcome, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(p.base, &st); err != nil {
		return outcome{}, err
	}
	if st.Bavail > st.Bfree || st.Bfree > st.Blocks || st.Ffree > st.Files {
		return outcome{Data: fmt.Sprintf("%+v", st)}, nil
	}
	return outcome{Data: fmt.Sprint(st.Bsize, st.Frsize, st.Blocks, st.Files, st.Namelen)}, nil
}

func (p *performer) chmod(op operation) (outcome, error) {
	st := p.target(op)
	if st.Ino == p.ino {
		return outcome{Data: "not tried"}, nil // there would be nothing to see
	}
	op.Mode = p.usable(op.Mode, st.Mode&unix.S_IFMT)
	if op.A == "" {
		return outcome{}, unix.Fchmod(p.fd(op.Slot), op.Mode)
	}
	return outcome{}, unix.Fchmodat(p.dir(op.Dir), op.A, op.Mode, 0)
}

// usable is a mode that leaves its owner some rights where nobody but the
// server checks them: opening a FIFO does not ask it, a directory that may not
// be searched hides open files from it, and what is written to a file that may
// not be read gets no new time.
func (p *performer) usable(mode, kind uint32) uint32 {
	switch {
	case !p.writeback:
		return mode
	case kind == unix.S_IFDIR:
		return mode | 0o100
	case kind == unix.S_IFIFO, kind == unix.S_IFSOCK:
		return mode | 0o600
	}
	return mode | 0o400
}

// target is what an operation is about, all zero if there is no such thing.
func (p *performer) target(op operation) (st unix.Stat_t) {
	if op.A == "" {
		_ = unix.Fstat(p.fd(op.Slot), &st)
	} else {
		_ = unix.Fstatat(p.dir(op.Dir), op.A, &st, 0)
	}
	return st
}

// chown gives to oneself, or changes nothing (-1).
func (p *performer) chown(op operation) (outcome, error) {
	uid, gid := unix.Geteuid(), unix.Getegid()
	if op.How&1 != 0 {
		uid = -1
	}
	if op.How&2 != 0 {
		gid = -1
	}
	if op.A == "" {
		return outcome{}, unix.Fchown(p.fd(op.Slot), uid, gid)
	}
	return outcome{}, unix.Fchownat(p.dir(op.Dir), op.A, uid, gid, op.Flags)
}

// utimes sets times of 1973 or later, to the nanosecond, or now. The outcome
// shows those that are exact.
func (p *performer) utimes(op operation) (outcome, error) {
	ts := make([]unix.Timespec, 2)
	for i := range ts {
		switch op.How >> (2 * i) & 3 {
		case 0:
			ts[i].Nsec = unix.UTIME_OMIT
		case 1:
			ts[i].Nsec = unix.UTIME_NOW
		default:
			ts[i] = unix.Timespec{Sec: 1e8 + op.Offset + int64(i), Nsec: 123456789 + op.Length}
		}
	}
	fd := p.dir(op.Dir)
	if op.A == "" {
		fd, op.Flags = p.fd(op.Slot), unix.AT_EMPTY_PATH
	}
	if err := unix.UtimesNanoAt(fd, op.A, ts, op.Flags); err != nil {
		return outcome{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, op.A, &st, op.Flags); err != nil {
		return outcome{}, err
	}
	if mtime(&st) == 0 {
		return outcome{}, nil
	}
	return outcome{Data: fmt.Sprint(exactTime(st.Atim, op.How&3 == 0), exactTime(st.Mtim, false))}, nil
}

// exactTime shows a time that somebody set; what the clock said differs from
// one directory to the other.
func exactTime(ts unix.Timespec, hidden bool) string {
	if hidden || ts.Sec > 1e9 {
		return "-"
	}
	return fmt.Sprintf("%d.%09d", ts.Sec, ts.Nsec)
}

func (p *performer) umask(op operation) (outcome, error) {
	unix.Umask(int(op.Mode & 0o777))
	return outcome{}, nil
}

// Attributes are those of a name, followed or not, or of an open file.

func (p *performer) setxattr(op operation) (outcome, error) {
	value := make([]byte, op.Length)
	fill(value, op.Seed)
	switch {
	case op.A == "" && op.How < 0:
		return outcome{}, unix.Fremovexattr(p.fd(op.Slot), op.B)
	case op.A == "":
		return outcome{}, unix.Fsetxattr(p.fd(op.Slot), op.B, value, op.How)
	case op.Flags != 0 && op.How < 0:
		return outcome{}, unix.Lremovexattr(op.A, op.B)
	case op.Flags != 0:
		return outcome{}, unix.Lsetxattr(op.A, op.B, value, op.How)
	case op.How < 0:
		return outcome{}, unix.Removexattr(op.A, op.B)
	}
	return outcome{}, unix.Setxattr(op.A, op.B, value, op.How)
}

func (p *performer) getxattr(op operation) (outcome, error) {
	value := make([]byte, op.Length)
	var n int
	var err error
	switch {
	case op.A == "":
		n, err = unix.Fgetxattr(p.fd(op.Slot), op.B, value)
	case op.Flags != 0:
		n, err = unix.Lgetxattr(op.A, op.B, value)
	default:
		n, err = unix.Getxattr(op.A, op.B, value)
	}
	o := outcome{N: int64(max(n, 0))}
	if err == nil && len(value) > 0 {
		o.Data = shownBytes(value[:n])
	}
	return o, err
}

func (p *performer) listxattr(op operation) (outcome, error) {
	names := make([]byte, op.Length)
	var n int
	var err error
	switch {
	case op.A == "":
		n, err = unix.Flistxattr(p.fd(op.Slot), names)
	case op.Flags != 0:
		n, err = unix.Llistxattr(op.A, names)
	default:
		n, err = unix.Listxattr(op.A, names)
	}
	o := outcome{N: int64(max(n, 0))}
	if err == nil && len(names) > 0 {
		list := strings.Split(string(names[:n]), "\x00")
		slices.Sort(list)
		o.Data = strings.Join(list, " ")
	}
	return o, err
}

func (p *performer) flock(op operation) (outcome, error) {
	return outcome{}, unix.Flock(p.fd(op.Slot), op.How|unix.LOCK_NB)
}

// lock takes, gives back or asks for a lock of a range, of the process or of
// the open file.
func (p *performer) lock(op operation) (outcome, error) {
	lk := unix.Flock_t{Type: int16(op.How), Whence: unix.SEEK_SET, Start: op.Offset, Len: op.Length}
	if err := unix.FcntlFlock(uintptr(p.fd(op.Slot)), op.Flags, &lk); err != nil {
		return outcome{}, err
	}
	return outcome{Data: fmt.Sprint(lk.Type, lk.Start, lk.Len)}, nil
}
