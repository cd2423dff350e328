package launcher

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/curi-store/curi/stages"
)

// torchrunOptions returns the options that torchrun itself gets, with '-' for
// '_' and without leading dashes; ok is false if argv runs no torchrun. A
// shell text is searched too, word by word.
func torchrunOptions(argv []string) (options map[string]string, ok bool) {
	words := argv
	if len(argv) == 3 && argv[0] == "/bin/sh" && argv[1] == "-c" {
		words = strings.Fields(argv[2])
	}
	start := -1
	for i, w := range words {
		base := filepath.Base(w)
		if base == "torchrun" || base == "faketorchrun" || w == "torch.distributed.run" || w == "torch.distributed.launch" {
			start = i + 1
			break
		}
	}
	if start < 0 {
		return nil, false
	}
	options, _ = stages.TorchrunOptions(words[start:])
	return options, true
}

// nodes is the largest number of nodes in --nnodes N or MIN:MAX.
func nodes(text string) int {
	_, most, ok := strings.Cut(text, ":")
	if !ok {
		most = text
	}
	n, err := strconv.Atoi(most)
	if err != nil {
		return 1
	}
	return n
}

// taskCounts are the variables by which launchers of ranks say how many tasks
// they started, this call being one.
var taskCounts = []string{"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "WORLD_SIZE"}

// taskStarters start the tasks of several nodes themselves.
var taskStarters = []string{"srun", "mpirun", "mpiexec", "orterun", "prun", "pdsh", "clush", "ssh"}

// rankVariables tell a person which of several calls this one is.
var rankVariables = []string{"RANK", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "NODE_RANK"}

// rank returns "rank 3: " where a variable says so, to word messages only.
func rank(env environment) string {
	for _, n := range rankVariables {
		v, ok := env.get(n)
		if _, err := strconv.Atoi(v); ok && err == nil {
			return "rank " + v + ": "
		}
	}
	return ""
}

// checkNodes refuses a command that is one node of several in a call that is
// one task of several: every task would take the same key, one would run and
// wait for the other nodes, and those would wait for its result.
func checkNodes(env environment, p *stages.Plan) error {
	n, what := nodesOf(env, p)
	if n <= 1 {
		return nil
	}
	words := p.Command
	if p.Shell {
		words = strings.Fields(strings.Join(p.Command, " "))
	}
	for _, w := range words {
		if slices.Contains(taskStarters, filepath.Base(w)) {
			return nil // this one call starts them all
		}
	}
	for _, name := range taskCounts {
		v, _ := env.get(name)
		if tasks, err := strconv.Atoi(v); err == nil && tasks > 1 {
			return fmt.Errorf("%w: the command is one node of %d (%s) and this call one task of %d (%s): the tasks would wait for each other; "+
				"--per-node is the way to run one stage on several nodes, else call curi once, with the command that starts the tasks", ErrRefused, n, what, tasks, name)
		}
	}
	return nil
}

// nodesOf is the number of nodes of which the command is to be one, and what
// says so.
func nodesOf(env environment, p *stages.Plan) (n int, what string) {
	n, what = 1, "--nnodes"
	options, isTorchrun := torchrunOptions(p.Command)
	if !isTorchrun && p.Shell && len(p.Command) == 1 {
		options, isTorchrun = torchrunOptions([]string{"/bin/sh", "-c", p.Command[0]})
	}
	if v, ok := options["nnodes"]; ok {
		n = nodes(planValue(p, v))
	} else if v, ok := env.get("PET_NNODES"); ok {
		what, n = "PET_NNODES", nodes(v)
	} else if !isTorchrun {
		for i, w := range p.Command {
			if v, ok := strings.CutPrefix(w, "--nnodes="); ok {
				n = nodes(planValue(p, v))
			} else if w == "--nnodes" && i+1 < len(p.Command) {
				n = nodes(planValue(p, p.Command[i+1]))
			}
		}
	}
	return n, what
}

// planValue fills {param.N} where it is the whole value of an option.
func planValue(p *stages.Plan, v string) string {
	name, ok := strings.CutPrefix(v, "{param.")
	if !ok {
		return v
	}
	for _, q := range p.Params {
		if q.Name+"}" == name {
			return q.Raw
		}
	}
	return v
}
