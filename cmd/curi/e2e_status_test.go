package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Row 19: a stage's exception left the program's exit status at 0.
func TestRow19ExitStatusesMeanWhatTheySay(t *testing.T) {
	everyWay(t, func(t *testing.T, w way) {
		s := newSite(t, w)
		// The command's own, and 128 and the number of the signal that ended it.
		for command, status := range map[string]int{
			"exit 1": 1, "exit 2": 2, "exit 42": 42, "exit 119": 119, "exit 255": 255,
			"kill -KILL $$": 137, "kill -SEGV $$": 139, "kill -TERM $$": 143,
		} {
			s.stageFails(status, "", "--name", "end", "--out", "x=x", "--", "sh", "-c", "echo x > {out.x}; "+command)
		}
		s.stageFails(1, "ZeroDivisionError", "--name", "end", "--out", "x=x", "--", "python3", "-c", "1/0")
		s.stageFails(127, "no-such-program", "--name", "end", "--out", "x=x", "--", "no-such-program")
		s.write("plain.txt", "no program")
		s.stageFails(126, "plain.txt", "--name", "end", "--out", "x=x", "--", "./plain.txt")
	})
}

// Row 19: Curi's own failures, each with its one meaning.
func TestRow19OwnFailures(t *testing.T) {
	s := newSite(t, byCopy)
	s.stageFails(120, "--no-such-option", "--no-such-option", "--", "true")
	s.stageFails(120, "in.nothing", "--name", "x", "--out", "x=x", "--", "cp", "{in.nothing}", "{out.x}")
	s.stageFails(120, "12345678", "--name", "12345678", "--out", "x=x", "--", "true")
	s.fails(120, "no-such-command", "curi", "no-such-command")
	s.fails(120, "a/../b", "curi", "show", "digits/a/../b")
	s.stageFails(121, "nothing", "--name", "x", "--in", "d=nothing", "--out", "x=x", "--", "true")
	s.fails(121, "digits@9", "curi", "show", "digits@9")
	s.fails(121, "0123456789", "curi", "cat", "0123456789")
	s.stageFails(124, "x", "--name", "x", "--out", "x=x", "--", "true")

	// A store that another version of Curi made.
	other := filepath.Join(s.dir, "other")
	s.ok("curi", "store", "init", other)
	s.write("other/curi-store.json", `{"format":99,"id":"0123456789abcdef"}`)
	s.fails(123, "99", "curi", "--store", other, "ls")

	// Bytes that are no longer what their name says.
	blobs, err := filepath.Glob(s.store + "/blobs/*/*")
	if err != nil || len(blobs) == 0 {
		t.Fatal("no blobs", err)
	}
	for _, b := range blobs {
		if err := os.Chmod(b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b, []byte("9 9 9 9\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := s.fails(122, "quarantine", "curi", "fsck")
	if !strings.Contains(o.stdout, "digits@1/numbers.txt") {
		t.Errorf("fsck does not name who used the bad bytes: %s", o)
	}

	// All of them stand in the docs.
	docs, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	for status := 120; status <= 125; status++ {
		if !strings.Contains(string(docs), fmt.Sprint(status)) {
			t.Errorf("docs/commands.md does not list the exit status %d", status)
		}
	}
}
