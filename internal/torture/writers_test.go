//go:build linux

package torture

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writerEnv makes the test binary one of the programs that race a seal: it
// holds a [writer] as JSON.
const writerEnv = "TORTURE_WRITER"

// writer is a program that writes where a run's outputs are.
type writer struct {
	Role string // stage: the run's command; leftover, poker, receiver
	Out  string // directory of the output
	Work string
	Side string // directory in which the stage says where it is
	Seed uint64
	// Disk: Out lies on the disk itself. A root process that once had a file
	// open there can open it again for writing wherever it went, and so can
	// the owner: nothing but a mount stands in between.
	Disk bool
	Hold bool // poker: keep files open for longer than a seal waits
}

const sealedFiles = 6

// writerMain is the program.
func writerMain(text string) int {
	var w writer
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	if len(os.Args) == 3 {
		w.Out, w.Work = os.Args[1], os.Args[2]
	}
	random := rand.New(rand.NewPCG(w.Seed, uint64(os.Getpid())))
	switch w.Role {
	case "stage":
		return w.stage(random)
	case "receiver":
		receive(random)
	case "leftover":
		w.poke(random, nil, func() bool { return true })
	case "poker":
		to, stop := w.receiver()
		defer stop()
		parent := os.Getppid()
		w.poke(random, to, func() bool { return os.Getppid() == parent })
	}
	return 0
}

// another starts the test binary again in a role; the child has fds from 3 on.
func (w writer) another(role string, attr *syscall.SysProcAttr, fds ...*os.File) (*exec.Cmd, error) {
	w.Role = role
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), w.env())
	cmd.ExtraFiles, cmd.SysProcAttr = fds, attr
	return cmd, cmd.Start()
}

// env is how a program learns what it is.
func (w writer) env() string {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err)
	}
	return writerEnv + "=" + string(b)
}

// stage is the run's command: it writes the outputs in the ways of trainers
// and leaves behind what it should not.
func (w writer) stage(random *rand.Rand) int {
	_ = os.WriteFile(w.Side+"/pid", fmt.Append(nil, os.Getpid()), 0o644)
	_ = os.WriteFile(w.Side+"/places", []byte(w.Out+"\n"+w.Work), 0o644)
	for i := range sealedFiles {
		f, err := os.OpenFile(w.file(i), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		data := noise(random, 1<<(6+random.IntN(15)))
		if _, err := f.Write(data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if random.IntN(3) == 0 {
			if m, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				store(m, random)
				_ = unix.Munmap(m)
			}
		}
		f.Close()
	}
	// In a session of its own, and with a parent that is gone.
	for range random.IntN(3) {
		if _, err := w.another("leftover", &syscall.SysProcAttr{Setsid: true}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
	return 0
}

func (w writer) file(i int) string { return fmt.Sprintf("%s/f%d", w.Out, i) }

func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		v := random.Uint64()
		for j := i; j < min(i+8, n); j++ {
			b[j] = byte(v >> (8 * (j - i)))
		}
	}
	return b
}

// receiver starts the process to which descriptors are passed.
func (w writer) receiver() (to *os.File, stop func()) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	mine, its := os.NewFile(uintptr(pair[0]), "to"), os.NewFile(uintptr(pair[1]), "from")
	cmd, err := w.another("receiver", nil, its)
	if err != nil {
		panic(err)
	}
	its.Close()
	return mine, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// receive writes to the files that are passed to it, some time later.
func receive(random *rand.Rand) {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		_, n, _, _, err := unix.Recvmsg(3, make([]byte, 1), oob, 0)
		if err != nil || n == 0 {
			return
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil || len(msgs) == 0 {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			pause(random)
			_, _ = unix.Pwrite(fd, noise(random, 100), int64(random.IntN(1000)))
			unix.Close(fd)
		}
	}
}

func pause(random *rand.Rand) {
	time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
}

// poke writes in every way there is, until goOn says no.
func (w writer) poke(random *rand.Rand, to *os.File, goOn func() bool) {
	var kept []*os.File // readers, to be tried as writers later
	ways := []func(path string){
		func(p string) { w.withFile(random, p, os.O_RDWR, scribble) },
		func(p string) { w.withFile(random, p, os.O_WRONLY|unix.O_NONBLOCK, scribble) },
		func(p string) { w.withFile(random, p, os.O_WRONLY|os.O_APPEND, scribble) },
		func(p string) { w.withFile(random, p, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, scribble) },
		func(p string) { w.withFile(random, p, os.O_RDWR, mapped) },
		func(p string) { w.withFile(random, p, os.O_RDWR, inFlight) },
		func(p string) { w.withFile(random, p, os.O_RDWR, duplicated) },
		func(p string) { w.withFile(random, p, os.O_RDWR, cut) },
		func(p string) {
			w.withFile(random, p, os.O_RDWR, func(_ *rand.Rand, f *os.File) {
				if to != nil {
					_ = unix.Sendmsg(int(to.Fd()), []byte{1}, unix.UnixRights(int(f.Fd())), nil, unix.MSG_DONTWAIT)
				}
			})
		},
		func(p string) { _ = os.Truncate(p, int64(random.IntN(5000))) },
		func(p string) { w.throughLink(random, p) },
		func(p string) { w.renameOver(random, p) },
		func(p string) { w.exchange(random, p) },
		func(p string) { _ = unix.Setxattr(p, "user.curi.poked", noise(random, 8), 0) },
		func(p string) { _ = os.Chmod(p, 0o666) },
		func(p string) { _ = os.Chtimes(p, time.Unix(1, 0), time.Unix(1, 0)) },
		func(string) { w.otherProcess(random) },
		func(p string) {
			if f, err := os.Open(p); err == nil {
				kept = append(kept, f)
			}
			if len(kept) > 8 {
				w.reopen(random, kept[0])
				kept[0].Close()
				kept = kept[1:]
			}
		},
	}
	for goOn() {
		// In bursts, so that now and then a seal finds nobody.
		for range 1 + random.IntN(20) {
			ways[random.IntN(len(ways))](w.file(random.IntN(sealedFiles)))
		}
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
	}
}

// withFile opens a file and does something with it, at once and a little later.
func (w writer) withFile(random *rand.Rand, path string, flags int, do func(*rand.Rand, *os.File)) {
	f, err := os.OpenFile(path, flags, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	if random.IntN(2) == 0 {
		pause(random)
	}
	do(random, f)
	if w.Hold && random.IntN(40) == 0 {
		time.Sleep(3 * time.Second)
		do(random, f)
	}
}

func scribble(random *rand.Rand, f *os.File) {
	_, _ = f.Write(noise(random, 1+random.IntN(5000)))
	_, _ = unix.Pwrite(int(f.Fd()), noise(random, 100), int64(random.IntN(1<<15)))
}

// mapped writes by a mapping that outlives the descriptor.
func mapped(random *rand.Rand, f *os.File) {
	fi, err := f.Stat()
	if err != nil || fi.Size() < 1 {
		return
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(min(fi.Size(), 1<<16)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return
	}
	f.Close()
	for range 4 {
		store(m, random)
		if random.IntN(2) == 0 {
			pause(random)
		}
	}
	_ = unix.Munmap(m)
}

// store writes into a mapping whose file others may cut.
func store(m []byte, random *rand.Rand) {
	defer debugFaults()()
	defer func() { _ = recover() }()
	copy(m[random.IntN(len(m)):], noise(random, 64))
}

// inFlight closes the file while other threads write to it.
func inFlight(random *rand.Rand, f *os.File) {
	var wg sync.WaitGroup
	fd := int(f.Fd())
	data := noise(random, 1<<18)
	for i := range 3 {
		wg.Go(func() { _, _ = unix.Pwrite(fd, data, int64(i)<<17) })
	}
	f.Close()
	wg.Wait()
}

// duplicated writes by a copy of a descriptor that is closed.
func duplicated(random *rand.Rand, f *os.File) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	f.Close()
	pause(random)
	_, _ = unix.Pwrite(fd, noise(random, 300), 0)
}

// cut changes the length, or what is in the midst, without a write.
func cut(random *rand.Rand, f *os.File) {
	switch random.IntN(4) {
	case 0:
		_ = f.Truncate(int64(random.IntN(1 << 15)))
	case 1:
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
	case 2:
		_ = unix.Fallocate(int(f.Fd()), 0, 0, 1<<16)
	default:
		from, to := int64(0), int64(4096)
		_, _ = unix.CopyFileRange(int(f.Fd()), &from, int(f.Fd()), &to, 2048, 0)
	}
}

// throughLink writes by another name of the file.
func (w writer) throughLink(random *rand.Rand, path string) {
	dir := w.Out
	if random.IntN(2) == 0 {
		dir = w.Work
	}
	link := fmt.Sprintf("%s/l%d", dir, os.Getpid())
	_ = os.Remove(link)
	if os.Link(path, link) != nil {
		return
	}
	if random.IntN(2) == 0 {
		pause(random)
	}
	w.withFile(random, link, os.O_RDWR, scribble)
	if random.IntN(4) > 0 {
		_ = os.Remove(link)
	}
}

// renameOver replaces the file as those do who write carefully.
func (w writer) renameOver(random *rand.Rand, path string) {
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	scribble(random, f)
	_ = os.Rename(tmp, path)
	scribble(random, f)
	f.Close()
	_ = os.Remove(tmp)
}

// exchange lets two files change places.
func (w writer) exchange(random *rand.Rand, path string) {
	_ = unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, w.file(random.IntN(sealedFiles)), unix.RENAME_EXCHANGE)
}

// otherProcess writes by what the run's command has open.
func (w writer) otherProcess(random *rand.Rand) {
	pid, err := os.ReadFile(w.Side + "/pid")
	if err != nil {
		return
	}
	fds, _ := filepath.Glob("/proc/" + string(pid) + "/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, w.Out+"/") {
			w.withFile(random, fd, os.O_RDWR, scribble)
		}
	}
}

// reopen tries to get from a reader to a writer, long after.
func (w writer) reopen(random *rand.Rand, reader *os.File) {
	if w.Disk {
		return
	}
	path := fmt.Sprintf("/proc/self/fd/%d", reader.Fd())
	switch random.IntN(4) {
	case 0:
		link := fmt.Sprintf("%s/r%d", w.Work, os.Getpid())
		if unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, link, unix.AT_SYMLINK_FOLLOW) == nil {
			w.withFile(random, link, os.O_RDWR, scribble)
			_ = os.Remove(link)
		}
	case 1:
		_ = os.Truncate(path, 10)
	case 2:
		_ = unix.Fchmod(int(reader.Fd()), 0o666)
	default:
		w.withFile(random, path, os.O_RDWR, scribble)
	}
	if _, err := unix.Pwrite(int(reader.Fd()), []byte("x"), 0); err == nil || errors.Is(err, unix.EPERM) {
		fmt.Fprintln(os.Stderr, "wrote through a reader:", err)
	}
}
