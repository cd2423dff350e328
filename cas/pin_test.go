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
	childRoles["pin"] = func(ctx context.Context, s *Store, args []string) error {
		d, err := ParseDigest(args[0])
		if err != nil {
			return err
		}
		if _, err := s.Pin(ctx, "a child", d); err != nil {
			return err
		}
		fmt.Println("pinned")
		untilStdinEnds()
		return nil
	}
	childRoles["keep"] = func(ctx context.Context, s *Store, args []string) error {
		fmt.Println("have it")
		untilStdinEnds()
		return nil
	}
}

func TestPinDiesWithItsHolder(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	c := startChild(t, "pin", s, nil, d.String())
	c.line()
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.KeptBlobs != 1 {
		t.Fatalf("while a child pins it: %+v, %v", r, err)
	}
	c.kill()
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.RemovedBlobs != 1 {
		t.Errorf("after the child's death: %+v, %v", r, err)
	}
	if n := fileCount(t, s, "pins"); n != 0 {
		t.Errorf("%d void pins are left", n)
	}
}

func TestPinLivesInHeir(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	pin, err := s.Pin(t.Context(), "me", d)
	if err != nil {
		t.Fatal(err)
	}
	c := startChild(t, "keep", s, []*os.File{pin.File()})
	c.line()
	pin.File().Close()
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.KeptBlobs != 1 {
		t.Fatalf("while the heir lives: %+v, %v", r, err)
	}
	c.kill()
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.RemovedBlobs != 1 {
		t.Errorf("after the heir's death: %+v, %v", r, err)
	}
}

func TestPinOfAnotherHost(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	path := filepath.Join(s.Dir(), "pins", "abc.json")
	if err := os.WriteFile(path, []byte(`{"what":"x","trees":["`+d.String()+`"],"host":"node7","boot_id":"0","pid":1,"time":"2026-01-01T00:00:00Z"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.KeptBlobs != 1 {
		t.Errorf("young: %+v, %v", r, err)
	}
	old := time.Now().Add(-foreignPinAge - time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.RemovedBlobs != 1 {
		t.Errorf("old: %+v, %v", r, err)
	}
}

// Two machines may have one name, and flock not reach from one to the other. A
// pin of this machine's own is void once it was started again.
func TestPinOfAnotherHostOfThisName(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	path := filepath.Join(s.Dir(), "pins", "abc.json")
	b, err := encodeJSON(pinFile{What: "x", Trees: []Digest{d}, Host: thisHost().name, BootID: "0", PID: 1, Time: now()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.KeptBlobs != 1 {
		t.Errorf("of a machine that lives: %+v, %v", r, err)
	}
	old := startTime().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Collect(t.Context(), CollectOptions{}); err != nil || r.RemovedBlobs != 1 {
		t.Errorf("from before this machine was started: %+v, %v", r, err)
	}
}

func TestPinGolden(t *testing.T) {
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "1"})
	pin, err := s.Pin(t.Context(), "run x", d)
	if err != nil {
		t.Fatal(err)
	}
	if err := pin.Beat(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(pin.File().Name())
	if want := `{"what":"run x","trees":["` + d.String() + `"],"host":"`; err != nil || !strings.HasPrefix(string(b), want) {
		t.Errorf("have %s, %v; want %s…", b, err, want)
	}
	if filepath.Dir(pin.File().Name()) != filepath.Join(s.Dir(), "pins") {
		t.Errorf("the pin lies at %s", pin.File().Name())
	}
	if err := pin.Release(); err != nil {
		t.Error(err)
	}
	if _, err := s.Pin(t.Context(), "x", d, Sum([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("pinning what is not stored: %v", err)
	}
	if n := fileCount(t, s, "pins"); n != 0 {
		t.Errorf("%d pins are left", n)
	}
}

// A pin that is held for days shows other hosts that it is.
func TestPinBeatsByItself(t *testing.T) {
	was := pinBeat
	pinBeat = 10 * time.Millisecond
	defer func() { pinBeat = was }()
	s := newTestStore(t)
	d := putFiles(t, s, map[string]string{"a": "a"})
	pin, err := s.Pin(t.Context(), "a long push", d)
	if err != nil {
		t.Fatal(err)
	}
	path := pin.File().Name()
	old := time.Now().Add(-25 * time.Hour)
	for range 2 { // more than once
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if fi.ModTime().After(old.Add(time.Hour)) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it gives no sign of life")
			}
		}
	}
	if err := pin.Release(); err != nil {
		t.Fatal(err)
	}
}
