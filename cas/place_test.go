package cas

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlace(t *testing.T) {
	s := newTestStore(t)
	ctx := t.Context()
	key := strings.Repeat("0123456789abcdef", 4)
	p := s.Place(key)
	if p.Dir() != filepath.Join(s.Dir(), "at", "0123456789abcdef") || ShortKey(key) != "0123456789abcdef" {
		t.Errorf("dir %s, short key %s", p.Dir(), ShortKey(key))
	}
	if _, err := p.State(ctx); !errors.Is(err, ErrNotFound) {
		t.Errorf("a place that was never made: %v", err)
	}
	if err := p.SetSealing(ctx, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("sealing it: %v", err)
	}
	in := putFiles(t, s, map[string]string{"a": "1"})
	st := PlaceState{Run: "train-1", Attempt: 1, Mount: "m1", Active: true, Inputs: map[string]Digest{"d": in}, Rw: []string{"d"}}
	if err := p.SetState(ctx, st); err != nil {
		t.Fatal(err)
	}
	got, err := p.State(ctx)
	if err != nil || got.Key != key || got.Run != "train-1" || !got.Active || got.Inputs["d"] != in || got.Mount != "m1" {
		t.Errorf("got %+v, %v", got, err)
	}
	b, err := os.ReadFile(filepath.Join(p.Dir(), "state.json"))
	want := `{"key":"` + key + `","run":"train-1","attempt":1,"mount":"m1","active":true,"inputs":{"d":"` + in.String() + `"},"rw":["d"],"result":""}` + "\n"
	if err != nil || string(b) != want {
		t.Errorf("state.json is %swant %s(%v)", b, want, err)
	}
	marker := filepath.Join(p.Dir(), "sealing")
	for _, closed := range []bool{true, true, false, false} {
		if err := p.SetSealing(ctx, closed); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(marker); (err == nil) != closed {
			t.Errorf("closed %v: %v", closed, err)
		}
	}
	other := s.Place(key[:16] + strings.Repeat("f", 48))
	if _, err := other.State(ctx); !errors.Is(err, ErrExists) {
		t.Errorf("the state of a place that another key has: %v", err)
	}
	if err := other.SetState(ctx, PlaceState{}); !errors.Is(err, ErrExists) {
		t.Errorf("taking it: %v", err)
	}
	if err := p.SetState(ctx, PlaceState{Result: Sum([]byte("none"))}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a result that is not stored: %v", err)
	}
	if err := s.Place("short").SetState(ctx, PlaceState{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
	if keys, err := s.Places(ctx); err != nil || len(keys) != 1 || keys[0] != key {
		t.Errorf("places %q, %v", keys, err)
	}
}

func TestSealingWaitsForChangesUnderWay(t *testing.T) {
	s := newTestStore(t)
	p := s.Place(strings.Repeat("ab", 32))
	if err := p.SetState(t.Context(), PlaceState{Key: strings.Repeat("ab", 32), Active: true}); err != nil {
		t.Fatal(err)
	}
	// What a mount does while it makes a change.
	change, err := os.Open(p.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer change.Close()
	if err := flock(change, unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- p.SetSealing(t.Context(), true) }()
	for !noErr(os.Stat(filepath.Join(p.Dir(), "sealing"))) {
		select {
		case err := <-done:
			t.Fatalf("the marker is not made first (%v)", err)
		default:
		}
	}
	select {
	case err := <-done:
		t.Fatalf("sealing went on while a change was under way (%v)", err)
	default:
	}
	if err := flock(change, unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func noErr(_ os.FileInfo, err error) bool { return err == nil }
