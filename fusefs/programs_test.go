//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/curi-store/curi/cas"
)

// Programs that ask much of a filesystem, each with its own test of what it
// wrote. A script works in a fresh directory, $1 is an interpreter of Python,
// $2 a directory of the same place.
var programs = map[string]struct {
	needs  []string // programs, or modules of Python that the system's lacks
	script string
}{
	"sqlite": {[]string{"sqlite3"}, `
cat >write.py <<'PY'
import sqlite3, sys
db = sqlite3.connect('a.db', timeout=120, isolation_level=None)
assert db.execute('pragma journal_mode=wal').fetchone() == ('wal',)
db.execute('pragma synchronous=' + sys.argv[2]); db.execute('pragma mmap_size=1048576'); db.execute('pragma wal_autocheckpoint=20')
db.execute('create table if not exists t(id integer primary key, who text, n int, data blob)')
for n in range(150):
    db.execute('begin immediate')
    db.execute('insert into t(who, n, data) values(?, ?, randomblob(2000))', (sys.argv[1], n))
    db.execute('rollback' if n % 10 == 9 else 'commit')
PY
sqlite3 a.db 'pragma journal_mode=wal' >/dev/null
$1 write.py one full & one=$!
$1 write.py two normal & two=$!
wait $one; wait $two
test "$(sqlite3 a.db 'pragma integrity_check; select who, count(*), sum(n) from t group by who; pragma wal_checkpoint(truncate)')" = "ok
one|135|9990
two|135|9990
0|0|0"
test "$(sqlite3 a.db 'pragma journal_mode=delete; delete from t where n % 3; vacuum; pragma integrity_check; select count(*) from t')" = "delete
ok
90"`},

	"lmdb": {[]string{"mdb_copy", "mdb_stat", "lmdb"}, `
cat >write.py <<'PY'
import lmdb, sys
who, writemap, path = sys.argv[1], sys.argv[2] == 'map', sys.argv[3]
env = lmdb.open(path, map_size=32 << 20, writemap=writemap, map_async=writemap, sync=True)
for n in range(60):
    with env.begin(write=True) as txn:
        for k in range(20): txn.put(b'%s-%04d' % (who.encode(), n * 20 + k), bytes([n]) * (k * 150))
        if n % 7 == 6: txn.delete(b'%s-%04d' % (who.encode(), n * 20))
    with env.begin() as txn: assert txn.get(b'%s-%04d' % (who.encode(), n * 20 + 1)) == bytes([n]) * 150
env.sync(True)
PY
cat >scan.py <<'PY'
import lmdb, sys
env = lmdb.open(sys.argv[1], readonly=True)
with env.begin() as txn:
    seen = 0
    for key, value in txn.cursor():
        i = int(key[-4:]); assert value == bytes([i // 20]) * (i % 20 * 150), key
        seen += 1
assert seen == 2 * (60 * 20 - 8), seen
PY
for way in write map; do
    mkdir $way
    $1 write.py one $way $way & one=$!
    $1 write.py two $way $way & two=$!
    wait $one; wait $two
    mkdir $way.copy; mdb_copy -c $way $way.copy
    $1 scan.py $way; $1 scan.py $way.copy
    mdb_stat -ef $way | grep -q 'Entries: 2384'
done`},

	"hdf5": {[]string{"h5dump", "h5py"}, `
cat >write.py <<'PY'
import h5py, numpy as np
r = np.random.default_rng(1)
with h5py.File('a.h5', 'w', track_order=True) as f:
    d = f.create_dataset('x', (0, 64), maxshape=(None, 64), chunks=(100, 64), fletcher32=True, compression='gzip', shuffle=True, dtype='f4')
    for i in range(20):
        d.resize(d.shape[0] + 77, axis=0); d[-77:] = r.random((77, 64), dtype='f4')
        if i % 5 == 0: f.flush()
    f.create_dataset('plain', data=r.integers(0, 9, 50000)); f['x'].attrs['what'] = 'text'
with h5py.File('a.h5', 'r+') as f:
    del f['plain']; f.create_group('g/h')['again'] = h5py.SoftLink('/x'); f['x'][100:200] = 1
try:
    with h5py.File('a.h5', 'r'), h5py.File('a.h5', 'r+'): raise SystemExit('opened twice')
except OSError: pass
PY
cat >read.py <<'PY'
import h5py, numpy as np
r = np.random.default_rng(1)
with h5py.File('a.h5', 'r') as f:
    want = np.concatenate([r.random((77, 64), dtype='f4') for _ in range(20)]); want[100:200] = 1
    assert (f['g/h/again'][...] == want).all() and f['x'].attrs['what'] == 'text'
PY
$1 write.py; $1 read.py; h5dump -d /x a.h5 | tail -1 | grep -q '}'`},

	"git": {[]string{"git"}, `
export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main repo; cd repo; git config core.fsync all
for i in 1 2 3; do
    for k in $(seq 30); do mkdir -p d$((k % 4)); seq $((k * i)) >d$((k % 4))/f$k; done
    printf '#!/bin/sh\n' >run; chmod +x run; ln -sf d1 link$i
    git add -A; git commit -q -m c$i
done
git checkout -q -b side HEAD~1; echo side >side; git add side; git commit -q -m side
git checkout -q main; git merge -q -m merge side; git stash -q 2>/dev/null || true
git gc -q --aggressive --prune=now; git fsck --strict --full; git repack -adq --write-bitmap-index
git clone -q --local . ../clone; git worktree add -q ../tree side; git -C ../clone fsck --strict
git status --porcelain | grep . && exit 1
test "$(git -C ../clone rev-parse HEAD)" = "$(git rev-parse HEAD)"
git update-index --really-refresh; git diff --quiet`},

	"tar": {[]string{"tar", "setfattr"}, `
mkdir -p src/deep/er; seq 20000 >src/text; ln src/text src/deep/hard; ln -s ../text src/deep/soft; mkfifo src/fifo
printf x | dd of=src/hole bs=1 seek=300000 2>/dev/null; printf y | dd of=src/hole bs=1 seek=900000 conv=notrunc 2>/dev/null; truncate -s 2M src/hole
exec 9>src/new; printf 'not a hole' >&9 # nothing of which may be on disk yet
setfattr -n user.curi.type -v Net src/text; chmod 640 src/text; touch -d '2001-02-03 04:05:06.789' src/deep/er src/hole
tar --create --sparse --xattrs --file a.tar src
mkdir out; tar --extract --xattrs --file a.tar --directory out
(cd out && tar --compare --xattrs --file ../a.tar)
diff -r --no-dereference src/deep out/src/deep; cmp src/hole out/src/hole; cmp src/new out/src/new
test "$(stat -c %h:%i:%y:%a out/src/text | cut -d: -f1,3-)" = "$(stat -c %h:%i:%y:%a src/text | cut -d: -f1,3-)"
test "$(stat -c %i out/src/text)" = "$(stat -c %i out/src/deep/hard)"
test "$(getfattr --only-values -n user.curi.type out/src/text)" = Net
tar --create --sparse --file - src | (cd "$2" && tar --extract --file - --directory "$2" && tar --create --file - src | tar --compare --file -); rm -r "$2/src"`},

	"rsync": {[]string{"rsync"}, `
mkdir -p src/a; for i in $(seq 20); do seq $((i * 90)) >src/a/$i; done; ln src/a/1 src/hard; ln -s a/2 src/soft; truncate -s 1M src/hole; setfattr -n user.k -v v src/a/3
for way in "" --inplace "--partial-dir=.p --delay-updates" --sparse; do
    rsync -aHX $way src/ dst/
    echo more >>src/a/7; echo other >src/a/8
    rsync -aHX $way src/ dst/
    test -z "$(rsync -aHXcni --delete src/ dst/)"
    diff -r --no-dereference src dst
done
rsync -aHX --remove-source-files dst/ "$2/moved/"; test -z "$(find dst -type f)"; diff -r src "$2/moved"; rm -r "$2/moved"`},

	"coreutils": {[]string{"dd", "sed", "split", "install"}, `
seq 100000 >a; cp --reflink=auto a b; cmp a b; cp -al a c; cp -a --sparse=always a d; cmp a d; cp --reflink=auto --preserve=all b e; cmp b e
sed -i 's/^7/seven/' b; test "$(grep -c seven b)" = 11111; test "$(grep -c seven c)" = 0
TZ=UTC touch -d '1999-12-31 23:59:59.5' b; test "$(TZ=UTC stat -c %y b)" = '1999-12-31 23:59:59.500000000 +0000'
touch -r b a; test "$(stat -c %y a)" = "$(stat -c %y b)"; test b -ot d
head -c 512K a >whole; dd if=whole of=direct bs=64k oflag=direct conv=fsync 2>/dev/null; cmp whole direct
dd if=direct of=direct2 bs=1M iflag=direct oflag=dsync 2>/dev/null; cmp whole direct2
dd if=/dev/zero of=sparse bs=1 count=0 seek=3M 2>/dev/null; cp sparse sparse2; cmp sparse sparse2; printf z | dd of=sparse bs=1 seek=2M conv=notrunc 2>/dev/null; cp sparse sparse2; cmp sparse sparse2
split -b 100k a part.; cat part.* | cmp - a; sort -R -S 1M -T . a | sort -n -S 1M -T . | cmp - a
install -m 750 a bin; test "$(stat -c %a bin)" = 750; mv a "$2/moved"; cp "$2/moved" a; rm "$2/moved"; ln -sfn a current; ln -sfn b current; test "$(readlink current)" = b
yes | head -c 300000 | tee t1 t2 >t3; cmp t1 t2; cmp t2 t3; shred -n 1 -u t3; truncate -s 10 t1; test "$(wc -c <t1)" = 10
(flock 9; echo locked >lock) 9>l; find . -type f -exec md5sum {} + >sums; md5sum --quiet -c sums 2>/dev/null || grep -v sums sums | md5sum --quiet -c
df . >/dev/null; du -s . >/dev/null; ls -lR >/dev/null; chmod -R go-w .; rm -rf part.*; zip -q -r z.zip .; unzip -tq z.zip`},

	"standard library": {nil, `
cat >all.py <<'PY'
import concurrent.futures, dbm.dumb, fcntl, glob, io, mmap, os, pathlib, pickle, shelve, shutil, sys, tempfile, zipfile
here, other = pathlib.Path('.').resolve(), sys.argv[1]
os.makedirs('tree/a/b'); [pathlib.Path('tree/a', str(i)).write_bytes(os.urandom(i * 700)) for i in range(30)]; os.symlink('a/3', 'tree/link')
shutil.copytree('tree', 'copy', symlinks=True); shutil.move('copy', other + '/copied'); shutil.move(other + '/copied', 'back')
assert all(pathlib.Path('back/a', str(i)).read_bytes() == pathlib.Path('tree/a', str(i)).read_bytes() for i in range(30)) and os.readlink('back/link') == 'a/3'
for form in ('zip', 'tar', 'gztar'): shutil.unpack_archive(shutil.make_archive('arch', form, 'tree'), 'un' + form); assert sorted(os.listdir('un' + form)) == sorted(os.listdir('tree'))
with tempfile.TemporaryDirectory(dir=here) as d, tempfile.TemporaryFile(dir=d) as f, tempfile.NamedTemporaryFile(dir=d) as g, tempfile.SpooledTemporaryFile(10, dir=d) as s:
    for x in (f, g, s): x.write(b'0123456789abc'); x.seek(3); assert x.read(4) == b'3456'
    os.link(g.name, d + '/kept')
z = zipfile.ZipFile('z.zip', 'w', zipfile.ZIP_DEFLATED); [z.write(p) for p in glob.glob('tree/a/[0-9]*')]; z.close()
with zipfile.ZipFile('z.zip', 'a') as z: z.writestr('late', b'x' * 100000)
with zipfile.ZipFile('z.zip') as z: assert z.testzip() is None and len(z.namelist()) == 31
with dbm.dumb.open('d') as d: d.update({str(i): str(i) for i in range(100)})
with dbm.dumb.open('d') as d: assert d['42'] == b'42'
with shelve.open('s') as s: s['x'] = list(range(9999))
with shelve.open('s') as s: assert s['x'][-1] == 9998
def work(i):
    with open('log', 'ab', buffering=0) as f: [f.write(b'%04d %s\n' % (i, b'x' * 90)) for _ in range(50)]
    tmp = 'atomic.%d' % os.getpid(); pathlib.Path(tmp).write_bytes(pickle.dumps([i] * 5000)); fd = os.open(tmp, os.O_RDONLY); os.fsync(fd); os.close(fd); os.replace(tmp, 'atomic')
    got = pickle.load(open('atomic', 'rb')); assert len(set(got)) == 1 and len(got) == 5000
    with open('counter', 'r+b') as f:
        for _ in range(20):
            fcntl.flock(f, fcntl.LOCK_EX); m = mmap.mmap(f.fileno(), 8); m[:] = (int.from_bytes(m[:], 'big') + 1).to_bytes(8, 'big'); m.close(); fcntl.flock(f, fcntl.LOCK_UN)
    return i
pathlib.Path('counter').write_bytes(bytes(8))
with concurrent.futures.ProcessPoolExecutor(4) as pool: assert sorted(pool.map(work, range(12))) == list(range(12))
lines = open('log', 'rb').read().splitlines(); assert len(lines) == 600 and {len(l) for l in lines} == {95}
assert int.from_bytes(open('counter', 'rb').read(), 'big') == 240
PY
$1 all.py "$2"`},

	"torch": {[]string{"torch", "safetensors"}, `
cat >all.py <<'PY'
import os, threading, torch, safetensors.torch as st, numpy as np
from safetensors import safe_open
torch.manual_seed(1); model = {'w': torch.randn(300, 700), 'b': torch.arange(9), 'h': torch.randn(11, dtype=torch.bfloat16)}
same = lambda a, b: set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)
torch.save(model, 'm.pt'); assert same(torch.load('m.pt'), model)
lazy = torch.load('m.pt', mmap=True); torch.save({'w': torch.zeros(5)}, 'tmp.pt'); os.replace('tmp.pt', 'm.pt'); assert same(lazy, model) and torch.load('m.pt')['w'].numel() == 5
torch.save(model, 'old.pt', _use_new_zipfile_serialization=False); assert same(torch.load('old.pt'), model)
st.save_file(model, 'm.safetensors', metadata={'format': 'pt'}); assert same(st.load_file('m.safetensors'), model)
with safe_open('m.safetensors', 'pt') as f: part = f.get_slice('w')[100:200]; os.unlink('m.safetensors'); assert torch.equal(f.get_tensor('w'), model['w']) and torch.equal(part, model['w'][100:200])
t = torch.from_file('shared', shared=True, size=5000); t.fill_(3); del t; assert np.fromfile('shared', 'f4').sum() == 15000
a = np.lib.format.open_memmap('a.npy', 'w+', 'f4', (500, 70)); a[:] = 7; a.flush(); assert np.load('a.npy', mmap_mode='r')[499, 69] == 7; a[0, 0] = 1; del a; assert np.load('a.npy')[0, 0] == 1
np.savez_compressed('z.npz', a=np.arange(9999)); assert np.load('z.npz')['a'][-1] == 9998
PY
$1 all.py`},
}

// testPython is the Python that has the modules of testdata/requirements.txt.
func testPython(t *testing.T) string {
	t.Helper()
	p := os.Getenv("CURI_TEST_PYTHON")
	if p == "" {
		p = python(t)
	}
	return p
}

func runPrograms(t *testing.T, m *mounted, choose func(needs []string) bool, interpreter string) {
	t.Helper()
	at := m.path("at", testKey[:16])
	for name, p := range programs {
		if !choose(p.needs) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for _, need := range p.needs {
				if _, err := exec.LookPath(need); err != nil && exec.Command(interpreter, "-c", "import "+need).Run() != nil {
					skip(t, "needs "+need)
				}
			}
			dir := filepath.Join(at, "work", strings.ReplaceAll(name, " ", "-"))
			run(t, append(slices.Clone(m.within), "mkdir", dir)...)
			run(t, append(slices.Clone(m.within), "sh", "-exc", `cd "$0" && PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE; `+p.script, dir, interpreter, filepath.Join(at, "tmp"))...)
		})
	}
}

func every([]string) bool { return true }

func TestPrograms(t *testing.T) {
	s := newStore(t)
	m := mount(t, s)
	openPlace(t, s, m, testKey, nil)
	runPrograms(t, m, every, testPython(t))
	if st := m.stats(t); m.info.Passthrough && st["writes"]+st["reads"] > 0 {
		t.Errorf("reads and writes reached the server: %v", st)
	}
}

func TestProgramsWithoutPassthrough(t *testing.T) {
	s := newStore(t)
	m := inUserNamespace(t, s)
	openPlace(t, s, m, testKey, nil)
	runPrograms(t, m, every, testPython(t))
}

func TestProgramsWithoutRoot(t *testing.T) {
	s := newStore(t)
	m := asUserWithFusermount(t, s)
	openPlaceOf(t, s, m)
	// What lies in root's home is not for another user.
	runPrograms(t, m, func(needs []string) bool {
		return !slices.ContainsFunc(needs, func(n string) bool { return slices.Contains([]string{"lmdb", "h5py", "torch"}, n) })
	}, python(t))
}

// openPlaceOf makes a place for the user who mounted.
func openPlaceOf(t *testing.T, s *cas.Store, m *mounted) *cas.Place {
	t.Helper()
	p := openPlace(t, s, m, testKey, nil)
	run(t, "chown", "-R", "65534:65534", s.Dir())
	return p
}
