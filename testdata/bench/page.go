package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"
)

const pageHead = `# Benchmarks

What Curi costs, measured on one machine in one run: both sides of a row run in turns, several rounds, and the medians count. The spread is
the middle half of the rounds' own ratios. ` + "`make bench`, `make bench-peers` and `make bench-remote`" + ` measure your machine and rewrite their section of this page.

`

// The sections of the page, in order, each written by its own run.
const (
	diskTitle   = "## Beside the bare disk\n"
	peerTitle   = "## Beside other tools\n"
	remoteTitle = "## Remotes\n"
)

var titles = []string{diskTitle, peerTitle, remoteTitle}

// updatePage puts a section into the page in place of the one with its title,
// and keeps the others.
func updatePage(path, section string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := strings.TrimRight(pageHead, "\n") + "\n"
	for _, title := range titles {
		s := sectionOf(string(old), title)
		if strings.HasPrefix(section, title) {
			s = section
		}
		if s != "" {
			text += "\n" + strings.TrimRight(s, "\n") + "\n"
		}
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// sectionOf is a section of the page, up to the next; "" if it is not there.
func sectionOf(page, title string) string {
	i := strings.Index(page, title)
	if i < 0 {
		return ""
	}
	page = page[i:]
	end := len(page)
	for _, t := range titles {
		if k := strings.Index(page, t); k > 0 {
			end = min(end, k)
		}
	}
	return page[:end]
}

func diskSection(about string, rows []row) string {
	var b strings.Builder
	b.WriteString(diskTitle + "\n" + about + "\n")
	b.WriteString("Where a share of the speed is wanted, the ratio is Curi's share of the native speed: 1.00 is as fast. Where a multiple of\n" +
		"the time is wanted, it is Curi's time over the native one.\n\n")
	b.WriteString(ratioTable(rows))
	return b.String()
}

// ratioTable is the table of rows that compare with a native side.
func ratioTable(rows []row) string {
	var b strings.Builder
	b.WriteString("| work | native | | Curi | | ratio | wanted | | rounds | spread |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		verdict := "met"
		if !r.met() {
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %d | %s |\n", r.what, r.native.name, r.amount.figure(r.n.median()),
			r.ours.name, r.amount.figure(r.o.median()), r.ratio(), r.wanted(), verdict, len(r.o), r.spread())
	}
	return b.String()
}

// about says when, of which commit, and on what the numbers were measured.
func (b *bench) about() (string, error) {
	commit := "unknown"
	if out, err := b.output("git", "-C", b.bin, "describe", "--always", "--dirty", "--exclude=*"); err == nil {
		commit = strings.TrimSpace(out)
	}
	kernel, err := b.output("uname", "-sr")
	if err != nil {
		return "", err
	}
	disk, err := b.output("stat", "--file-system", "--format=%T", b.dir)
	if err != nil {
		return "", err
	}
	lines := []string{
		"date: " + time.Now().UTC().Format(time.DateOnly),
		"commit: " + commit,
		fmt.Sprintf("machine: %d × %s, %s", runtime.NumCPU(), cpu(), strings.TrimSpace(kernel)),
		"file system: " + strings.TrimSpace(disk),
		"load before the run: " + b.load,
	}
	lines = append(lines, b.notes...)
	if b.peers || b.remote {
		lines = append(lines, b.versions()...)
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
