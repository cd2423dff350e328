//go:build linux

package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// changes tries every way to change FILE and DIR, its directory, and prints
// each that worked, and how the others failed.
const changes = `
import ctypes, errno, fcntl, mmap, os, socket, sys
FILE, DIR, OUTSIDE = sys.argv[1], sys.argv[2], sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
def c(fn, *args):
    if fn(*args) < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
def opened(flags):
    os.close(os.open(FILE, flags))
def fallocate():
    fd = os.open(FILE, os.O_RDONLY)
    try: c(libc.fallocate, fd, 0, ctypes.c_long(0), ctypes.c_long(10))
    finally: os.close(fd)
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
}
for name, way in ways.items():
    try:
        way()
        print(name, 'worked')
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e.errno))
`

// tryChanges returns how each way to change failed, "worked" if it did not.
func tryChanges(t *testing.T, file, outside string, by ...string) map[string]string {
	t.Helper()
	out := run(t, append(by, python(t), "-c", changes, file, filepath.Dir(file), outside)...)
	got := map[string]string{}
	for line := range strings.Lines(out) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		got[line[:i]] = strings.TrimSpace(line[i:])
	}
	if len(got) < 25 {
		t.Fatalf("the script did not run: %s", out)
	}
	return got
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

func TestEveryChangeOfStoredThingsIsRefused(t *testing.T) {
	s := newStore(t)
	big := strings.Repeat("x", 1<<20)
	v := publish(t, s, "data", map[string]string{"d/file": big, "d/e/small": "small"}, cas.Attr{Key: "user.curi.type", Value: "M"})
	result, err := resultTree(t, s, v.Tree)
	if err != nil {
		t.Fatal(err)
	}
	m := mount(t, s, "-o", "allow_other")
	p := openPlace(t, s, m, testKey, map[string]cas.Digest{"set": v.Tree})
	if err := os.WriteFile(filepath.Join(p.Dir(), "work/a/file"), []byte("kept"), 0o666); err != nil {
		t.Fatal(err)
	}
	at := m.path("at", testKey[:16])
	open := filepath.Join(at, "work")
	files := []string{
		m.path("artifacts/data/d/file"), m.path("artifacts/data@1/d/e/small"), m.path("cas", v.Tree.String(), "d/file"),
		m.path("cas", cas.Sum([]byte(big)).String()), filepath.Join(at, "in/set/d/file"),
	}
	check := func(files []string) {
		t.Helper()
		for _, file := range files {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for name, how := range tryChanges(t, file, open) {
				// The kernel refuses some by itself, before it asks.
				ok := how == "EROFS" || name == "shared mapping" && how == "EACCES" || name == "fallocate" && how == "EBADF" ||
					name == "ftruncate" && how == "EINVAL" || strings.HasSuffix(name, " away") && how == "EXDEV" ||
					name == "rmdir" && (how == "EBUSY" || how == "ENOTEMPTY") || name == "tmpfile" && how == "ENOTSUP" ||
					name == "shared mapping" && how == "EPERM"
				if !ok {
					t.Errorf("root, %s of %s: %s", name, file, how)
				}
			}
			for name, how := range tryChanges(t, file, open, asNobody...) {
				switch how {
				case "EROFS", "EACCES", "EPERM", "EBADF", "EINVAL", "EXDEV", "ENOTSUP":
				default:
					t.Errorf("nobody, %s of %s: %s", name, file, how)
				}
			}
			after, err := os.ReadFile(file)
			if err != nil || string(after) != string(before) {
				t.Errorf("%s changed: %v", file, err)
			}
		}
	}
	check(files)
	// What was writable is not when the run is over.
	setPlace(t, s, p, cas.PlaceState{Run: "train-000001", Attempt: 1, Result: result, Inputs: map[string]cas.Digest{"set": v.Tree}})
	check([]string{filepath.Join(at, "work/a/file"), filepath.Join(at, "out/data/d/file")})
	if st, err := s.Verify(t.Context(), cas.VerifyOptions{Sample: 1}); err != nil || len(st.Bad) > 0 {
		t.Errorf("the store is damaged: %v %v", st, err)
	}
}

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
