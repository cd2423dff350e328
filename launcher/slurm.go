package launcher

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/stages"
)

// Slurm says that a stage runs as a job of Slurm, and how.
type Slurm struct {
	// Options are sbatch's long options without dashes, such as "partition" or
	// "gpus-per-node", with their values; an option without one has "".
	Options map[string]string
	// PerNode makes srun start the command on every node of the job: see [Nodes].
	PerNode bool
	// Detach makes Exec return once the job is submitted.
	Detach bool
	// Command runs a job where it starts: curi with its options, to which the
	// key and the name of the job are added. It calls [RunJob].
	Command []string

	task *arrayTask // where it is submitted together with other sets; nil: alone
	stop bool       // a task that fails keeps those of its array from beginning that wait
}

// CheckSlurm checks options for sbatch, as `--slurm KEY=VALUE` and
// `launcher: {slurm: …}` give them, and brings them into one form. Those that
// Curi itself sets are refused, and those that it does not know left to sbatch.
// A value "true" means an option without one, "false" none at all. Errors wrap
// stages.ErrUsage.
func CheckSlurm(options map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := options[name]
		if long, ok := slurmShort[name]; ok {
			return nil, fmt.Errorf("slurm option %s: write %s, as sbatch's long options are called: %w", name, long, stages.ErrUsage)
		}
		if !slurmOption.MatchString(name) {
			return nil, fmt.Errorf("slurm option %q: want the name of a long option of sbatch without dashes, such as partition or gpus-per-node: %w", name, stages.ErrUsage)
		}
		if why, ok := slurmOwn[name]; ok {
			return nil, fmt.Errorf("slurm option %s: %s: %w", name, why, stages.ErrUsage)
		}
		if strings.ContainsAny(value, "\x00\n") {
			return nil, fmt.Errorf("slurm option %s: the value %q is not one line: %w", name, value, stages.ErrUsage)
		}
		switch value {
		case "true":
			value = ""
		case "false":
			if name == "requeue" {
				out["no-requeue"] = ""
			}
			continue
		}
		switch name {
		case "nodes":
			if _, err := slurmNodes(value); err != nil {
				return nil, err
			}
		case "time":
			if _, err := slurmTime(value); err != nil {
				return nil, err
			}
		case "signal":
			if _, err := strconv.ParseUint(value, 10, 16); err != nil {
				return nil, fmt.Errorf("slurm option signal=%s: want the number of seconds before the time limit at which the command is told to save and end: %w", value, stages.ErrUsage)
			}
		case "requeue": // what Curi says anyway
			continue
		}
		out[name] = value
	}
	return out, nil
}

var slurmOption = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// slurmShort are short options of sbatch that people write.
var slurmShort = map[string]string{
	"N": "nodes", "n": "ntasks", "p": "partition", "t": "time", "A": "account", "c": "cpus-per-task", "q": "qos",
	"G": "gpus", "w": "nodelist", "x": "exclude", "C": "constraint", "J": "job-name", "o": "output", "e": "error",
}

// slurmOwn are options of sbatch that Curi sets, or that would break a job.
var slurmOwn = map[string]string{
	"output": "Curi itself keeps and shows what the job writes", "error": "Curi itself keeps and shows what the job writes",
	"open-mode": "Curi itself sets it", "job-name": "Curi itself names the job, to find it again", "wrap": "the job runs the stage's command",
	"chdir": "the command runs in the directory of the stage", "array": "Curi itself makes an array of the parameter sets of a stage, and --jobs its limit", "parsable": "Curi itself sets it",
	"wait": "curi waits anyway, unless --detach is given", "test-only": "curi stage exec --dry-run tells what would run", "input": "--stdin names what the command reads",
	"export": "the job gets the environment of the caller; --clean-env narrows what the command gets of it", "help": "it makes no job", "version": "it makes no job",
	"quiet": "Curi itself sets it", "verbose": "Curi itself sets it", "no-kill": "a run without one of its nodes publishes nothing",
}

// slurmNodes is the largest number of nodes in N or MIN-MAX.
func slurmNodes(text string) (int, error) {
	least, most, ranged := strings.Cut(text, "-")
	if !ranged {
		most = least
	}
	n, err := strconv.Atoi(most)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("slurm option nodes=%s: want a number, or MIN-MAX: %w", text, stages.ErrUsage)
	}
	return n, nil
}

// slurmTime parses a time limit of Slurm: minutes, minutes:seconds,
// hours:minutes:seconds, days-hours[:minutes[:seconds]]. No limit is 0.
func slurmTime(text string) (time.Duration, error) {
	bad := fmt.Errorf("slurm option time=%s: want minutes, hours:minutes:seconds or days-hours:minutes, such as 90, 4:00:00 or 2-12:00: %w", text, stages.ErrUsage)
	if u := strings.ToUpper(text); u == "UNLIMITED" || u == "INFINITE" || text == "0" {
		return 0, nil
	}
	days, rest, hasDays := strings.Cut(text, "-")
	if !hasDays {
		days, rest = "0", text
	}
	var numbers []time.Duration
	for _, w := range append([]string{days}, strings.Split(rest, ":")...) {
		n, err := strconv.ParseUint(w, 10, 31)
		if err != nil {
			return 0, bad
		}
		numbers = append(numbers, time.Duration(n))
	}
	units := []time.Duration{time.Minute, time.Second} // after the days
	switch {
	case len(numbers) > 4:
		return 0, bad
	case hasDays, len(numbers) == 4:
		units = []time.Duration{time.Hour, time.Minute, time.Second}
	}
	d := numbers[0] * 24 * time.Hour
	for i, n := range numbers[1:] {
		d += n * units[i]
	}
	return d, nil
}

// nodes is how many nodes the job may have.
func (sl *Slurm) nodes() int {
	n, err := slurmNodes(sl.Options["nodes"])
	if err != nil {
		return 1
	}
	return n
}

// warning is how long before the time limit the job is told: time for the
// command to save, the grace, and a minute more to record it; of a short limit
// a quarter. The option signal says otherwise.
func (sl *Slurm) warning(grace time.Duration) int {
	if n, err := strconv.Atoi(sl.Options["signal"]); err == nil {
		return n
	}
	warning := grace + time.Minute
	if limit, err := slurmTime(sl.Options["time"]); err == nil && limit > 0 {
		warning = min(warning, limit/4)
	}
	return int(warning / time.Second)
}
