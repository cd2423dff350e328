//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// changes tries every way to change each FILE and DIR, its directory, and
// prints each that worked, how the others failed, and what was changed all the
// same. OUTSIDE is a directory where it may write.
const changes = `
import ctypes, errno, fcntl, mmap, os, socket, sys
OUTSIDE = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
def c(fn, *args):
    if fn(*args) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
def opened(flags):
    os.close(os.open(FILE, flags))
def fallocate(mode=0):
    fd = os.open(FILE, os.O_RDONLY)
    try: c(libc.fallocate, fd, mode, ctypes.c_long(0), ctypes.c_long(10))
    finally: os.close(fd)
def reopen(first, flags):
    fd = os.open(FILE, first)
    try: os.close(os.open('/proc/self/fd/%d' % fd, flags))
    finally: os.close(fd)
def renameat2(a, b, flags): c(libc.renameat2, -100, a.encode(), -100, b.encode(), flags)
def chattr():
    fd = os.open(FILE, os.O_RDONLY)
    try: fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little')) # FS_IOC_SETFLAGS, no dump
    finally: os.close(fd)
def mprotect():
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(FILE, os.O_RDONLY)
    try:
        p = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, ctypes.c_long(0))
        if p == ctypes.c_void_p(-1).value: raise OSError(ctypes.get_errno(), 'mmap')
        c(libc.mprotect, ctypes.c_void_p(p), ctypes.c_size_t(4096), 3)
    finally: os.close(fd)
def mine(make=lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY))):
    p = '%s/mine%d' % (OUTSIDE, os.getuid())
    for remove in os.unlink, os.rmdir:
        try: remove(p)
        except OSError: pass
    make(p)
    return p
def fchmod():
    fd = os.open(FILE, os.O_RDONLY)
    try: os.fchmod(fd, 0o666)
    finally: os.close(fd)
def ftruncate():
    fd = os.open(FILE, os.O_RDONLY)
    try: os.ftruncate(fd, 0)
    finally: os.close(fd)
def shared():
    fd = os.open(FILE, os.O_RDONLY)
    try: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0:1] = b'X'
    finally: os.close(fd)
def unixsocket():
    s = socket.socket(socket.AF_UNIX)
    os.chdir(DIR)  # the name may be short only
    try: s.bind('s')
    finally: s.close()
ways = {
    'write': lambda: opened(os.O_WRONLY), 'rdwr': lambda: opened(os.O_RDWR), 'append': lambda: opened(os.O_WRONLY | os.O_APPEND),
    'trunc': lambda: opened(os.O_WRONLY | os.O_TRUNC), 'rtrunc': lambda: opened(os.O_RDONLY | os.O_TRUNC),
    'truncate': lambda: os.truncate(FILE, 1), 'ftruncate': ftruncate, 'fallocate': fallocate, 'shared mapping': shared,
    'chmod': lambda: os.chmod(FILE, 0o666), 'fchmod': fchmod, 'chown': lambda: os.chown(FILE, os.getuid(), os.getgid()),
    'utime': lambda: os.utime(FILE, (1, 1)), 'setxattr': lambda: os.setxattr(FILE, 'user.curi.x', b'1'),
    'removexattr': lambda: os.removexattr(FILE, 'user.curi.type'),
    'create': lambda: os.close(os.open(DIR + '/new', os.O_CREAT | os.O_WRONLY)), 'mkdir': lambda: os.mkdir(DIR + '/d'),
    'symlink': lambda: os.symlink('x', DIR + '/l'), 'fifo': lambda: os.mkfifo(DIR + '/f'), 'socket': unixsocket,
    'link': lambda: os.link(FILE, DIR + '/h'), 'unlink': lambda: os.unlink(FILE), 'rename': lambda: os.rename(FILE, DIR + '/r'),
    'rename away': lambda: os.rename(FILE, OUTSIDE + '/r'), 'link away': lambda: os.link(FILE, OUTSIDE + '/h'),
    'rename dir': lambda: os.rename(DIR, DIR + '2'), 'rmdir': lambda: os.rmdir(DIR), 'chmod dir': lambda: os.chmod(DIR, 0o777),
    'dir setxattr': lambda: os.setxattr(DIR, 'user.curi.x', b'1'), 'tmpfile': lambda: os.close(os.open(DIR, os.O_TMPFILE | os.O_RDWR)),
    'direct': lambda: opened(os.O_RDWR | os.O_DIRECT), 'creat': lambda: opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    'reopen': lambda: reopen(os.O_RDONLY, os.O_RDWR), 'reopen path': lambda: reopen(os.O_PATH, os.O_WRONLY), 'mprotect': mprotect,
    'punch hole': lambda: fallocate(3), 'chattr': chattr, 'utime now': lambda: os.utime(FILE), 'utime dir': lambda: os.utime(DIR, (1, 1)),
    'chown dir': lambda: os.chown(DIR, os.getuid(), os.getgid()), 'dir removexattr': lambda: os.removexattr(DIR, 'user.curi.type'),
    'acl': lambda: os.setxattr(FILE, 'system.posix_acl_access', b'\2\0\0\0'), 'capability': lambda: os.setxattr(FILE, 'security.capability', b'\0\0\0\2' + b'\0' * 16),
    'mknod': lambda: os.mknod(DIR + '/n', 0o100644), 'device': lambda: os.mknod(DIR + '/c', 0o20666, os.makedev(1, 3)),
    'rmdir file': lambda: os.rmdir(FILE), 'noreplace': lambda: renameat2(FILE, DIR + '/r', 1), 'exchange': lambda: renameat2(FILE, FILE + '2', 2),
    'rename over': lambda: os.rename(mine(), FILE), 'exchange away': lambda: renameat2(mine(), FILE, 2), 'link into': lambda: os.link(mine(), DIR + '/m'),
    'move in': lambda: os.rename(mine(), DIR + '/m'), 'move dir in': lambda: os.rename(mine(os.mkdir), DIR + '/m'),
}
def seen():
    dir, file = os.lstat(DIR), os.lstat(FILE)
    content = sorted(os.listdir(FILE)) if os.path.isdir(FILE) else open(FILE, 'rb').read()
    return [(s.st_mode, s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink, s.st_size, s.st_uid) for s in (dir, file)], sorted(os.listdir(DIR)), content, os.listxattr(FILE), os.listxattr(DIR)
for i, FILE in enumerate(sys.argv[2:]):
    DIR = os.path.dirname(FILE)
    before = seen()
    for name, way in ways.items():
        try:
            way()
            how = 'worked'
        except OSError as e:
            how = errno.errorcode.get(e.errno, e.errno)
        print(i, how, name)
    print(i, 'EROFS' if seen() == before else 'CHANGED', 'all of it')
`

// tryChanges returns how each way to change failed, for each file; "worked" if
// it did not. "all of it" is "CHANGED" if any left a trace.
func tryChanges(t *testing.T, outside string, files []string, by ...string) []map[string]string {
	t.Helper()
	out := run(t, append(append(slices.Clone(by), python(t), "-c", changes, outside), files...)...)
	got := make([]map[string]string, len(files))
	for i := range got {
		got[i] = map[string]string{}
	}
	for line := range strings.Lines(out) {
		var i int
		var how string
		if _, err := fmt.Sscan(line, &i, &how); err != nil {
			t.Fatalf("the script said %q", line)
		}
		got[i][strings.TrimSpace(strings.SplitN(line, " ", 3)[2])] = how
	}
	for i, file := range files {
		if len(got[i]) < 50 {
			t.Fatalf("not every way to change %s was tried: %v", file, got[i])
		}
	}
	return got
}

// ofTheKernel is how the kernel refuses some ways by itself, before it asks.
var ofTheKernel = map[string]string{
	"shared mapping": "EACCES EPERM ENODEV EINVAL", "mprotect": "EACCES ENODEV", "fallocate": "EBADF", "punch hole": "EBADF", "ftruncate": "EINVAL",
	"rename away": "EXDEV EINVAL", "link away": "EXDEV EPERM", "link into": "EXDEV", "rename over": "EXDEV EISDIR ENOTEMPTY", "exchange away": "EXDEV EINVAL", "move in": "EXDEV", "move dir in": "EXDEV",
	"rmdir": "EBUSY ENOTEMPTY", "rename dir": "EBUSY EXDEV", "tmpfile": "ENOTSUP", "rmdir file": "ENOTDIR", "chattr": "ENOTTY", "acl": "ENOTSUP", "link": "EPERM",
	"exchange": "ENOENT",
	// Of a directory instead of a file (EINVAL above: into itself, or empty):
	"write": "EISDIR", "rdwr": "EISDIR", "append": "EISDIR", "trunc": "EISDIR", "rtrunc": "EISDIR", "truncate": "EISDIR", "direct": "EISDIR", "creat": "EISDIR",
	"reopen": "EISDIR", "reopen path": "EISDIR", "unlink": "EISDIR",
}

// refused reports whether a way to change failed as it should: root is told
// that nothing can be changed here, others may not come so far.
func refused(name, how string, root bool) bool {
	ok := []string{"EROFS"}
	if !root {
		ok = append(ok, "EACCES", "EPERM")
	}
	return slices.Contains(append(ok, strings.Fields(ofTheKernel[name])...), how)
}

// python is an interpreter that every user may run.
func python(t *testing.T) string {
	t.Helper()
	const path = "/usr/bin/python3"
	if _, err := os.Stat(path); err != nil {
		skip(t, "needs "+path)
	}
	return path
}

// asNobody runs a command as another user.
var asNobody = []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}

// resultTree makes the tree of a stage's result with one output, data.
func resultTree(t *testing.T, s *cas.Store, output cas.Digest) (cas.Digest, error) {
	t.Helper()
	out, err := s.PutTree(t.Context(), &cas.Tree{Entries: []cas.Entry{{Name: "data", Kind: cas.KindDir, Digest: output, Size: treeSize(t, s, output)}}})
	if err != nil {
		return out, err
	}
	log := addFile(t, s, "log\n")
	return s.PutTree(t.Context(), &cas.Tree{Entries: []cas.Entry{
		{Name: "log.txt", Kind: cas.KindFile, Digest: log, Size: 4},
		{Name: "out", Kind: cas.KindDir, Digest: out, Size: treeSize(t, s, out)},
		{Name: "record.json", Kind: cas.KindFile, Digest: addFile(t, s, "{}"), Size: 2},
	}})
}

func treeSize(t *testing.T, s *cas.Store, d cas.Digest) int64 {
	t.Helper()
	tree, err := s.Tree(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return tree.Bytes()
}

func addFile(t *testing.T, s *cas.Store, content string) cas.Digest {
	t.Helper()
	a, err := s.AddReader(t.Context(), strings.NewReader(content), fmt.Sprintf("f%d", len(content)), cas.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Digest
}
