package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestPanic checks that a panic is one line and the internal status.
func TestPanic(t *testing.T) {
	var said bytes.Buffer
	status := func() (status int) {
		defer recovered(&said, &status)
		panic("a\nb")
	}()
	if status != exitInternal {
		t.Errorf("status %d", status)
	}
	if text := said.String(); !strings.HasPrefix(text, "curi: internal error: ") || strings.Count(text, "\n") != 1 {
		t.Errorf("said %q", text)
	}
}

// What a person reads is what is there.
func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain é 日本 \ufffd": "plain é 日本 \ufffd", "a\x1b[2Jb": `a\x1b[2Jb`, "a\tb": `a\tb`, "a\xffb": `a\xffb`, "a\u202egpj.exe": `a\u202egpj.exe`, "": "",
	} {
		if got := visible(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := oneLine("a\n  b\x07"); got != `a b\a` {
		t.Errorf("one line: %q", got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "5m": 5 * time.Minute, "2h": 2 * time.Hour, "1d": day, "2w": 14 * day,
		"1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "0": 0, "10ms": 10 * time.Millisecond,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "3", "h", "1x", "-1s", "1d12", "1..2s", "soon", "999999999d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: %v and no error", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "10": 10, "1K": 1024, "1KiB": 1024, "1kB": 1000, "1.5 TiB": 3 << 39, "500G": 500 << 30, "7 B": 7,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "G", "1X", "-1", "1GiBB", "much", "99999999P"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: %v and no error", text, got)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 20: "10 MiB", 1<<40 - 1: "1.0 TiB", 1536 << 20: "1.5 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
