//go:build linux

package fusefs_test

import (
	"math/rand/v2"
	"strings"

	"golang.org/x/sys/unix"
)

// generator makes random operations. It knows nothing of what they come to, so
// that a seed and a number say all, and any of them can be left out.
type generator struct{ r *rand.Rand }

// weighted is how often each operation comes.
var weighted = []struct {
	weight int
	make   func(generator) operation
}{
	{16, generator.open}, {4, generator.close}, {1, generator.dup}, {1, generator.append},
	{8, generator.read}, {12, generator.write}, {4, generator.lseek}, {5, generator.truncate}, {4, generator.fallocate},
	{3, generator.sync}, {1, generator.drop}, {5, generator.copy},
	{4, generator.mmap}, {1, generator.munmap}, {2, generator.msync}, {8, generator.memory},
	{8, generator.rename}, {4, generator.link}, {2, generator.symlink}, {5, generator.unlink}, {4, generator.mkdir}, {1, generator.mknod},
	{6, generator.stat}, {1, generator.statfs}, {4, generator.chmod}, {2, generator.chown}, {5, generator.utimes}, {1, generator.umask},
	{7, generator.xattr}, {5, generator.lock}, {1, generator.walk},
	{6, func(generator) operation { return operation{Do: "state"} }},
}

const performers = 2 // processes on each side

// operations are the first n that a seed makes.
func operations(seed uint64, n int) []operation {
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	sum := 0
	for _, w := range weighted {
		sum += w.weight
	}
	maps := g.one(0, 1) == 0 // without, times can be compared
	ops := []operation{{Do: "mkdir", A: "d", Mode: 0o755}, {Do: "mkdir", A: "d/f", Mode: 0o755}, {Do: "mkdir", A: "e", Mode: 0o777}}
	for len(ops) < n {
		k := g.r.IntN(sum)
		for _, w := range weighted {
			if k -= w.weight; k < 0 {
				op := w.make(g)
				if op.Do == "mmap" && !maps {
					break
				}
				op.Who = g.r.IntN(performers)
				ops = append(ops, op)
				break
			}
		}
	}
	return ops[:n]
}

func (g generator) one(of ...int) int       { return of[g.r.IntN(len(of))] }
func (g generator) slot() int               { return g.r.IntN(slots) }
func (g generator) often() bool             { return g.r.IntN(8) > 0 }
func (g generator) sometimes() bool         { return g.r.IntN(8) == 0 }
func (g generator) seed() byte              { return byte(g.r.IntN(256)) }
func (g generator) pick(of []string) string { return of[g.r.IntN(len(of))] }

var (
	files = []string{"a", "b", "c", "d/a", "d/b", "e/a", "d/f/a"}
	dirs  = []string{"d", "e", "d/f", "e/g", "."}
	odd   = []string{
		"", ".", "a/", "d/", "a/b", "none/a", "d//a", strings.Repeat("n", 255), strings.Repeat("n", 256),
		"\xff\xfe", "new\nline", " ", "-rf", "d/\x01", "e/" + strings.Repeat("ü", 127), "walk3",
	}
)

// file, dir and name are names of files, of directories, and of anything.
func (g generator) file() string {
	if g.often() {
		return g.pick(files)
	}
	return g.name()
}

func (g generator) dir() string {
	if g.often() {
		return g.pick(dirs)
	}
	return g.name()
}

func (g generator) name() string {
	switch k := g.r.IntN(8); {
	case k < 4:
		return g.pick(files)
	case k < 7:
		return g.pick(dirs)
	}
	return g.pick(odd)
}

// where is mostly the performer's directory, else one that may be open.
func (g generator) where() int {
	if g.often() {
		return 0
	}
	return 1 + g.slot()
}

// offset and length are small, often at the edges of pages and blocks.
func (g generator) offset() int64 {
	switch g.r.IntN(8) {
	case 0:
		return 0
	case 1, 2:
		return int64(g.r.IntN(40)) * block
	case 3:
		return int64(g.r.IntN(40))*block + int64(g.r.IntN(3)) - 1
	case 4:
		return int64(g.r.IntN(1 << 19))
	}
	return int64(g.r.IntN(3 * block))
}

func (g generator) length() int64 {
	switch g.r.IntN(8) {
	case 0:
		return int64(g.r.IntN(3))
	case 1, 2:
		return int64(1+g.r.IntN(16)) * block
	case 3:
		return int64(g.r.IntN(1 << 17))
	}
	return int64(g.r.IntN(2 * block))
}

func (g generator) open() operation {
	flags := g.one(unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR, unix.O_RDWR)
	for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_CREAT} {
		flags |= g.one(0, f)
	}
	for _, f := range []int{unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_DIRECT, unix.O_NOFOLLOW, unix.O_DIRECTORY, unix.O_PATH, unix.O_SYNC, unix.O_DSYNC, unix.O_NONBLOCK} {
		if g.sometimes() {
			flags |= f
		}
	}
	op := operation{Do: "open", Slot: g.slot(), Dir: g.where(), A: g.file(), Flags: flags, Mode: uint32(g.one(0o644, 0o600, 0o666, 0o755, 0o444, 0o200, 0, 0o4755))}
	switch g.r.IntN(12) {
	case 0, 1:
		op.A, op.Flags = g.dir(), g.one(unix.O_RDONLY, unix.O_DIRECTORY, unix.O_DIRECTORY, unix.O_DIRECTORY|unix.O_PATH, unix.O_DIRECTORY|unix.O_CREAT)
	case 2:
		op.A, op.Flags = g.dir(), unix.O_TMPFILE|g.one(unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY)
	}
	return op
}

func (g generator) close() operation { return operation{Do: "close", Slot: g.slot()} }
func (g generator) dup() operation   { return operation{Do: "dup", Slot: g.slot(), Other: g.slot()} }
func (g generator) append() operation {
	return operation{Do: "append", Slot: g.slot(), How: g.one(0, unix.O_APPEND)}
}

func (g generator) read() operation {
	return operation{Do: g.pick([]string{"read", "pread", "readv"}), Slot: g.slot(), Offset: g.offset(), Length: g.length()}
}

func (g generator) write() operation {
	return operation{Do: g.pick([]string{"write", "write", "pwrite", "writev"}), Slot: g.slot(), Offset: g.offset(), Length: g.length(), Seed: g.seed()}
}

func (g generator) lseek() operation {
	return operation{Do: "lseek", Slot: g.slot(), Offset: g.offset(), How: g.one(unix.SEEK_SET, unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END, unix.SEEK_DATA, unix.SEEK_HOLE, 9)}
}

func (g generator) truncate() operation {
	op := operation{Do: "ftruncate", Slot: g.slot(), Length: g.offset()}
	if g.one(0, 1) == 0 {
		op.Do, op.A = "truncate", g.file()
	}
	if g.r.IntN(30) == 0 {
		op.Length = int64(g.one(-1, 1<<62))
	}
	return op
}

func (g generator) fallocate() operation {
	return operation{Do: "fallocate", Slot: g.slot(), Offset: g.offset(), Length: g.length(), How: g.one(
		0, 0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE)}
}

func (g generator) sync() operation { return operation{Do: "sync", Slot: g.slot(), How: g.r.IntN(4)} }
func (g generator) drop() operation { return operation{Do: "drop", Slot: g.slot()} }

func (g generator) copy() operation {
	return operation{Do: g.pick([]string{"copy", "copy", "sendfile", "splice"}), Slot: g.slot(), Other: g.slot(), Offset: g.offset(), To: g.offset(), Length: g.length()}
}

func (g generator) mmap() operation {
	return operation{Do: "mmap", Slot: g.r.IntN(mappings), Other: g.slot(), Offset: g.offset(), Length: 1 + g.length(),
		Mode: uint32(g.one(unix.PROT_READ, unix.PROT_READ|unix.PROT_WRITE, unix.PROT_READ|unix.PROT_WRITE)), How: g.one(unix.MAP_SHARED, unix.MAP_SHARED, unix.MAP_PRIVATE)}
}

func (g generator) munmap() operation { return operation{Do: "munmap", Slot: g.r.IntN(mappings)} }

func (g generator) msync() operation {
	return operation{Do: "msync", Slot: g.r.IntN(mappings), How: g.one(unix.MS_SYNC, unix.MS_ASYNC, unix.MS_SYNC|unix.MS_INVALIDATE)}
}

// memory reads or writes what is mapped.
func (g generator) memory() operation {
	do := g.pick([]string{"load", "load", "store", "store", "store", "read mapped", "write mapped"})
	return operation{Do: do, Slot: g.r.IntN(mappings), Other: g.slot(), Offset: int64(g.r.IntN(3 * block)), Length: g.length(), To: g.offset(), Seed: g.seed()}
}

func (g generator) rename() operation {
	op := operation{Do: "rename", A: g.file(), B: g.file(), Dir: g.where(), DirB: g.where(), Flags: g.one(0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE)}
	if g.r.IntN(3) == 0 {
		op.A, op.B = g.dir(), g.dir()
	}
	return op
}

func (g generator) link() operation {
	if g.r.IntN(4) == 0 {
		return operation{Do: "link open", Slot: g.slot(), Dir: g.where(), A: g.file(), How: g.r.IntN(2)}
	}
	return operation{Do: "link", A: g.file(), B: g.file(), Dir: g.where(), DirB: g.where(), Flags: g.one(0, 0, unix.AT_SYMLINK_FOLLOW)}
}

func (g generator) symlink() operation {
	return operation{Do: "symlink", A: g.file(), Dir: g.where(), B: g.pick([]string{"a", "b", "d", "none", "c", "e/a", ".", strings.Repeat("t", 4095), strings.Repeat("t", 4096), "", "a\nb"})}
}

func (g generator) unlink() operation {
	if g.r.IntN(3) == 0 {
		return operation{Do: "unlink", A: g.dir(), Dir: g.where(), Flags: unix.AT_REMOVEDIR}
	}
	return operation{Do: "unlink", A: g.file(), Dir: g.where()}
}

func (g generator) mkdir() operation {
	return operation{Do: "mkdir", A: g.dir(), Dir: g.where(), Mode: uint32(g.one(0o755, 0o700, 0o777, 0o2777, 0o1777, 0o500))}
}

func (g generator) mknod() operation {
	return operation{Do: "mknod", A: g.file(), Dir: g.where(), Mode: uint32(g.one(unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG, 0) | g.one(0o644, 0o666, 0o600))}
}

func (g generator) stat() operation {
	switch g.r.IntN(6) {
	case 0:
		return operation{Do: "fstat", Slot: g.slot(), Flags: g.one(0, unix.AT_STATX_FORCE_SYNC)}
	case 1:
		return operation{Do: "readlink", A: g.file(), Dir: g.where()}
	case 2:
		return operation{Do: "access", A: g.name(), Dir: g.where(), Mode: uint32(g.r.IntN(8)), Flags: g.one(0, unix.AT_EACCESS, unix.AT_SYMLINK_NOFOLLOW)}
	}
	return operation{Do: "stat", A: g.name(), Dir: g.where(), Flags: g.one(0, unix.AT_SYMLINK_NOFOLLOW)}
}

func (g generator) statfs() operation { return operation{Do: "statfs"} }

// target is a name, or an open file, whose attributes change.
func (g generator) target(op operation) operation {
	op.Slot = g.slot()
	if g.r.IntN(3) > 0 {
		op.A, op.Dir = g.name(), 0
	}
	return op
}

func (g generator) chmod() operation {
	return g.target(operation{Do: "chmod", Mode: uint32(g.one(0o644, 0o600, 0o755, 0o777, 0o444, 0, 0o4755, 0o2755, 0o1777, 0o2644))})
}

func (g generator) chown() operation {
	return g.target(operation{Do: "chown", How: g.r.IntN(4), Flags: g.one(0, unix.AT_SYMLINK_NOFOLLOW)})
}

func (g generator) utimes() operation {
	return g.target(operation{Do: "utimes", How: g.r.IntN(16), Offset: int64(g.r.IntN(1e6)), Length: int64(g.r.IntN(1e6)), Flags: g.one(0, unix.AT_SYMLINK_NOFOLLOW)})
}

func (g generator) umask() operation {
	return operation{Do: "umask", Mode: uint32(g.one(0o022, 0o022, 0o027, 0o077, 0, 0o002))}
}

func (g generator) xattr() operation {
	op := g.target(operation{Flags: g.one(0, unix.AT_SYMLINK_NOFOLLOW), Seed: g.seed(), B: g.pick([]string{
		"user.a", "user.a", "user.b", "user.curi.type", "user.", "user", "other.a", "user." + strings.Repeat("n", 250), "user." + strings.Repeat("n", 251)})})
	switch g.r.IntN(5) {
	case 0:
		op.Do, op.Length = "getxattr", int64(g.one(0, 3, 5000))
	case 1:
		op.Do, op.Length = "listxattr", int64(g.one(0, 9, 5000))
	default:
		op.Do, op.Length, op.How = "setxattr", int64(g.one(0, 1, 30, 300, 3000, 5000)), g.one(0, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE, -1)
	}
	return op
}

func (g generator) lock() operation {
	if g.r.IntN(3) == 0 {
		return operation{Do: "flock", Slot: g.slot(), How: g.one(unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN)}
	}
	return operation{Do: "lock", Slot: g.slot(), Offset: int64(g.r.IntN(20)), Length: int64(g.r.IntN(20)),
		How: g.one(unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK), Flags: g.one(unix.F_SETLK, unix.F_SETLK, unix.F_GETLK, unix.F_OFD_SETLK, unix.F_OFD_GETLK)}
}

func (g generator) walk() operation {
	return operation{Do: "walk", A: g.dir(), Dir: g.where(), Length: int64(g.r.IntN(512)), Offset: int64(g.r.IntN(12)), Seed: g.seed()}
}
