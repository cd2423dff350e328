//go:build linux

package fusefs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/curi-store/curi/cas"
	"golang.org/x/sys/unix"
)

// everyday is what trainers do with files; it fails where something is not as
// on a disk. DIR is writable, SAME another directory of the same place, BLOB a
// file of the store.
const everyday = `
import ctypes, fcntl, mmap, os, shutil, socket, stat, sys, threading
DIR, SAME, BLOB, OTHER = sys.argv[1:5]
libc = ctypes.CDLL(None, use_errno=True)
def expect(err, fn, *args):
    try: fn(*args)
    except OSError as e:
        assert e.errno == err, (fn, args, e)
        return
    raise AssertionError('no error from %r%r' % (fn, args))
import errno as E
os.chdir(DIR)
def put(name, data):
    with open(name, 'wb') as f: f.write(data)
def get(name):
    with open(name, 'rb') as f: return f.read()
# mmap, private and shared, sizes after it
put('m', b'a' * 8192)
with open('m', 'r+b') as f:
    s = mmap.mmap(f.fileno(), 0); s[0:4] = b'SHAR'; s.flush()
    p = mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE); p[0:4] = b'PRIV'
    assert get('m')[:4] == b'SHAR'
    os.ftruncate(f.fileno(), 10000)
    assert os.stat('m').st_size == 10000
    s.close(); p.close()
# sizes and times never stale
fd = os.open('grow', os.O_CREAT | os.O_WRONLY, 0o644)
for i in range(1, 200):
    os.write(fd, b'x' * 100)
    assert os.stat('grow').st_size == 100 * i == os.fstat(fd).st_size == os.lseek(fd, 0, os.SEEK_END)
os.close(fd)
os.truncate('grow', 7); assert os.stat('grow').st_size == 7
# append by two descriptors
a = os.open('app', os.O_CREAT | os.O_WRONLY | os.O_APPEND); b = os.open('app', os.O_WRONLY | os.O_APPEND)
for i in range(50): os.write(a, b'aaaa'); os.write(b, b'bbbb')
assert len(get('app')) == 400 and os.stat('app').st_size == 400
os.close(a); os.close(b)
# rename over an open file, unlink of an open file
put('old', b'old'); put('new', b'new'); o = open('old', 'rb')
os.rename('new', 'old'); assert o.read() == b'old' and get('old') == b'new'; o.close()
u = os.open('old', os.O_RDWR); os.unlink('old')
os.write(u, b'NEW!'); assert os.pread(u, 9, 0) == b'NEW!' and os.fstat(u).st_nlink == 0
os.fchmod(u, 0o600); assert stat.S_IMODE(os.fstat(u).st_mode) == 0o600
os.ftruncate(u, 2); assert os.fstat(u).st_size == 2
os.setxattr(u, 'user.k', b'v'); assert os.getxattr(u, 'user.k') == b'v'
os.close(u); assert not os.path.exists('old')
# what is removed while a program has it is still what it was
os.mkfifo('pipe'); put('path', b'p'); os.mkdir('gone'); put('over', b''); put('path2', b'')
held = [os.open('pipe', os.O_RDONLY | os.O_NONBLOCK)] + [os.open(p, os.O_PATH) for p in ('path', 'gone', 'path2')]
os.unlink('pipe'); os.unlink('path'); os.rmdir('gone'); os.rename('over', 'path2')
assert [os.fstat(h).st_nlink for h in held] == [0] * 4 and os.fstat(held[1]).st_size == 1
os.fchmod(held[0], 0o640); assert stat.S_IMODE(os.fstat(held[0]).st_mode) == 0o640
for h in held: os.close(h)
# directories: rename with things in use, fsync, not empty
os.mkdir('d1'); put('d1/f', b'1'); f = open('d1/f', 'ab'); os.rename('d1', 'd2'); f.write(b'2'); f.flush()
assert get('d2/f') == b'12'; f.close(); put('d2/g', b'')
dfd = os.open('d2', os.O_RDONLY); os.fsync(dfd); os.close(dfd)
expect(E.ENOTEMPTY, os.rmdir, 'd2'); assert sorted(os.listdir('d2')) == ['f', 'g']
here = os.open('d2', os.O_RDONLY); os.rename('d2', 'd3'); assert sorted(os.listdir(here)) == ['f', 'g']; os.close(here)
os.makedirs('deep/er/est'); put('deep/er/est/f', b'z'); os.rename('deep/er', 'moved'); assert get('moved/est/f') == b'z'
# hard links count right at once
put('l1', b'l'); os.link('l1', 'l2'); assert os.stat('l1').st_nlink == 2 and os.stat('l1').st_ino == os.stat('l2').st_ino
os.unlink('l2'); assert os.stat('l1').st_nlink == 1
os.link('l1', os.path.join(SAME, 'l3')); os.rename('l1', 'l4'); assert get(os.path.join(SAME, 'l3')) == b'l'; os.unlink(os.path.join(SAME, 'l3'))
expect(E.EXDEV, os.link, 'l4', os.path.join(OTHER, 'x')); expect(E.EXDEV, os.rename, 'l4', os.path.join(OTHER, 'x'))
try: os.link(BLOB, 'blob'); raise AssertionError('linked a blob')
except OSError as e: assert e.errno in (E.EXDEV, E.EPERM), e
# symlinks are only that
os.symlink('/etc/passwd', 'esc'); assert os.readlink('esc') == '/etc/passwd' and os.lstat('esc').st_size == 11
os.utime('esc', (5, 6), follow_symlinks=False); assert os.lstat('esc').st_mtime == 6 and os.stat('/etc/passwd').st_mtime != 6
os.chown('esc', os.getuid(), os.getgid(), follow_symlinks=False); os.unlink('esc')
# preallocation, holes
fd = os.open('hole', os.O_CREAT | os.O_RDWR)
os.posix_fallocate(fd, 0, 1 << 20); assert os.fstat(fd).st_size == 1 << 20
os.pwrite(fd, b'x' * (1 << 20), 0); os.fsync(fd)
assert libc.fallocate(fd, 3, ctypes.c_long(65536), ctypes.c_long(131072)) == 0
assert os.pread(fd, 4, 65536) == b'\0' * 4 and os.fstat(fd).st_size == 1 << 20
os.fsync(fd)
# With the writeback cache all of a file is data.
assert (os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 65536, os.SEEK_DATA)) in ((65536, 196608), (1 << 20, 65536))
os.close(fd)
# O_DIRECT
m = mmap.mmap(-1, 8192); m.write(b'D' * 8192)
fd = os.open('direct', os.O_CREAT | os.O_RDWR | os.O_DIRECT); os.write(fd, m); os.close(fd); assert get('direct') == b'D' * 8192
# copies in the kernel
src = os.open(BLOB, os.O_RDONLY); dst = os.open('copy', os.O_CREAT | os.O_RDWR)
n = 0
while True:
    k = os.copy_file_range(src, dst, 1 << 30, n, n)
    if k == 0: break
    n += k
assert get('copy') == get(BLOB); os.ftruncate(dst, 0)
n = os.sendfile(dst, src, 0, 1 << 16); assert os.fstat(dst).st_size == n
os.close(src); os.close(dst)
# locks
l = open('lock', 'w'); fcntl.flock(l, fcntl.LOCK_EX); k = open('lock', 'w')
expect(E.EAGAIN, fcntl.flock, k, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.flock(l, fcntl.LOCK_UN); fcntl.lockf(l, fcntl.LOCK_EX)
if os.fork() == 0:
    try: fcntl.lockf(open('lock', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: os._exit(0)
    os._exit(1)
assert os.wait()[1] == 0
# attributes, modes, times, owners
put('x', b''); os.setxattr('x', 'user.curi.type', b'M'); os.setxattr('x', 'user.other', b'o' * 300)
assert sorted(os.listxattr('x')) == ['user.curi.type', 'user.other'] and os.getxattr('x', 'user.curi.type') == b'M'
expect(E.EEXIST, os.setxattr, 'x', 'user.other', b'', os.XATTR_CREATE); os.removexattr('x', 'user.other'); expect(E.ENODATA, os.getxattr, 'x', 'user.other')
for mode in (0o600, 0o755, 0, 0o4711): os.chmod('x', mode); assert stat.S_IMODE(os.stat('x').st_mode) == mode, oct(mode)
for make in (lambda: os.close(os.open('su', os.O_CREAT, 0o4755)), lambda: os.mknod('su', stat.S_IFREG | 0o4755)):
    make(); assert stat.S_IMODE(os.stat('su').st_mode) == 0o4755, oct(os.stat('su').st_mode)
    os.chown('su', -1, -1); assert stat.S_IMODE(os.stat('su').st_mode) == 0o755, oct(os.stat('su').st_mode); os.unlink('su')
put('sg', b''); os.chmod('sg', 0o2644); os.chown('sg', -1, os.getgid()); assert stat.S_IMODE(os.stat('sg').st_mode) == 0o2644
os.chmod('x', 0o644); os.chown('x', os.getuid(), os.getgid()); os.utime('x', ns=(1234567890123456789, 987654321987654321))
s = os.stat('x'); assert s.st_mtime_ns == 987654321987654321 and s.st_atime_ns == 1234567890123456789
assert s.st_uid == os.geteuid() and s.st_gid == os.getegid(), s
old = os.umask(0o027); put('um', b''); os.mkdir('umd'); os.umask(old)
assert stat.S_IMODE(os.stat('um').st_mode) == 0o640 and stat.S_IMODE(os.stat('umd').st_mode) == 0o750
os.umask(0); os.close(os.open('um2', os.O_CREAT, 0o666)); os.mkdir('um2d', 0o777); os.mkfifo('um2f', 0o666); os.umask(old)
assert [stat.S_IMODE(os.stat(p).st_mode) for p in ('um2', 'um2d', 'um2f')] == [0o666, 0o777, 0o666]
# what may be written only, or listed only; attributes of no namespace
expect(E.EOPNOTSUPP, os.getxattr, 'x', 'nowhere.x'); expect(E.EOPNOTSUPP, os.setxattr, 'x', 'nowhere.x', b'')
put('wo', b'write only'); os.chmod('wo', 0o200); w = os.open('wo', os.O_WRONLY); assert os.pwrite(w, b'ONLY', 6) == 4; os.close(w)
os.chmod('wo', 0o600); assert get('wo') == b'write ONLY'
os.mkdir('listed'); put('listed/f', b''); os.chmod('listed', 0o400); assert os.listdir('listed') == ['f']; os.chmod('listed', 0o700)
# NOREPLACE, EXCHANGE
put('n1', b'1'); put('n2', b'2')
def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) < 0: raise OSError(ctypes.get_errno(), 'renameat2')
expect(E.EEXIST, renameat2, 'n1', 'n2', 1); renameat2('n1', 'n2', 2); assert get('n1') == b'2' and get('n2') == b'1'
renameat2('n1', 'n3', 1); assert get('n3') == b'2'
# FIFOs and sockets work
os.mkfifo('fifo')
t = threading.Thread(target=lambda: put('fifo', b'through')); t.start(); assert get('fifo') == b'through'; t.join()
srv = socket.socket(socket.AF_UNIX); srv.bind('sock'); srv.listen(); c = socket.socket(socket.AF_UNIX); c.connect('sock'); assert stat.S_ISSOCK(os.stat('sock').st_mode)
# the rest
assert os.statvfs('.').f_blocks > 0
expect(E.EOPNOTSUPP, os.open, '.', os.O_TMPFILE | os.O_RDWR)
expect(E.EEXIST, os.open, 'x', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
import tempfile
with tempfile.TemporaryFile(dir='.') as tf: tf.write(b'1')
with tempfile.NamedTemporaryFile(dir=SAME, delete=False) as tf: tf.write(b'ckpt')
shutil.move(tf.name, 'model.ckpt'); assert get('model.ckpt') == b'ckpt'
for i in range(300): put('many%d' % i, b'')
assert len([n for n in os.listdir('.') if n.startswith('many')]) == 300
os.chdir('/'); shutil.rmtree(DIR)
print('good')
`

func everydayFiles(t *testing.T, s *cas.Store, m *mounted, by ...string) {
	t.Helper()
	v := publish(t, s, "data", map[string]string{"big": strings.Repeat("0123456789", 50000)})
	p := openPlace(t, s, m, testKey, map[string]cas.Digest{"set": v.Tree})
	other := strings.Repeat("f", 64)
	q := openPlace(t, s, m, other, nil)
	for _, d := range []string{"out", "work", "tmp"} {
		chmodAll(t, filepath.Join(p.Dir(), d))
		chmodAll(t, filepath.Join(q.Dir(), d))
	}
	if m.info.UID != 0 {
		run(t, "chown", "-R", fmt.Sprintf("%[1]d:%[1]d", m.info.UID), s.Dir())
	}
	at := m.path("at", testKey[:16])
	for _, d := range []string{"out", "work"} {
		dir := filepath.Join(at, d, "n")
		by := append(slices.Clone(m.within), by...)
		run(t, append(by, "mkdir", dir)...)
		out := run(t, append(by, python(t), "-c", everyday, dir, filepath.Join(at, "tmp"), filepath.Join(at, "in/set/big"), m.path("at", other[:16], "work"))...)
		if out != "good\n" {
			t.Errorf("in %s: %s", d, out)
		}
	}
}

// chmodAll lets every user write below dir.
func chmodAll(t *testing.T, dir string) {
	t.Helper()
	if err := filepath.Walk(dir, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(p, 0o777)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestEverydayFiles(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	everydayFiles(t, s, m)
	if st := m.stats(t); m.info.Passthrough && st["writes"]+st["reads"] > 0 {
		t.Errorf("reads and writes reached the server: %v", st)
	}
}

func TestEverydayFilesOfAnotherUser(t *testing.T) {
	s := newStore(t)
	everydayFiles(t, s, mount(t, s, "-o", "allow_other"), asNobody...)
}

func TestCallersOwnWhatTheyMake(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "allow_other")
	p := openPlace(t, s, m, testKey, nil)
	chmodAll(t, filepath.Join(p.Dir(), "work"))
	group := filepath.Join(p.Dir(), "work", "group")
	if err := os.Mkdir(group, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chown(group, 0, 4242)
	syscall.Chmod(group, 0o2777)
	work := m.path("at", testKey[:16], "work")
	for _, dir := range []string{"a", "group"} {
		run(t, append(asNobody, "sh", "-c", "cd "+filepath.Join(work, dir)+" && echo hi >f && mkdir d && ln -s f l && mkfifo p && cp f d/g")...)
		for _, name := range []string{"f", "d", "l", "p", "d/g"} {
			var st syscall.Stat_t
			if err := syscall.Lstat(filepath.Join(p.Dir(), "work", dir, name), &st); err != nil {
				t.Fatal(err)
			}
			gid := uint32(65534)
			if dir == "group" {
				gid = 4242
			}
			if st.Uid != 65534 || st.Gid != gid {
				t.Errorf("%s/%s belongs to %d:%d", dir, name, st.Uid, st.Gid)
			}
			if name == "d" && dir == "group" && st.Mode&syscall.S_ISGID == 0 {
				t.Errorf("%s/%s does not hand its group down: %o", dir, name, st.Mode)
			}
		}
	}
}

func TestOnlyTheNamedMountMayWrite(t *testing.T) {
	s := newStore(t)
	one, two := mount(t, s), mount(t, s)
	openPlace(t, s, one, testKey, nil)
	file := filepath.Join("at", testKey[:16], "work/a/f")
	if err := os.WriteFile(one.path(file), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two.path(file), []byte("2"), 0o644); err == nil {
		t.Error("another mount could write too")
	}
	if got, err := os.ReadFile(two.path(file)); err != nil || !bytes.Equal(got, []byte("1")) {
		t.Errorf("another mount reads %q, %v", got, err)
	}
	if err := unix.Mkdir(two.path(filepath.Dir(file), "d"), 0o755); err != unix.EROFS {
		t.Errorf("mkdir through another mount: %v", err)
	}
}
