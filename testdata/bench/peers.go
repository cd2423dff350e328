package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is another tool, as one column of the table.
type peer int

const (
	native peer = iota
	curi
	dvc
	restic
	annex
	rclone
	curifactory
	peers
)

var peerNames = [peers]string{"native", "Curi", "DVC", "restic", "git-annex", "rclone mount", "Curifactory"}

// peerParts measure beside other tools.
var peerParts = []part{
	{"large", (*bench).peerLarge},
	{"many", (*bench).peerMany},
	{"cached", (*bench).peerCached},
	{"mount", (*bench).peerMount},
}

// program finds the program of a tool; "" where it is not installed.
func (b *bench) program(p peer) string {
	name := map[peer]string{dvc: "dvc", restic: "restic", annex: "git-annex", rclone: "rclone", curifactory: "experiment"}[p]
	if b.peerPython != "" {
		if path, err := exec.LookPath(filepath.Join(b.peerPython, "bin", name)); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// versions lists the tools that are installed, and those that are not.
func (b *bench) versions() []string {
	var found, absent []string
	ask := map[peer][]string{
		dvc: {"--version"}, restic: {"version"}, annex: {"version", "--raw"}, rclone: {"version"},
		curifactory: {"-c", "from importlib.metadata import version; print(version('curifactory'))"},
	}
	for p := dvc; p < peers; p++ {
		program := b.program(p)
		if program == "" {
			absent = append(absent, peerNames[p])
			continue
		}
		if p == curifactory {
			program = filepath.Join(filepath.Dir(program), "python")
		}
		said, err := b.output(program, ask[p]...)
		if err != nil {
			said = "of unknown version"
		}
		line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
		words := strings.Fields(line)
		if p == restic && len(words) > 1 || p == rclone && len(words) > 1 {
			line = strings.TrimPrefix(words[1], "v") // the first word is the name
		}
		found = append(found, strings.TrimSuffix(peerNames[p], " mount")+" "+line)
	}
	lines := []string{"tools: " + strings.Join(found, ", ")}
	if len(absent) > 0 {
		lines = append(lines, "not installed here: "+strings.Join(absent, ", "))
	}
	return lines
}

// peerRow is one piece of work, done by several tools.
type peerRow struct {
	what   string
	amount amount
	sides  [peers]samples // nil where a tool does not do that, or is not there
}

// peer measures a piece of work and keeps it; tools that are not installed
// have no run. There is no round to warm up: each begins with what is fresh.
func (b *bench) peer(what string, a amount, rounds int, runs map[peer]func() (float64, error)) error {
	var sides []side
	var who []peer
	for p := range peers {
		if run := runs[p]; run != nil && (p <= curi || b.program(p) != "") {
			sides, who = append(sides, side{peerNames[p], run}), append(who, p)
		}
	}
	all, err := inTurns(b.times(rounds), sides)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r := peerRow{what: what, amount: a}
	for i, p := range who {
		r.sides[p] = all[i]
	}
	b.peerRows = append(b.peerRows, r)
	return nil
}

func peerSection(about string, rows []peerRow) string {
	var b strings.Builder
	b.WriteString(peerTitle + "\n" + about + "\n")
	b.WriteString("Medians, and in brackets how many times the native time that is. A dash: the tool does not do that, or is not installed. Each\n" +
		"tool stores in its own way and with its own promises: Curi and the native side end with the bytes durable on the disk, the others\n" +
		"as they do by default. A tool that took more than a minute in all was asked no more.\n\n")
	b.WriteString("| work | " + strings.Join(peerNames[:], " | ") + " | rounds |\n|---" + strings.Repeat("|---", int(peers)+1) + "|\n")
	for _, r := range rows {
		cells := []string{r.what}
		base := r.sides[native].median()
		rounds := len(r.sides[native])
		few := rounds
		for p, s := range r.sides {
			switch {
			case len(s) == 0:
				cells = append(cells, "–")
				continue
			case peer(p) == native:
				cells = append(cells, r.amount.figure(base))
			default:
				cells = append(cells, fmt.Sprintf("%s (%s)", duration(s.median()), multiple(s.median()/base)))
			}
			few = min(few, len(s))
		}
		count := fmt.Sprint(rounds)
		if few < rounds {
			count = fmt.Sprintf("%d–%d", few, rounds)
		}
		b.WriteString("| " + strings.Join(append(cells, count), " | ") + " |\n")
	}
	return b.String()
}

func multiple(x float64) string {
	if x < 9.95 {
		return fmt.Sprintf("%.2g ×", x)
	}
	return fmt.Sprintf("%.0f ×", x)
}
