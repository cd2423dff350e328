package main_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

// One stage on several nodes, which are processes here: what they share is the
// store.

// nodes starts a stage as n nodes, each with its own environment.
func (s *site) nodes(n int, id string, args ...string) []*job {
	s.t.Helper()
	argv := append([]string{"curi", "stage", "exec", "--json", "--per-node", "--rdzv-id", id}, args...)
	var jobs []*job
	for rank := range n {
		j := &job{s.command(argv...), new(syncBuffer), new(syncBuffer)}
		j.Stdout, j.Stderr = j.stdout, j.stderr
		j.Env = append(slices.Clone(s.env), fmt.Sprint("PET_NODE_RANK=", rank), fmt.Sprint("PET_NNODES=", n))
		if err := j.Start(); err != nil {
			s.t.Fatal(err)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// all waits for nodes and checks that they end alike.
func (s *site) all(jobs []*job, status int) []outcome {
	s.t.Helper()
	var outcomes []outcome
	for _, j := range jobs {
		outcomes = append(outcomes, s.finish(j))
	}
	for i, o := range outcomes {
		if o.status != status {
			s.t.Fatalf("node %d: want status %d: %s\nnode 0: %s", i, status, o, outcomes[0])
		}
	}
	return outcomes
}

// Every node runs; the result is what all of them wrote, and a hit for all.
func TestNodesPublishTheUnion(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	args := []string{"--name", "train", "--in", "d=digits", "--out", "shards=shards/", "--out", "model=model", "--optional-out", "extra=extra", "--work", "w", "--",
		"sh", "-c", `echo x >> $SIDE/ran; echo "here is $CURI_NODE"; mkdir {out.shards}/deep; cat {in.d}/numbers.txt > {out.shards}/same; echo $CURI_NODE of $CURI_NODES > {out.shards}/deep/$CURI_NODE
			echo $CURI_NODE > {work.w}/$CURI_NODE; test $CURI_NODE = 0 || echo weights > {out.model}`}
	var last result
	for try := range 2 {
		for rank, o := range s.all(s.nodes(3, fmt.Sprint("try", try), args...), 0) {
			r := decode[result](s, o.stdout)
			if r.Cached != (try == 1) {
				t.Errorf("try %d, node %d: cached is %v", try, rank, r.Cached)
			}
			if last.Run != "" && (r.Run != last.Run || r.Outputs["shards"] != last.Outputs["shards"] || r.Outputs["model"] != last.Outputs["model"]) {
				t.Errorf("nodes differ: %+v and %+v", r, last)
			}
			last = r
		}
		s.wantStarts(3)
	}
	shards := last.Outputs["shards"].Path
	if text := s.ok("sh", "-c", "cd "+shards+" && cat same deep/0 deep/1 deep/2"); text != "1 2 3 4\n0 of 3\n1 of 3\n2 of 3\n" {
		t.Errorf("the union holds %q", text)
	}
	if s.read(last.Outputs["model"].Path) != "weights\n" {
		t.Error("the model of node 1 and 2 is not there")
	}
	if text := s.ok("sh", "-c", "cat "+s.path(last.Run+".work/w")+"/*"); text != "0\n1\n2\n" {
		t.Errorf("the work directory holds %q", text)
	}
	// The record has all nodes; nothing else is left of them.
	type record struct {
		Record struct {
			Nodes []struct {
				Host string
				Exit int `json:"exit_status"`
				Log  string
			}
		}
	}
	if r := decode[record](s, s.ok("curi", "log", "--json", last.Run)); len(r.Record.Nodes) != 3 || r.Record.Nodes[2].Host == "" {
		t.Errorf("the record's nodes: %+v", r)
	} else if text := s.ok("curi", "cat", last.Run+"/"+r.Record.Nodes[2].Log); text != "here is 2\n" {
		t.Errorf("the log of node 2 is %q", text)
	}
	if refs := s.ok("sh", "-c", "find "+s.store+"/refs/part "+s.store+"/refs/node -type f"); refs != "" {
		t.Errorf("left in the store: %s", refs)
	}
}

// Two nodes that write other bytes to one path are an error that names both.
func TestNodesDisagree(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	outcomes := s.all(s.nodes(2, "a", "--name", "train", "--out", "model=model", "--", "sh", "-c", "echo $CURI_NODE > {out.model}"), 124)
	if text := outcomes[0].stderr; !strings.Contains(text, "node 0 (") || !strings.Contains(text, "and node 1 (") || !strings.Contains(text, "different bytes to model/model") {
		t.Errorf("node 0: %s", outcomes[0])
	}
	s.nothingPublished()
}

// A node that fails, or is killed, ends the run on all nodes, which otherwise
// would wait for it.
func TestNodesFailTogether(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	hang := "echo here is $CURI_NODE; echo $$ > $SIDE/begun$CURI_NODE; exec sleep 600"
	for _, failing := range []string{"0", "1"} {
		script := "test $CURI_NODE != " + failing + " || { while ! test -e $SIDE/begun" + map[string]string{"0": "1", "1": "0"}[failing] + "; do sleep 0.02; done; exit 42; }; " + hang
		outcomes := s.all(s.nodes(2, "fail"+failing, "--name", "train", "--param", "failing="+failing, "--out", "model=model", "--", "sh", "-c", script), 42)
		if !strings.Contains(outcomes[0].stderr+outcomes[1].stderr, "exit status 42") {
			t.Errorf("node %s fails: %s\n%s", failing, outcomes[0], outcomes[1])
		}
		s.ok("sh", "-c", "rm -f $SIDE/begun*")
	}
	for killed := range 2 {
		jobs := s.nodes(2, "kill", "--name", "train", "--out", "model=model", "--", "sh", "-c", hang)
		s.eventually(nil, "both to begin", func() bool { return len(s.lines("begun0")) > 0 && len(s.lines("begun1")) > 0 })
		if err := jobs[killed].Process.Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		_ = jobs[killed].Wait()
		if o := s.finish(jobs[1-killed]); o.status == 0 || !strings.Contains(o.stderr, fmt.Sprintf("node %d (", killed)) || !strings.Contains(o.stderr, ") died") {
			t.Errorf("of a killed node %d: %s", killed, o)
		}
		pids := append(s.lines("begun0"), s.lines("begun1")...)
		s.eventually(nil, "no command to be left", func() bool { return !slices.ContainsFunc(pids, alive) })
		s.ok("sh", "-c", "rm -f $SIDE/begun*")
		if killed == 0 {
			continue
		}
		// What the other one printed is kept.
		run := s.runs()[0].Run
		if text := s.ok("curi", "log", run); !strings.Contains(text, "exit status 137, log: curi cat "+run+"/nodes/1.txt") {
			t.Errorf("curi log says:\n%s", text)
		}
		if text := s.ok("curi", "cat", run+"/nodes/1.txt"); text != "here is 1\n" {
			t.Errorf("the log of node 1 is %q", text)
		}
	}
	s.nothingPublished()
	// What a node that was killed left does not hinder the next, with the same ID.
	s.all(s.nodes(2, "kill", "--name", "train", "--out", "model=model", "--", "sh", "-c", "echo weights > {out.model}"), 0)
}

// A node that died before the first came is not waited for, nor taken for the
// one that comes in its place with the same ID.
func TestNodesAfterOneThatDied(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	args := []string{"--name", "train", "--out", "model=model", "--", "sh", "-c", "touch $SIDE/begun$CURI_NODE; " + untilGo + "echo weights > {out.model}"}
	begin := func(rank string) *job {
		c := *s
		c.env = append(slices.Clone(s.env), "PET_NODE_RANK="+rank, "PET_NNODES=2")
		return c.begin(append([]string{"curi", "stage", "exec", "--json", "--per-node", "--rdzv-id", "x"}, args...)...)
	}
	dead := begin("1")
	s.eventually(dead, "node 1 to wait", func() bool { return strings.Contains(dead.stderr.String(), "waiting for node 0") })
	if err := dead.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = dead.Wait()
	lock := strings.TrimSpace(s.ok("find", s.store+"/locks/node", "-name", "1"))
	s.ok("touch", "-d", "1 hour ago", lock)
	first := begin("0")
	s.eventually(first, "node 0 to run, and to look for node 1", func() bool {
		return s.run("test", "-e", s.side+"/begun0", "-a", lock, "-nt", s.store+"/refs/artifact").status == 0
	})
	second := begin("1")
	s.eventually(second, "node 1 to run", func() bool { return s.run("test", "-e", s.side+"/begun1").status == 0 })
	s.touch("go")
	s.all([]*job{first, second}, 0)
}

// Nothing that could not work begins.
func TestNodesRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	exec := func(env ...string) outcome {
		c := *s
		c.env = append(slices.Clone(s.env), env...)
		return c.run("curi", "stage", "exec", "--per-node", "--name", "train", "--out", "model=model", "--", "true")
	}
	for says, env := range map[string][]string{
		"which node this is": nil,
		"how many nodes":     {"PET_NODE_RANK=0"},
		"counted from 0":     {"PET_NODE_RANK=2", "PET_NNODES=2"},
		"belong together":    {"PET_NODE_RANK=0", "PET_NNODES=2"},
	} {
		if o := exec(env...); o.status != 120 || !strings.Contains(o.stderr, says) {
			t.Errorf("%v: want status 120 and %q: %s", env, says, o)
		}
	}
	s.fails(124, "a path of its own", "env", "PET_NODE_RANK=0", "PET_NNODES=2", "PET_RDZV_ID=x", "curi", "stage", "exec", "--per-node", "--name", "train", "--out-from", "model=model", "--", "true")
}

// freePort is a port of loopback that was free a moment ago.
func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// torchNodes is the training of two nodes by the real torchrun.
func torchNodes(t *testing.T) []string {
	return []string{"--name", "train", "--in", "dataset=digits", "--out", "model=model.ckpt", "--work", "checkpoints", "--code", "external/**/*.py", "--",
		"torchrun", "--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", fmt.Sprint(freePort(t)),
		"--module", "external.torch_trainer", "--dataset_path", "{in.dataset}", "--model_path", "{out.model}", "--checkpoint_dir", "{work.checkpoints}"}
}

func TestTorchNodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy).real()
	outcomes := s.all(s.nodes(2, "torch", torchNodes(t)...), 0)
	for rank, o := range outcomes {
		if !strings.Contains(o.stderr, fmt.Sprintf("rank %d: epoch 1", rank)) {
			t.Errorf("node %d did not train: %s", rank, o)
		}
	}
	r := decode[result](s, outcomes[1].stdout)
	s.ok("python", "-c", "import sys, torch; torch.load(sys.argv[1])", r.Outputs["model"].Path)
}

// As two tasks of a real srun, and as two tasks of a job that curi submits.
func TestSlurmNodes(t *testing.T) {
	s := slurmSite(t, byCopy)
	args := []string{"--name", "train", "--out", "shards=shards/", "--", "sh", "-c", "echo x >> $SIDE/ran; echo $CURI_NODE of $CURI_NODES > {out.shards}/$CURI_NODE"}
	argv := append([]string{"srun", "--quiet", "-N1", "-n2", "curi", "stage", "exec", "--per-node"}, args...)
	if o := s.run(argv...); o.status != 0 {
		t.Fatalf("two tasks of srun: %s", o)
	}
	s.wantStarts(2)
	if text := s.ok("sh", "-c", "cat "+s.path("train.shards")+"/*"); text != "0 of 2\n1 of 2\n" {
		t.Errorf("two tasks of srun wrote %q", text)
	}
	argv = append([]string{"curi", "stage", "exec", "--json", "--launcher", "slurm", "--slurm", "ntasks=2", "--per-node", "--param", "job=1"}, args...)
	o := s.run(argv...)
	if o.status != 0 {
		t.Fatalf("two tasks of a job: %s", o)
	}
	s.wantStarts(4)
	if text := s.ok("sh", "-c", "cat "+decode[result](s, o.stdout).Outputs["shards"].Path+"/*"); text != "0 of 2\n1 of 2\n" {
		t.Errorf("two tasks of a job wrote %q", text)
	}
	s.fails(124, "a job of 2 nodes", "curi", "stage", "exec", "--launcher", "slurm", "--no-mount", "--slurm", "nodes=2", "--name", "x", "--", "true")
}

// A stage of the file on two nodes of a job: one of them dies in the midst of
// it, which ends the other with a line that names it; the next try goes on.
func TestSlurmNodesByName(t *testing.T) {
	s := slurmSite(t, byCopy)
	s.write("curi.yaml", `
stages:
  data: {shell: 'echo x >> $SIDE/made; echo data > {out.d}', out: {d: d}}
  train:
    shell: |
      echo "$CURI_NODE on $SLURMD_NODENAME"; cat {in.d} >> {work.w}/$CURI_NODE
      echo $PPID > $SIDE/curi$CURI_NODE; test -e $SIDE/go || exec sleep 600
      cat {work.w}/$CURI_NODE > {out.shards}/$CURI_NODE
    in: {d: data.d}
    out: {shards: shards/}
    work: [w]
    launcher: {slurm: {partition: wide, nodes: 2, ntasks-per-node: 1}}
`)
	argv := []string{"curi", "stage", "exec", "--json", "--per-node", "train"}
	j := s.begin(argv...)
	s.eventually(j, "both nodes to run", func() bool { return len(s.lines("curi0")) == 1 && len(s.lines("curi1")) == 1 })
	// The command's parent is the guard of the run on that node, and its parent
	// curi, without which it ends by itself.
	s.ok("sh", "-c", `guard=$(cat $SIDE/curi1); kill -9 $(ps -o ppid= -p $guard); kill -9 $guard || ! kill -0 $guard`)
	if o := s.finish(j); o.status != 137 || !strings.Contains(o.stderr, "node 1 (") || !strings.Contains(o.stderr, ") died") {
		t.Errorf("of a node that died: %s", o)
	}
	s.nothingPublished()
	s.touch("go")
	o := s.run(argv...)
	if o.status != 0 || !strings.Contains(o.stderr, "(try 2, with the work directories of the last)") {
		t.Fatalf("the next try: %s", o)
	}
	r := decode[result](s, o.stdout)
	if text := s.ok("sh", "-c", "cat "+r.Outputs["shards"].Path+"/*"); text != "data\ndata\ndata\ndata\n" {
		t.Errorf("the nodes wrote %q", text)
	}
	if logs := s.ok("curi", "cat", r.Run+"/log.txt") + s.ok("curi", "cat", r.Run+"/nodes/1.txt"); logs != "0 on n1\n1 on n2\n" {
		t.Errorf("the logs are %q", logs)
	}
	if len(s.lines("made")) != 1 {
		t.Error("the data was made more than once")
	}
}

// A command that fails at once on the first node may be over before another
// has seen that it runs.
func TestNodesWhoseFirstFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	s.all(s.nodes(2, "fast", "--name", "train", "--out", "model=model", "--", "sh", "-c", "exit 3"), 3)
}

// Of several nodes the first makes the snapshots.
func TestNodesWithSnapshots(t *testing.T) {
	t.Parallel()
	s := newSite(t, byCopy)
	args := []string{"--name", "train", "--out", "model=model", "--work", "w", "--snapshot", "1ms", "--",
		"sh", "-c", `echo x >> $SIDE/ran; until [ $(wc -l < $SIDE/ran) = 2 ]; do sleep 0.05; done
			test $CURI_NODE = 0 && printf '\002\000\000\000\000\000\000\000{}' > {work.w}/a.safetensors; exit 3`}
	s.all(s.nodes(2, "snap", args...), 3)
	s.wantStarts(2)
	if text := s.ok("sh", "-c", "find $CURI_STORE/refs/work -type f | wc -l"); strings.TrimSpace(text) != "1" {
		t.Errorf("%s snapshots", text)
	}
}
