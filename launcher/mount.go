package launcher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// startTime is how long curifs may take to serve; leaveTime how long a mount
// that nobody uses any more may take to go.
const (
	startTime = 30 * time.Second
	leaveTime = 20 * time.Second
)

// heldMount is a mount that stays while use is open in any process.
type heldMount struct {
	cas.Mount
	use *os.File
}

// usable reports whether this process can work in the mount.
func usable(m cas.Mount) bool {
	return m.Reachable() && (m.UID == os.Geteuid() || m.AllowOther)
}

// rootIn is {root} of a key below a directory that shows the store.
func rootIn(dir, key string) string { return filepath.Join(dir, "at", cas.ShortKey(key)) }

// shortEnough reports whether TMPDIR below root is.
func shortEnough(root string) bool { return len(filepath.Join(root, "tmp")) <= maxTmp }

// autoDir is where exec mounts this store by itself.
func autoDir(s *cas.Store) string { return filepath.Join(cas.UserDir(), s.ID()[:8]) }

// useMount returns a mount of the store in which key's places have a short
// path: the one of the last try, so that {root} stays, else one that is up,
// else a new one.
func (e *execution) useMount(ctx context.Context, lastRoot string) (*heldMount, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("%w: there are no mounts on %s: use --no-mount", ErrMount, runtime.GOOS)
	}
	for {
		live, _, err := e.s.Mounts(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMount, err)
		}
		best := e.pickMount(live, lastRoot)
		if best == nil {
			m, err := e.startMount(ctx)
			if err != nil {
				return nil, err
			}
			best = &m
			fault.At(fault.MountServing)
		}
		use, err := e.s.Use(ctx, *best)
		if err == nil {
			return &heldMount{*best, use}, nil
		}
		if !errors.Is(err, cas.ErrNotFound) {
			return nil, fmt.Errorf("%w: %w", ErrMount, err)
		}
		// It is leaving: look again.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pickMount picks what useMount takes of the live mounts; nil if it is to make
// one of its own.
func (e *execution) pickMount(live []cas.Mount, lastRoot string) *cas.Mount {
	key := e.p.Key.String()
	var best *cas.Mount
	for i, m := range live {
		root := rootIn(m.Dir, key)
		if !usable(m) || !shortEnough(root) || e.leavesWithJob(m) {
			continue
		}
		if best == nil || root == lastRoot || best.Auto && !m.Auto && rootIn(best.Dir, key) != lastRoot {
			best = &live[i]
		}
	}
	// The last try had a mount of exec's own: this one gets it again.
	if best != nil && lastRoot == rootIn(autoDir(e.s), key) && rootIn(best.Dir, key) != lastRoot {
		return nil
	}
	return best
}

// startMount starts curifs at the fixed place. Of several calls that want
// that at once one starts it, the others find it.
func (e *execution) startMount(ctx context.Context) (cas.Mount, error) {
	if err := cas.MakeUserDir(); err != nil {
		return cas.Mount{}, fmt.Errorf("%w: %w", ErrMount, err)
	}
	lock, err := e.s.Lock(ctx, "mount/"+strconv.Itoa(os.Geteuid()), "start a mount", func(cas.Holder) error { return nil })
	if err != nil {
		return cas.Mount{}, fmt.Errorf("%w: %w", ErrMount, err)
	}
	defer lock.Release()
	sweepLogs(cas.UserDir())
	dir := autoDir(e.s)
	live, _, err := e.s.Mounts(ctx)
	if err != nil {
		return cas.Mount{}, fmt.Errorf("%w: %w", ErrMount, err)
	}
	for _, m := range live {
		if m.Dir != dir || !usable(m) {
			continue
		}
		if !e.leavesWithJob(m) {
			return m, nil
		}
		dir += "-" + e.slurmID()
		break
	}
	if err := e.clearMountPoint(ctx, dir); err != nil {
		return cas.Mount{}, err
	}
	below, err := os.Open(dir)
	if err != nil {
		return cas.Mount{}, fmt.Errorf("%w: open the mount point: %w", ErrMount, err)
	}
	defer below.Close()
	// fusermount3 wants a mount point that its user may write; below the mount
	// it is closed again.
	if err := below.Chmod(0o700); err != nil {
		return cas.Mount{}, fmt.Errorf("%w: %w", ErrMount, err)
	}
	defer func() { _ = below.Chmod(0o500) }()
	fault.At(fault.MountStarting)
	return e.startCurifs(ctx, dir)
}

// unusedFor is how old a log must be before it is swept.
const unusedFor = 24 * time.Hour

// sweepLogs removes logs of mounts that said nothing for a day. Mount points
// stay, empty as they are: one may be in use in another mount namespace, and
// the kernel lets it be removed here and takes the mount away there.
func sweepLogs(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue // not even looked at: a server may hang
		}
		if fi, err := entry.Info(); err == nil && fault.Now().Sub(fi.ModTime()) > unusedFor {
			_ = os.Remove(filepath.Join(dir, entry.Name()))
		}
	}
}

// clearMountPoint makes dir an empty directory that nothing is mounted on. A
// mount that is leaving is awaited, one whose server died is taken away; any
// other is refused.
func (e *execution) clearMountPoint(ctx context.Context, dir string) error {
	for deadline := time.Now().Add(leaveTime); ; {
		m, mounted := mountedAt(dir)
		if !mounted {
			break
		}
		ours := strings.HasPrefix(m.fstype, "fuse") && m.uid == os.Geteuid()
		if !ours {
			return fmt.Errorf("%w: %s is mounted at %s, which is Curi's: unmount it", ErrMount, m.fstype, dir)
		}
		if DeadMount(dir) {
			if err := detach(dir); err != nil {
				return fmt.Errorf("%w: take away the dead mount at %s: %w: run curi umount --stale", ErrMount, dir, err)
			}
			continue
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: the mount at %s serves but is not this store's own: run curi umount %s", ErrMount, dir, dir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	_, stale, err := e.s.Mounts(ctx)
	if err == nil {
		for _, m := range stale {
			if m.Dir == dir {
				_ = e.s.ForgetMount(ctx, m) // a registration of nothing; others show it too
			}
		}
	}
	// Unwritable: nothing must land below a mount that died.
	if err := os.Mkdir(dir, 0o500); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: make the mount point: %w", ErrMount, err)
	}
	return nil
}

// curifs finds the program that serves mounts.
func (o *Options) curifs() (string, error) {
	if o.Curifs != "" {
		return o.Curifs, nil
	}
	if o.Self != "" {
		beside := filepath.Join(filepath.Dir(o.Self), "curifs")
		if fi, err := os.Stat(beside); err == nil && fi.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("curifs")
	if err != nil {
		return "", fmt.Errorf("%w: the program curifs is neither beside %s nor in PATH: install it, or use --no-mount", ErrMount, o.Self)
	}
	return path, nil
}

// startCurifs starts the server and waits until it serves.
func (e *execution) startCurifs(ctx context.Context, dir string) (cas.Mount, error) {
	var m cas.Mount
	program, err := e.o.curifs()
	if err != nil {
		return m, err
	}
	ready, readyW, err := os.Pipe()
	if err != nil {
		return m, fmt.Errorf("%w: start %s: %w", ErrMount, program, err)
	}
	defer ready.Close()
	logPath := dir + ".log"
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		readyW.Close()
		return m, fmt.Errorf("%w: start %s: %w", ErrMount, program, err)
	}
	defer log.Close()
	cmd := exec.Command(program, e.s.Dir(), dir, "-o", "auto", "--ready-fd", "3")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{readyW}
	cmd.Dir = "/" // it must not keep the caller's filesystem busy
	cmd.Env = withoutRun(e.o.Environ)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this call
	err = cmd.Start()
	readyW.Close()
	if err != nil {
		return m, fmt.Errorf("%w: start %s: %w", ErrMount, program, err)
	}
	answer := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(ready)
		answer <- b.Bytes()
	}()
	go func() { _ = cmd.Wait() }() // else a zombie, while this call lasts
	var b []byte
	select {
	case b = <-answer:
	case <-time.After(startTime):
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return m, fmt.Errorf("%w: %s did not serve %s within %s; its log is %s; --no-mount works without", ErrMount, program, dir, startTime, logPath)
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return m, ctx.Err()
	}
	var reply struct {
		cas.Mount
		Error string `json:"error"`
	}
	if err := json.Unmarshal(b, &reply); err != nil || reply.Error == "" && reply.ID == "" {
		text, _ := os.ReadFile(logPath)
		why := strings.Join(strings.Fields(string(text)), " ")
		if why == "" {
			why = "it ended without a word"
		}
		return m, fmt.Errorf("%w: %s could not serve %s: %s; --no-mount works without", ErrMount, program, dir, why)
	}
	if reply.Error != "" {
		return m, fmt.Errorf("%w: %s; --no-mount works without", ErrMount, reply.Error)
	}
	return reply.Mount, nil
}

// alive reports whether the mount still serves: its server answers, and nothing
// else is mounted there. That is the kernel's to say: the registration is a file
// of the store, whose filesystem may be in trouble without the mount being so.
func (h *heldMount) alive() bool { return h.Reachable() && !DeadMount(h.Dir) }
