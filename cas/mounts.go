package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Mount is a live FUSE mount of the store on this host, as its server
// registered it in STORE/mounts/<ID>.json, or where it cannot write there in
// the [UserDir] of its user.
type Mount struct {
	ID          string `json:"id"`
	Dir         string `json:"dir"` // absolute
	PID         int    `json:"pid"`
	Host        string `json:"host"`
	BootID      string `json:"boot_id"`
	UID         int    `json:"uid"`
	MountNS     uint64 `json:"mount_ns"` // inode of /proc/self/ns/mnt
	Device      string `json:"device"`   // MAJOR:MINOR of the mounted filesystem; "" if unknown
	Auto        bool   `json:"auto"`     // leaves with its last user
	AllowOther  bool   `json:"allow_other"`
	Passthrough bool   `json:"passthrough"`
	Reason      string `json:"reason"`  // why passthrough is off; "" when on
	Metrics     string `json:"metrics"` // HOST:PORT where the server tells its counters by HTTP; "" if nowhere
	// Trees is where this host opens a mount namespace whose root shows trees
	// of small files by digest, faster than Dir does; "" without one.
	Trees   string    `json:"trees,omitempty"`
	Started time.Time `json:"started"`
	// Pending: it is not to be used yet, or no more. While its server mounts
	// and unmounts, the kernel may show it; if the server dies then, somebody
	// has to know of it.
	Pending bool `json:"pending,omitempty"`
}

// Reachable reports whether this process finds the mount at its Dir, in this
// mount namespace or in another one that has it there too, such as that of a
// run: it has neither been detached here while another namespace keeps its
// server alive, nor been mounted over. It never touches Dir, whose server may
// hang.
func (m Mount) Reachable() bool {
	if m.Device == "" {
		return m.SameNamespace()
	}
	return mountedDevice(m.Dir) == m.Device
}

// askable reports whether this process can ask the mount's server something
// through the mount. A server that asked itself would wait for ever.
func (m Mount) askable() bool { return m.Reachable() && m.PID != os.Getpid() }

// SameNamespace reports whether the mount was made in this process's mount
// namespace, whether or not it is still there.
func (m Mount) SameNamespace() bool { return m.MountNS == mountNamespace() }

// firstUse is how long a mount waits for its first [Store.Use].
const firstUse = 30 * time.Second

// Registration is a registered mount; the registration's lock dies with the
// process.
type Registration struct {
	s  *Store
	f  *os.File
	id string
	m  Mount
}

// RegisterMount announces a mount: one that serves, or with m.Pending one that
// is about to be made. What m leaves empty of ID, PID, Host, BootID, UID,
// MountNS and Started is filled in from this process.
func (s *Store) RegisterMount(ctx context.Context, m Mount) (*Registration, error) {
	host := thisHost()
	if m.ID == "" {
		m.ID = NewMountID()
	}
	if why := badComponent(m.ID); why != "" {
		return nil, fmt.Errorf("register mount %q: its id %s: %w", m.ID, why, ErrInvalid)
	}
	if !filepath.IsAbs(m.Dir) || !utf8.ValidString(m.Dir) {
		return nil, fmt.Errorf("register mount %s: %q is not an absolute path in UTF-8: %w", m.ID, m.Dir, ErrInvalid)
	}
	if m.Host == "" {
		m.Host, m.BootID = host.name, host.boot
	}
	if m.PID == 0 {
		m.PID, m.UID = os.Getpid(), os.Getuid()
	}
	if m.MountNS == 0 {
		m.MountNS = mountNamespace()
	}
	if m.Started.IsZero() {
		m.Started = now()
	}
	b, err := encodeJSON(m)
	if err == nil {
		b, err = encodeMount(m, len(b)+mountSpare)
	}
	if err != nil {
		return nil, err
	}
	f, err := s.lockedFile(filepath.Join(s.dir, "mounts", m.ID+".json"), b)
	if cannotWrite(err) {
		f, err = s.registerOutside(m.ID, b)
	}
	if err != nil {
		return nil, fmt.Errorf("register mount of %s at %s: %w", s.dir, m.Dir, err)
	}
	return &Registration{s, f, m.ID, m}, nil
}

// NewMountID returns a random ID for a mount, 16 hex digits.
func NewMountID() string { return randomHex(8) }

// Serve announces that a pending mount serves, as m says.
func (r *Registration) Serve(m Mount) error {
	now := r.m
	now.Device, now.Passthrough, now.Reason, now.Trees, now.Pending = m.Device, m.Passthrough, m.Reason, m.Trees, false
	return r.rewrite(now)
}

// Leave announces that the mount is about to go: nobody begins to use it any
// more. Close ends the registration when it is gone.
func (r *Registration) Leave() error {
	if r.m.Pending {
		return nil
	}
	now := r.m
	now.Pending = true
	return r.rewrite(now)
}

// mountSpare is how many bytes a registration is longer than what it says
// first, for what it says later.
const mountSpare = 512

// rewrite overwrites the registration whole, by one write: it needs no space on
// the disk, and the file's lock is held all the time.
func (r *Registration) rewrite(m Mount) error {
	fi, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("register mount of %s at %s: %w", r.s.dir, m.Dir, err)
	}
	b, err := encodeMount(m, int(fi.Size()))
	if err == nil {
		_, err = r.f.WriteAt(b, 0)
	}
	if err != nil {
		return fmt.Errorf("register mount of %s at %s: %w", r.s.dir, m.Dir, storeError(err))
	}
	r.m = m
	return nil
}

// encodeMount pads a registration to size.
func encodeMount(m Mount, size int) ([]byte, error) {
	b, err := encodeJSON(m)
	if err != nil {
		return nil, err
	}
	if len(b) > size {
		return nil, fmt.Errorf("%d bytes do not fit: %w", len(b), ErrInvalid)
	}
	b = append(b[:len(b)-1], bytes.Repeat([]byte{' '}, size-len(b))...)
	return append(b, '\n'), nil
}

// ID of the registered mount.
func (r *Registration) ID() string { return r.id }

// Mount is what was registered, with all that was filled in.
func (r *Registration) Mount() Mount { return r.m }

// Unused blocks until no [Store.Use] of the mount is left and none can begin
// any more, as after Leave; or until ctx ends. A mount that
// nobody has used yet is given 30 s for the first use.
func (r *Registration) Unused(ctx context.Context) error {
	users := r.s.mountUsers(r.id)
	// Use makes the file, and puts a byte into it once it holds the lock: the
	// lock is not to be had in between.
	for end := time.Now().Add(firstUse); time.Now().Before(end); {
		if fi, err := os.Stat(users); err == nil && fi.Size() > 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	f, err := r.s.openLockFile(users)
	if err != nil {
		return fmt.Errorf("wait for the users of mount %s: %w", r.id, err)
	}
	if err := flockContext(ctx, f, unix.LOCK_EX); err != nil {
		return err
	}
	defer f.Close()
	return r.Leave()
}

// Close withdraws the registration.
func (r *Registration) Close() error {
	users := r.s.mountUsers(r.id)
	err := os.Remove(r.f.Name())
	if err == nil || noFile(err) {
		// A Use that has it open finds the registration gone.
		err = os.Remove(users)
	}
	if noFile(err) {
		err = nil
	}
	if cerr := r.f.Close(); err == nil && !errors.Is(cerr, os.ErrClosed) {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("withdraw mount %s: %w", r.id, err)
	}
	return nil
}

// Mounts lists the live mounts of this host and, with stale, those whose
// server is dead though registered; neither has one that is being made or
// unmounted. A mount may be in another mount namespace: see [Mount.Reachable].
func (s *Store) Mounts(ctx context.Context) (live, stale []Mount, err error) {
	ids, err := s.mountIDs()
	if err != nil {
		return nil, nil, fmt.Errorf("list mounts: %w", err)
	}
	for _, id := range ids {
		m, alive, err := s.readMount(id)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			s.log.Warn("a mount's registration cannot be read", "err", err)
		case alive && m.Pending:
		case alive && sameKernel(m.Host, m.BootID):
			live = append(live, m)
		case !alive && (sameKernel(m.Host, m.BootID) || m.Host == thisHost().name):
			stale = append(stale, m)
		}
	}
	return live, stale, nil
}

// readMount reads a registration and whether its server lives.
func (s *Store) readMount(id string) (m Mount, live bool, err error) {
	path := s.mountPath(id)
	f, err := os.Open(path)
	if noFile(err) {
		return m, false, fmt.Errorf("mount %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return m, false, fmt.Errorf("mount %s: %w", id, err)
	}
	defer f.Close()
	err = readJSON(path, &m)
	if errors.Is(err, ErrCorrupt) {
		err = readJSON(path, &m) // the first look may have met a rewrite
	}
	if noFile(err) {
		return m, false, fmt.Errorf("mount %s: %w", id, ErrNotFound)
	} else if err != nil {
		return m, false, fmt.Errorf("mount %s: %w", id, err)
	}
	if m.ID != id || !filepath.IsAbs(m.Dir) {
		return m, false, fmt.Errorf("mount %s: %s: %w: registers %q at %q", id, path, ErrCorrupt, m.ID, m.Dir)
	}
	free, err := tryFlock(f, unix.LOCK_SH)
	return m, err == nil && !free, err
}

// Serves reports whether the server of a registered mount lives, and be it that
// it mounts or unmounts just now.
func (s *Store) Serves(m Mount) bool {
	_, live, err := s.readMount(m.ID)
	return err == nil && live
}

// ForgetMount removes the registration of a mount whose server is dead; one
// that lives is [ErrBusy].
func (s *Store) ForgetMount(ctx context.Context, m Mount) error {
	_, live, err := s.readMount(m.ID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if live {
		return fmt.Errorf("forget mount %s at %s: its server, process %d, lives: %w", m.ID, m.Dir, m.PID, ErrBusy)
	}
	for _, path := range []string{s.mountUsers(m.ID), s.mountPath(m.ID)} {
		if err := os.Remove(path); err != nil && !noFile(err) {
			return fmt.Errorf("forget mount %s: %w", m.ID, err)
		}
	}
	return nil
}

// InUse reports whether anybody holds the mount by [Store.Use].
func (s *Store) InUse(ctx context.Context, m Mount) (bool, error) {
	f, err := os.OpenFile(s.mountUsers(m.ID), os.O_RDWR, 0)
	if noFile(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look who uses mount %s at %s: %w", m.ID, m.Dir, err)
	}
	defer f.Close()
	free, err := tryFlock(f, unix.LOCK_EX)
	return err == nil && !free, err
}

// Use holds a mount: an Auto one stays while the returned descriptor is open
// in any process. [ErrNotFound] if it is leaving or dead.
func (s *Store) Use(ctx context.Context, m Mount) (*os.File, error) {
	gone := fmt.Errorf("mount %s at %s is leaving: %w", m.ID, m.Dir, ErrNotFound)
	if now, live, err := s.readMount(m.ID); err != nil {
		return nil, err
	} else if !live || now.Pending {
		return nil, gone
	}
	f, err := s.openLockFile(s.mountUsers(m.ID))
	if err != nil {
		return nil, fmt.Errorf("use mount %s: %w", m.ID, err)
	}
	ok, err := tryFlock(f, unix.LOCK_SH)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("use mount %s: %w", m.ID, err)
	}
	// The mount may have left between the look and the lock.
	now, live, err := s.readMount(m.ID)
	if !ok || err != nil || !live || now.Pending || !sameFile(f, f.Name()) {
		f.Close()
		if errors.Is(err, ErrNotFound) {
			os.Remove(f.Name()) // it may have been made again just now; no ID is used twice
		} else if err != nil {
			return nil, err
		}
		return nil, gone
	}
	if _, err := f.WriteAt([]byte{'\n'}, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("use mount %s: %w", m.ID, storeError(err))
	}
	return f, nil
}
