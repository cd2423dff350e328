//go:build linux

package fusefs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A user whose directory a place's is on disk can put a link where the server
// has just made something for him; the server must not hand over what the link
// leads to.
func TestServerFollowsNoLinkPutInPlaceOfWhatItMade(t *testing.T) {
	s := newStore(t)
	m := mount(t, s, "-o", "allow_other")
	p := openPlace(t, s, m, testKey, nil)
	disk := filepath.Join(p.Dir(), "work/a")
	if err := os.Chmod(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(filepath.Dir(s.Dir()), "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const swap = `import os, sys
disk, victim = sys.argv[1:]
os.symlink(victim, disk + '/l')
print('ready', flush=True)
while True:
    try:
        os.rename(disk + '/d', disk + '/gone')
        os.rename(disk + '/l', disk + '/d')
        os.symlink(victim, disk + '/l')
    except OSError: pass
    try: os.rmdir(disk + '/gone')
    except OSError: pass`
	attacker := exec.Command(asNobody[0], append(asNobody[1:], python(t), "-c", swap, disk, victim)...)
	ready, err := attacker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attacker.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { attacker.Process.Kill(); attacker.Wait() }()
	if _, err := ready.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	const mkdirs = `import os, sys
os.umask(0)
for i in range(3000):
    try: os.mkdir(sys.argv[1] + '/d', 0o777)
    except OSError: pass
    for remove in os.unlink, os.rmdir:
        try: remove(sys.argv[1] + '/d')
        except OSError: pass`
	run(t, append(asNobody, python(t), "-c", mkdirs, m.path("at", testKey[:16], "work/a"))...)
	var st syscall.Stat_t
	if err := syscall.Lstat(victim, &st); err != nil || st.Mode&0o7777 != 0o600 || st.Uid != 0 {
		t.Errorf("the victim has mode %o and owner %d: %v", st.Mode, st.Uid, err)
	}
}
