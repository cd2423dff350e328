package cas

import (
	"bytes"
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
	childRoles["hold"] = func(ctx context.Context, s *Store, args []string) error {
		if _, err := s.Lock(ctx, args[0], "run of a child", nil); err != nil {
			return err
		}
		fmt.Println("held")
		untilStdinEnds()
		return nil
	}
	childRoles["inherit"] = func(ctx context.Context, s *Store, args []string) error {
		l := AdoptLock(os.NewFile(3, "inherited"))
		if err := l.SetHolder("the heir"); err != nil {
			return err
		}
		if err := l.Beat(); err != nil {
			return err
		}
		fmt.Println("held")
		untilStdinEnds()
		return nil
	}
	childRoles["count"] = func(ctx context.Context, s *Store, args []string) error {
		path := args[0]
		for range 25 {
			l, err := s.Lock(ctx, "counter", "counting", func(Holder) error { return nil })
			if err != nil {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
			if err := os.WriteFile(path, append(b, '.'), 0o644); err != nil {
				return err
			}
			if err := l.Release(); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestLockIsHeldAndDiesWithItsHolder(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	c := startChild(t, "hold", s, nil, "key/abc")
	if c.line() != "held" {
		t.Fatal("the child has no lock")
	}
	_, err := s.Lock(ctx, "key/abc", "me", nil)
	var held *HeldError
	if !errors.Is(err, ErrBusy) || !errors.As(err, &held) {
		t.Fatalf("want a *HeldError, have %v", err)
	}
	host, _ := os.Hostname()
	if h := held.Holder; h.PID != c.cmd.Process.Pid || h.What != "run of a child" || h.Host != host || h.Beat.IsZero() {
		t.Errorf("holder %+v", h)
	}
	if !strings.Contains(err.Error(), "run of a child") || !strings.Contains(err.Error(), "key/abc") {
		t.Errorf("message %q", err)
	}
	if l, err := s.Lock(ctx, "key/other", "me", nil); err != nil {
		t.Errorf("another lock: %v", err)
	} else if err := l.Release(); err != nil {
		t.Error(err)
	}
	// A waiter is told, and gets it once the holder was killed.
	told := 0
	l, err := s.Lock(ctx, "key/abc", "me", func(h Holder) error {
		if told++; told == 1 {
			c.kill()
		}
		return nil
	})
	if err != nil || told == 0 {
		t.Fatalf("told %d times, %v", told, err)
	}
	if err := l.Beat(); err != nil {
		t.Error(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if held, err := s.lockHeld("key/abc"); held || err != nil {
		t.Errorf("held after its release: %v, %v", held, err)
	}
}

func TestLockWaitEnds(t *testing.T) {
	s := newTestStore(t)
	l, err := s.Lock(t.Context(), "key/abc", "me", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	enough := errors.New("enough")
	if _, err := s.Lock(t.Context(), "key/abc", "also me", func(Holder) error { return enough }); err != enough {
		t.Errorf("the waiter's error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Lock(ctx, "key/abc", "also me", func(Holder) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the wait's end: %v", err)
	}
	for _, name := range []string{"", "collect", "../x", "key/.x", "a/", "key/x.takeover"} {
		if _, err := s.Lock(t.Context(), name, "me", nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("lock %q: %v", name, err)
		}
	}
}

func TestLockLivesInHeir(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	l, err := s.Lock(ctx, "key/abc", "me", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := startChild(t, "inherit", s, []*os.File{l.File()})
	if c.line() != "held" {
		t.Fatal("the child has no lock")
	}
	if err := l.File().Close(); err != nil {
		t.Fatal(err)
	}
	_, err = s.Lock(ctx, "key/abc", "me again", nil)
	var held *HeldError
	if !errors.As(err, &held) || held.Holder.What != "the heir" || held.Holder.PID != c.cmd.Process.Pid {
		t.Fatalf("the lock after the hand-over: %v", err)
	}
	c.kill()
	if l, err = s.Lock(ctx, "key/abc", "me again", nil); err != nil {
		t.Fatalf("after the heir's death: %v", err)
	}
	l.Release()
}

func TestLockExcludes(t *testing.T) {
	s := newTestStore(t)
	path := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var cs []*child
	for range 4 {
		cs = append(cs, startChild(t, "count", s, nil, path))
	}
	for _, c := range cs {
		c.rest()
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != 100 {
		t.Errorf("%d of 100 steps were counted: %v", len(b), err)
	}
}

// heldElsewhere makes a lock file as a process on another host leaves it. The
// returned descriptor has the lock, as a file server may keep it for the dead.
func heldElsewhere(t *testing.T, s *Store, name string, silent time.Duration, flocked bool) (path string) {
	t.Helper()
	l, err := s.Lock(t.Context(), name, "run elsewhere", nil)
	if err != nil {
		t.Fatal(err)
	}
	path = s.lockPath(name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := thisHost()
	b = bytes.Replace(b, []byte(`"host":"`+h.name+`"`), []byte(`"host":"node7"`), 1)
	b = bytes.Replace(b, []byte(h.boot), []byte("00000000-0000-0000-0000-000000000000"), 1)
	if _, err := l.File().WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if flocked {
		t.Cleanup(func() { l.File().Close() })
	} else {
		l.File().Close()
	}
	when := time.Now().Add(-silent)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLockOfAnotherHost(t *testing.T) {
	if thisHost().boot == "" {
		t.Log("this system has no boot id; host names alone tell hosts apart")
	}
	for _, flocked := range []bool{true, false} {
		t.Run(fmt.Sprintf("flocked=%v", flocked), func(t *testing.T) {
			s := newTestStore(t)
			heldElsewhere(t, s, "key/beats", 20*time.Second, flocked)
			_, err := s.Lock(t.Context(), "key/beats", "me", nil)
			var held *HeldError
			if !errors.As(err, &held) || held.Holder.Host != "node7" {
				t.Errorf("a lock whose holder beats: %v", err)
			}
			if held, err := s.lockHeld("key/beats"); !held || err != nil {
				t.Errorf("lockHeld: %v, %v", held, err)
			}
			heldElsewhere(t, s, "key/silent", 61*time.Second, flocked)
			l, err := s.Lock(t.Context(), "key/silent", "me", nil)
			if err != nil {
				t.Fatalf("a lock whose holder is silent: %v", err)
			}
			if _, err := s.Lock(t.Context(), "key/silent", "also me", nil); !errors.As(err, &held) || held.Holder.What != "me" {
				t.Errorf("after the takeover: %v", err)
			}
			if err := l.Release(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHolderLearnsThatItLostItsLock(t *testing.T) {
	s := newTestStore(t)
	path := heldElsewhere(t, s, "key/silent", 61*time.Second, false)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := AdoptLock(f)
	l, err := s.Lock(t.Context(), "key/silent", "me", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if err := elsewhere.Beat(); !errors.Is(err, ErrBusy) {
		t.Errorf("the beat of one that lost its lock: %v", err)
	}
	if err := elsewhere.Release(); !errors.Is(err, ErrBusy) {
		t.Errorf("its release: %v", err)
	}
	if _, err := s.Lock(t.Context(), "key/silent", "a third", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("its release freed the lock of another: %v", err)
	}
}

func TestLockFileThatWasReplaced(t *testing.T) {
	s := newTestStore(t)
	l, err := s.Lock(t.Context(), "key/abc", "me", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.File().Close()
	// Whoever waits for the file that was removed must end with the new one.
	if err := os.Remove(s.lockPath("key/abc")); err != nil {
		t.Fatal(err)
	}
	a, err := s.Lock(t.Context(), "key/abc", "first", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lock(t.Context(), "key/abc", "second", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("two hold one lock: %v", err)
	}
	if err := a.Release(); err != nil {
		t.Error(err)
	}
}

func TestHolderGolden(t *testing.T) {
	s := newTestStore(t)
	l, err := s.Lock(t.Context(), "key/abc", strings.Repeat("long ", 1000), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.lockPath("key/abc"))
	if err != nil || len(b) != holderSize || b[len(b)-1] != '\n' {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, field := range []string{`"host":"`, `"boot_id":"`, `"pid":` + fmt.Sprint(os.Getpid()), `"start":`, `"what":"long `, `"since":"`} {
		if !bytes.Contains(b, []byte(field)) {
			t.Errorf("lacks %s: %s", field, b)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(s.lockPath("key/abc")); err != nil || len(bytes.TrimSpace(b)) != 0 {
		t.Errorf("after the release: %q, %v", b, err)
	}
}
