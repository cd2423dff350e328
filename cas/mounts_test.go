package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func init() {
	// serve registers a mount as a server does, without one, and leaves with
	// its last user.
	childRoles["serve"] = func(ctx context.Context, s *Store, args []string) error {
		r, err := s.RegisterMount(ctx, Mount{ID: args[0], Dir: args[1], Auto: true, Reason: "a test", Pending: len(args) > 3})
		if err != nil {
			return err
		}
		fmt.Println("serving")
		if len(args) > 2 {
			untilStdinEnds()
			return r.Close()
		}
		if err := r.Unused(ctx); err != nil {
			return err
		}
		fmt.Println("unused")
		return r.Close()
	}
}

func liveMount(t *testing.T, s *Store, id string) Mount {
	t.Helper()
	live, _, err := s.Mounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range live {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("no live mount %s in %+v", id, live)
	return Mount{}
}

func TestMountLeavesWithItsLastUser(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	dir := t.TempDir()
	c := startChild(t, "serve", s, nil, "m1", dir)
	c.line()
	m := liveMount(t, s, "m1")
	host, _ := os.Hostname()
	if m.Dir != dir || m.PID != c.cmd.Process.Pid || m.Host != host || !m.Auto || m.Reason != "a test" || !m.Reachable() || m.Started.IsZero() {
		t.Errorf("registered as %+v", m)
	}
	one, err := s.Use(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Use(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	// A guard goes on using it when the one that started it is gone.
	guard := startChild(t, "keep", s, []*os.File{one})
	guard.line()
	one.Close()
	two.Close()
	liveMount(t, s, "m1")
	if err := s.ForgetMount(ctx, m); !errors.Is(err, ErrBusy) {
		t.Errorf("forgetting a live mount: %v", err)
	}
	guard.kill()
	if l := c.line(); l != "unused" {
		t.Errorf("the server said %q", l)
	}
	if _, err := s.Use(ctx, m); !errors.Is(err, ErrNotFound) {
		t.Errorf("using a mount that left: %v", err)
	}
	c.rest()
	if live, stale, err := s.Mounts(ctx); err != nil || len(live)+len(stale) != 0 {
		t.Errorf("left over: %+v, %+v, %v", live, stale, err)
	}
	if n := fileCount(t, s, "mounts"); n != 0 {
		t.Errorf("%d files are left in mounts/", n)
	}
}

func TestStaleMount(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	c := startChild(t, "serve", s, nil, "m1", t.TempDir())
	c.line()
	m := liveMount(t, s, "m1")
	c.kill()
	live, stale, err := s.Mounts(ctx)
	if err != nil || len(live) != 0 || len(stale) != 1 || stale[0].ID != "m1" {
		t.Errorf("after kill -9: live %+v, stale %+v, %v", live, stale, err)
	}
	if _, err := s.Use(ctx, m); !errors.Is(err, ErrNotFound) {
		t.Errorf("using a dead mount: %v", err)
	}
	if err := s.ForgetMount(ctx, m); err != nil {
		t.Error(err)
	}
	if _, stale, err := s.Mounts(ctx); err != nil || len(stale) != 0 {
		t.Errorf("still there: %+v, %v", stale, err)
	}
	if err := s.ForgetMount(ctx, m); err != nil {
		t.Errorf("forgetting it again: %v", err)
	}
}

// A mount that is being made, or unmounted, is used by nobody; one whose server
// dies then is known to be left over.
func TestPendingMount(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	none := func(when string) {
		t.Helper()
		if live, stale, err := s.Mounts(ctx); err != nil || len(live)+len(stale) != 0 {
			t.Errorf("%s: %+v, %+v, %v", when, live, stale, err)
		}
	}
	r, err := s.RegisterMount(ctx, Mount{ID: "m1", Dir: "/nowhere", Pending: true})
	if err != nil {
		t.Fatal(err)
	}
	none("while it is made")
	if _, err := s.Use(ctx, r.Mount()); !errors.Is(err, ErrNotFound) {
		t.Errorf("used while it is made: %v", err)
	}
	if err := r.Serve(Mount{Device: "0:99", Reason: "a test"}); err != nil {
		t.Fatal(err)
	}
	m := liveMount(t, s, "m1")
	if m.Device != "0:99" || m.Reason != "a test" || m.Dir != "/nowhere" {
		t.Errorf("it serves as %+v", m)
	}
	use, err := s.Use(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	use.Close()
	if err := r.Leave(); err != nil {
		t.Fatal(err)
	}
	none("while it is unmounted")
	if _, err := s.Use(ctx, m); !errors.Is(err, ErrNotFound) || !s.Serves(m) {
		t.Errorf("used while it is unmounted: %v", err)
	}
	if err := r.Close(); err != nil || s.Serves(m) {
		t.Errorf("closing: %v", err)
	}
	none("after its end")

	c := startChild(t, "serve", s, nil, "m2", t.TempDir(), "until the end", "pending")
	c.line()
	c.kill()
	if _, stale, err := s.Mounts(ctx); err != nil || len(stale) != 1 || stale[0].ID != "m2" {
		t.Errorf("killed while it was made: %+v, %v", stale, err)
	}
}

// No Use may succeed on a mount that has decided to leave.
func TestUseAgainstUnused(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	for i := range 30 {
		r, err := s.RegisterMount(ctx, Mount{ID: fmt.Sprint("m", i), Dir: "/nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		m := liveMount(t, s, r.ID())
		first, err := s.Use(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan error, 1)
		go func() { left <- r.Unused(ctx) }()
		used := make(chan *os.File, 1)
		go func() {
			f, err := s.Use(ctx, m)
			if err != nil && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
			used <- f
		}()
		first.Close()
		if f := <-used; f != nil {
			select {
			case err := <-left:
				t.Fatalf("the mount left (%v) while it is used", err)
			case <-time.After(5 * time.Millisecond):
			}
			f.Close()
		}
		if err := <-left; err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnusedEndsWithContext(t *testing.T) {
	s := newTestStore(t)
	r, err := s.RegisterMount(t.Context(), Mount{Dir: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Use(t.Context(), liveMount(t, s, r.ID()))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := r.Unused(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	liveMount(t, s, r.ID())
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestRegisterMountRefuses(t *testing.T) {
	s := newTestStore(t)
	for _, m := range []Mount{{ID: "../x", Dir: "/a"}, {ID: "a/b", Dir: "/a"}, {ID: "x", Dir: "relative"}} {
		if _, err := s.RegisterMount(t.Context(), m); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if err := os.WriteFile(s.mountPath("bad"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if live, stale, err := s.Mounts(t.Context()); err != nil || len(live)+len(stale) != 0 {
		t.Errorf("beside a bad registration: %+v %+v %v", live, stale, err)
	}
}

func TestRefreshCountsChanges(t *testing.T) {
	s := newTestStore(t)
	// A mount whose directory answers no refresh must not make a change fail.
	c := startChild(t, "serve", s, nil, "m1", t.TempDir(), "until the end")
	c.line()
	changed := filepath.Join(s.Dir(), ChangedFile)
	var inode os.FileInfo
	for i := 1; i <= 3; i++ {
		if err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(changed)
		if err != nil || strings.TrimLeft(string(b), "0") != fmt.Sprintln(i) {
			t.Errorf("after %d changes: %q, %v", i, b, err)
		}
		fi, err := os.Stat(changed)
		if err != nil || inode != nil && !os.SameFile(fi, inode) {
			t.Errorf("the file that mounts watch was replaced: %v", err)
		}
		inode = fi
	}
	c.rest()
}
