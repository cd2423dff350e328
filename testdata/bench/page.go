package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// about says when, of which commit, and on what the numbers were measured.
func (c *config) about() (string, error) {
	commit := "unknown"
	if out, err := c.command("git", "-C", filepath.Dir(c.bin), "describe", "--always", "--dirty", "--exclude=*"); err == nil {
		commit = strings.TrimSpace(out)
	}
	kernel, err := c.command("uname", "-sr")
	if err != nil {
		return "", err
	}
	disk, err := c.command("stat", "--file-system", "--format=%T", c.dir)
	if err != nil {
		return "", err
	}
	status, err := c.command(filepath.Join(c.bin, "curi"), "status", "--json")
	if err != nil {
		return "", err
	}
	var s struct {
		Mounts []struct {
			Dir         string
			Passthrough bool
			Reason      string
		}
	}
	if err := json.Unmarshal([]byte(status), &s); err != nil {
		return "", fmt.Errorf("reading curi status: %w", err)
	}
	passthrough := "unknown"
	for _, m := range s.Mounts {
		switch {
		case m.Dir != c.mount:
		case m.Passthrough:
			passthrough = "on"
		default:
			passthrough = "off: " + m.Reason
		}
	}
	lines := []string{
		"date: " + time.Now().UTC().Format(time.DateOnly),
		"commit: " + commit,
		fmt.Sprintf("machine: %d × %s, %s", runtime.NumCPU(), cpu(), strings.TrimSpace(kernel)),
		"file system: " + strings.TrimSpace(disk),
		"passthrough: " + passthrough,
		fmt.Sprintf("large file: %d MiB, in the page cache", c.size>>20),
	}
	return "- " + strings.Join(lines, "\n- ") + "\n", nil
}

// cpu is the processor's name.
func cpu() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// format makes the page.
func format(about string, rows []row) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nMade by `make bench`. Both sides are measured in turns in one run; medians.\n" +
		"The ratio is Curi's share of the bare machine's speed: 1.00 is as fast.\n\n")
	b.WriteString(about)
	b.WriteString("\n| work | native | | Curi | | ratio | rounds |\n|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s | %.2f | %d |\n", r.what, r.native, r.amount(r.nativeSeconds),
			r.ours, r.amount(r.ourSeconds), r.nativeSeconds/r.ourSeconds, r.rounds)
	}
	return b.String()
}

// amount words how long, and how fast, one side was.
func (r row) amount(seconds float64) string {
	if r.bytes == 0 {
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.3f s, %.0f MB/s", seconds, float64(r.bytes)/seconds/1e6)
}
