package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workArg {
		// The benchmark calls itself.
		if err := work(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Every row can be measured: a benchmark that nobody runs for long would not
// be noticed to have rotted.
func TestEveryRow(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("cannot run here: needs root and /dev/fuse")
		}
		t.Skip("needs root and /dev/fuse")
	}
	// What measures from a child is this program: under the race detector it
	// would sleep a second before it ends.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	// Where another user may go.
	dir, err := os.MkdirTemp("/tmp", "curi-benchtest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "../../cmd/curi", "../../cmd/curifs").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	section, err := run(options{bin: bin, dir: filepath.Join(dir, "work"), size: 2 << 20, percent: 1, rounds: 1}, diskParts)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| work") {
			continue
		}
		rows++
		if strings.Count(line, "|") != 11 || strings.Contains(line, "NaN") || strings.Contains(line, " 0.00 ") {
			t.Errorf("not a row: %s", line)
		}
	}
	if rows != 18 {
		t.Errorf("%d rows, want 18:\n%s", rows, section)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "work")); err == nil {
		t.Errorf("left behind: %v", entries)
	}
}

// Every row of remotes can be measured, and those that are no matter of time hold.
func TestEveryRemoteRow(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("cannot run here: needs root and /dev/fuse")
		}
		t.Skip("needs root and /dev/fuse")
	}
	if os.Getenv("CURI_TEST_S3") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must have an S3 server: CURI_TEST_S3 is not set (make test sets it)")
		}
		t.Skip("needs CURI_TEST_S3, the path of versitygw (testdata/dev/s3server.sh prints it)")
	}
	dir, err := os.MkdirTemp("/tmp", "curi-benchtest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "../../cmd/curi", "../../cmd/curifs", "../../cmd/curi-bucket").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	section, err := run(options{bin: bin, dir: filepath.Join(dir, "work"), size: 40 << 20, percent: 0, rounds: 1, remote: true}, remoteParts)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| work") {
			continue
		}
		rows++
		bars := 8
		if strings.Contains(line, "curl") {
			bars = 11
		}
		if strings.Count(line, "|") != bars || strings.Contains(line, "NaN") {
			t.Errorf("not a row: %s", line)
		}
		if (strings.Contains(line, "%") || strings.Contains(line, " requests")) && !strings.Contains(line, "| met |") {
			t.Errorf("missed: %s", line)
		}
		if strings.Contains(line, " requests") && strings.Contains(line, "| 0 |") {
			t.Errorf("nothing was asked for: %s", line)
		}
	}
	if rows != 11 {
		t.Errorf("%d rows, want 11:\n%s", rows, section)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "work")); err == nil {
		t.Errorf("left behind: %v", entries)
	}
}

func TestSectionsOfThePageAreKept(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	disk := diskSection("- about the disk\n", []row{{what: "w", want: target{factor: 2}, n: samples{1, 2, 3}, o: samples{2, 3, 4}}})
	other := peerSection("- about tools\n", []peerRow{{what: "p", sides: [peers]samples{{1}, {2}, nil, {30}}}})
	remotes := remoteSection("- about remotes\n", []remoteRow{{what: "m", sides: [peers]samples{curi: {1, 2}, rclone: {3}}}, {what: "s", share: 0.124, most: 0.15}},
		[]row{{what: "l", want: target{share: 0.9}, n: samples{1}, o: samples{2}}},
		[]farRow{{what: "f", took: samples{0.1}, rounds: 4, bytes: 5000, below: 5, most: 256 << 10}, {what: "g", took: samples{0.1}, rounds: 4, bytes: 5000, below: 4}})
	for _, step := range []struct {
		section string
		want    []string
	}{
		{other, []string{other}},
		{"## Beside the bare disk\n\nold\n", []string{"old", other}},
		{remotes, []string{"old", other, remotes}},
		{disk, []string{disk, other, remotes}},
		{strings.Replace(other, "about tools", "about instruments", 1), []string{disk, "instruments", remotes}},
	} {
		if err := updatePage(page, step.section); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range step.want {
			if strings.Count(string(text), strings.TrimRight(w, "\n")) != 1 {
				t.Errorf("want once\n%s\nin\n%s", w, text)
			}
		}
		if strings.Count(string(text), "# Benchmarks") != 1 || strings.Contains(string(text), "\n\n\n") {
			t.Errorf("have\n%s", text)
		}
	}
	for _, row := range []string{"| m | 1.50 s | 3.00 s | – | faster than both | met | 2 |", "| s | 12.4 % | – | – | ≤ 15 % | met | 1 |",
		"| 0.50 | ≥ 0.90 × the speed | **missed** |", "| f | 100.0 ms | 4 | 5 KiB | < 5 requests, ≤ 256 KiB | met | 1 |", "| g | 100.0 ms | 4 | 5 KiB | < 4 requests | **missed** | 1 |"} {
		if !strings.Contains(remotes, row) {
			t.Errorf("have\n%s", remotes)
		}
	}
	if !strings.Contains(disk, "| 1.50 | ≤ 2 × the time | met | 3 | 1.42–1.75 |") {
		t.Errorf("have\n%s", disk)
	}
	if !strings.Contains(other, "| p | 1.00 s | 2.00 s (2 ×) | – | 30.00 s (30 ×) | – | – | – | 1 |") {
		t.Errorf("have\n%s", other)
	}
}

func TestMissedTargetsAreNamed(t *testing.T) {
	for _, c := range []struct {
		want   target
		n, o   float64
		met    bool
		ratio  string
		wanted string
	}{
		{target{share: 0.95}, 1, 1.04, true, "0.96", "≥ 0.95 × the speed"},
		{target{share: 0.95}, 1, 1.06, false, "0.94", "≥ 0.95 × the speed"},
		{target{factor: 1.3}, 1, 1.3, true, "1.30", "≤ 1.3 × the time"},
		{target{factor: 1.3}, 1, 1.31, false, "1.31", "≤ 1.3 × the time"},
		{target{seconds: 0.015}, 1, 0.015, true, "0.01", "≤ 15 ms"},
		{target{seconds: 0.015}, 1, 0.016, false, "0.02", "≤ 15 ms"},
	} {
		r := row{want: c.want, n: samples{c.n}, o: samples{c.o}}
		if r.met() != c.met || r.ratio() != c.ratio || r.wanted() != c.wanted {
			t.Errorf("%+v: %v %s %s", c, r.met(), r.ratio(), r.wanted())
		}
	}
}
