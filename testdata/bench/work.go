package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// workArg makes this program a worker, which measures from where the parent
// cannot be: inside a stage, or as another user.
//
//	bench work compare OP ROUNDS SIZE PATH   beside the paths in $BENCH_NATIVE
//	                                         and, unless empty, $BENCH_PEER
//	bench work OP PATH SIZE                  once
//
// It prints the samples of each side.
const workArg = "work"

// These variables have the other sides' paths: as an argument the stage would
// take one for code.
const (
	nativePath = "BENCH_NATIVE"
	peerPath   = "BENCH_PEER"
)

func work(args []string) error {
	if args[0] != "compare" {
		size, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return err
		}
		_, err = ops[args[0]](args[1], size)
		return err
	}
	op, path := ops[args[1]], args[4]
	rounds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	size, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return err
	}
	on := func(name, path string) side {
		return side{args[1] + name, func() (float64, error) { return op(path, size) }}
	}
	sides := []side{on(" on the disk", os.Getenv(nativePath)), on(" in the mount", path)}
	if peer := os.Getenv(peerPath); peer != "" {
		sides = append(sides, on(" in the other mount", peer))
	}
	all, err := interleave(rounds, sides...)
	if err != nil {
		return err
	}
	if writesFile[args[1]] {
		// The stage wants its output, and it need not be sealed in full.
		if err := os.WriteFile(path, []byte("done\n"), 0o644); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// inStage compares an operation on the disk with the same in a running stage,
// on one of its inputs or its output. by starts curi, as another user perhaps.
type inStage struct {
	op     string
	input  string // an artifact; "" for the output
	native string
	peer   string // where another tool's mount shows the same; "" for none
	size   int64
	by     []string
}

// compare adds a row that is measured inside a stage.
func (b *bench) compare(rounds int, r row, in inStage) error {
	all, err := b.within(b.times(rounds), in)
	if err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	r.n, r.o = all[0], all[1]
	b.rows = append(b.rows, r)
	return nil
}

// within measures inside a stage.
func (b *bench) within(rounds int, in inStage) ([]samples, error) {
	argv := append(in.by, b.tool("curi"), "stage", "exec", "--force", "--name", "bench", "--out", "x=x")
	path := "{out.x}"
	if in.input != "" {
		argv = append(argv, "--in", "data="+in.input)
		path = "{in.data}"
	}
	worker := []string{b.self, workArg, "compare", in.op, strconv.Itoa(rounds), strconv.FormatInt(in.size, 10), path}
	if in.input != "" {
		worker = append([]string{"sh", "-c", `echo done >"$0" && exec "$@"`, "{out.x}"}, worker...)
	}
	cmd := command(append(append(argv, "--"), worker...))
	cmd.Env = append(os.Environ(), nativePath+"="+in.native, peerPath+"="+in.peer)
	said, err := b.outputOf(cmd)
	if err != nil {
		return nil, err
	}
	return decode[[]samples](said)
}
