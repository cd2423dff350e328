package launcher

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// Nodes says which of several nodes this call is: each runs the command of one
// stage, and the first, rank 0, publishes what all of them wrote.
type Nodes struct {
	Rank, Count int
	ID          string // what the calls of one run have in common, and no others
}

// FindNodes finds out which node this call is, by what Slurm, MPI or torchrun
// say in the environment. id is what the nodes have in common; "" asks the
// environment for that too. Errors wrap stages.ErrUsage.
func FindNodes(environ []string, p *stages.Plan, id string) (*Nodes, error) {
	env := environment(environ)
	number := func(names ...string) (int, bool) {
		for _, name := range names {
			if v, ok := env.get(name); ok {
				if n, err := strconv.Atoi(v); err == nil && n >= 0 {
					return n, true
				}
			}
		}
		return 0, false
	}
	n := &Nodes{ID: id}
	var haveRank, haveCount bool
	if _, step := env.get("SLURM_STEP_ID"); step {
		n.Rank, haveRank = number("SLURM_PROCID")
		n.Count, haveCount = number("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
	}
	if !haveRank || !haveCount {
		n.Rank, haveRank = number("PET_NODE_RANK", "NODE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "GROUP_RANK")
		n.Count, haveCount = number("PET_NNODES", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
		if count, _ := nodesOf(env, p); !haveCount && count > 1 {
			n.Count, haveCount = count, true
		}
	}
	switch {
	case !haveRank:
		return nil, fmt.Errorf("--per-node: nothing says which node this is: start one curi per node by srun or mpirun, or set PET_NODE_RANK, which torchrun takes too, to 0, 1, …: %w", stages.ErrUsage)
	case !haveCount:
		return nil, fmt.Errorf("--per-node: nothing says how many nodes there are: set PET_NNODES, which torchrun takes too: %w", stages.ErrUsage)
	case n.Rank >= n.Count:
		return nil, fmt.Errorf("--per-node: this is node %d, counted from 0, and there are %d: %w", n.Rank, n.Count, stages.ErrUsage)
	}
	if n.ID == "" {
		n.ID, _ = env.get("PET_RDZV_ID")
	}
	if job, ok := env.get("SLURM_JOB_ID"); ok && n.ID == "" {
		step, _ := env.get("SLURM_STEP_ID")
		restart, _ := env.get("SLURM_RESTART_COUNT")
		n.ID = strings.Join([]string{"slurm", job, step, restart}, ".")
	}
	if n.ID == "" {
		n.ID, _ = env.get("PMIX_NAMESPACE")
	}
	if n.ID == "" {
		return nil, fmt.Errorf("--per-node: nothing says which calls belong together: give all of them the same --rdzv-id, another for every run: %w", stages.ErrUsage)
	}
	return n, nil
}

// group is the common ID as a part of a name.
func (n *Nodes) group() string {
	sum := sha256.Sum256([]byte(n.ID))
	return hex.EncodeToString(sum[:8])
}

// How often nodes look for each other in the store, how long they wait for one
// that shows no sign of itself, and how long the first waits at the end.
const (
	lookNodes   = 250 * time.Millisecond
	nodeSilence = 10 * time.Minute
	nodesLeave  = 20 * time.Second

	lookPatience = 3 * time.Second
	// To ask whether a node lives writes to the file server.
	askNodes = 2 * time.Second
)

// leadState is how far the first node is.
type leadState string

const (
	leadWaits leadState = "waits" // for the key, or for what it needs
	leadRuns  leadState = "runs"
	leadStops leadState = "stops" // the command failed here: the others are to end theirs
	leadEnded leadState = "ended"
)

// lead is the Info of the ref node/<key>/<group>/lead, by which the first node
// tells the others what to do.
type lead struct {
	State   leadState `json:"state"`
	Run     string    `json:"run"`
	Host    string    `json:"host"`
	Exit    int       `json:"exit_status"`
	Cached  bool      `json:"cached"`
	Root    string    `json:"root"` // of the places, the same on all nodes
	Attempt int       `json:"attempt"`
	Resumed bool      `json:"resumed"`
	Resume  string    `json:"resume"`
	// Tokens says whom the first node means: those that came to this run, by
	// rank, and not those of an earlier one.
	Tokens map[string]string `json:"tokens"`
}

// arrival is the Info of the ref node/<key>/<group>/<rank>, by which another
// node says that it is there.
type arrival struct {
	Token string `json:"token"`
	Host  string `json:"host"`
}

// part is the Info of the ref part/<run>/<rank>: how the command ended on one
// node. Its tree holds out/<name> and log.txt.
type part struct {
	Status stages.Status `json:"status"`
	Exit   int           `json:"exit_status"`
	Why    string        `json:"why"`
	Node   stages.Node   `json:"node"`

	tree cas.Digest
	rank int
	log  cas.Digest // zero: not known
}

func (p part) String() string { return fmt.Sprintf("node %d (%s)", p.rank, p.Node.Host) }

// group is the nodes of one run as one of them sees them.
type group struct {
	s      *cas.Store
	key    string
	prefix string // node/<key>/<group>/
	nodes  *Nodes

	mu    sync.Mutex
	asked map[int]time.Time // when a node was last looked for, by rank
}

func (e *execution) group() *group {
	key := e.p.Key.String()
	return &group{s: e.s, key: key, prefix: "node/" + key + "/" + e.o.Nodes.group() + "/", nodes: e.o.Nodes, asked: map[int]time.Time{}}
}

// lockName is that of the lock that a node holds while it is there.
func (g *group) lockName(rank int) string { return g.prefix + strconv.Itoa(rank) }

func (g *group) arrivalRef(rank int) string { return g.prefix + strconv.Itoa(rank) }

func partRef(run string, rank int) string { return "part/" + run + "/" + strconv.Itoa(rank) }

// enter takes this node's lock.
func (g *group) enter(ctx context.Context, what string) (*cas.Lock, error) {
	began := time.Now()
	lock, err := g.s.Lock(ctx, g.lockName(g.nodes.Rank), what, func(h cas.Holder) error {
		// Who looks for this node has it for a moment.
		if time.Since(began) < lookPatience {
			return nil
		}
		return &cas.HeldError{Name: g.lockName(g.nodes.Rank), Holder: h}
	})
	if errors.Is(err, cas.ErrBusy) {
		return nil, fmt.Errorf("%w: another call is node %d of %q already: every node needs a rank of its own, and every run an --rdzv-id of its own: %w", ErrRefused, g.nodes.Rank, g.nodes.ID, err)
	}
	return lock, err
}

// gone reports whether a node is not there, or no more. It is not asked often:
// in between a node counts as there.
func (g *group) gone(ctx context.Context, rank int) (bool, error) {
	g.mu.Lock()
	wait := time.Since(g.asked[rank]) < askNodes
	if !wait {
		g.asked[rank] = time.Now()
	}
	g.mu.Unlock()
	if wait {
		return false, nil
	}
	return g.goneNow(ctx, rank)
}

func (g *group) goneNow(ctx context.Context, rank int) (bool, error) {
	lock, err := g.s.Lock(ctx, g.lockName(rank), "look for node "+strconv.Itoa(rank), nil)
	if errors.Is(err, cas.ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, lock.Release()
}

func (g *group) setLead(ctx context.Context, l lead) error {
	return putInfo(ctx, g.s, g.prefix+"lead", cas.Digest{}, l)
}

// lead reads what the first node says, and when it said so.
func (g *group) lead(ctx context.Context) (lead, time.Time, error) {
	var l lead
	ref, err := readInfo(ctx, g.s, g.prefix+"lead", &l)
	return l, ref.Time, err
}

func (g *group) part(ctx context.Context, run string, rank int) (part, error) {
	p := part{rank: rank}
	ref, err := readInfo(ctx, g.s, partRef(run, rank), &p)
	p.tree = ref.Tree
	return p, err
}

func putInfo(ctx context.Context, s *cas.Store, name string, tree cas.Digest, info any) error {
	b, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.SetRef(ctx, cas.Ref{Name: name, Tree: tree, Info: b})
}

func readInfo(ctx context.Context, s *cas.Store, name string, info any) (cas.Ref, error) {
	ref, err := s.Ref(ctx, name)
	if err == nil && json.Unmarshal(ref.Info, info) != nil {
		err = fmt.Errorf("ref %s: %w", name, cas.ErrCorrupt)
	}
	return ref, err
}

// halt is why a command is to end, and the status with which that ends the
// run; 0 is the command's own.
type halt struct {
	why  string
	exit int
}

// execNode is Exec for one node of several.
func (e *execution) execNode(ctx context.Context) (*Result, error) {
	if err := checkNodeStage(e.p); err != nil {
		return nil, err
	}
	e.o.NoMount = true
	e.o.Retries = 0 // the nodes would have to agree on each try
	e.sig = catchSignals(ctx)
	defer e.sig.stop()
	exec := e.execFollower
	if e.o.Nodes.Rank == 0 {
		exec = func(ctx context.Context) (*Result, error) {
			return e.execLeader(ctx, func() (*Result, error) { return e.hitOrMiss(ctx) })
		}
	}
	res, err := exec(e.sig.ctx)
	if sig := e.sig.caught(); sig != 0 && errors.Is(err, context.Canceled) {
		e.say("ended by %s", sig)
		return e.result(128 + int(sig)), nil
	}
	return res, err
}

func (e *execution) hitOrMiss(ctx context.Context) (*Result, error) {
	if !e.o.Force {
		res, err := e.hit(ctx)
		if res != nil || err != nil {
			return res, err
		}
	}
	return e.miss(ctx)
}

// checkNodeStage refuses what several nodes cannot do together.
func checkNodeStage(p *stages.Plan) error {
	for _, out := range p.Outputs {
		if out.From != "" {
			return fmt.Errorf("%w: output %s is to be taken from %s, where all nodes would write it: with --per-node declare it with --out, which gives every node a path of its own", ErrRefused, out.Name, out.From)
		}
	}
	return nil
}

// markOf is the variable by which the processes of a run are found.
func markOf(id string) string {
	if id == "" {
		return ""
	}
	return "CURI_RUN=" + id
}

// mark is markOf for the processes of this call: several nodes of a run may be
// on one machine.
func (r *run) mark() string {
	if r.o.Nodes == nil {
		return markOf(r.id)
	}
	return fmt.Sprintf("CURI_PART=%s.%d", r.id, r.node)
}

// nodeEnv tells the command which node it is; what the user said stays.
func (r *run) nodeEnv(spec *guardSpec) {
	env := environment(spec.Env)
	name, value, _ := strings.Cut(r.mark(), "=")
	env.set(name, value)
	env.set("CURI_NODE", strconv.Itoa(r.node))
	env.set("CURI_NODES", strconv.Itoa(r.o.Nodes.Count))
	for name, value := range map[string]string{"PET_NODE_RANK": strconv.Itoa(r.node), "PET_NNODES": strconv.Itoa(r.o.Nodes.Count), "PET_RDZV_ID": r.o.Nodes.group()} {
		if _, ok := env.get(name); !ok {
			env.set(name, value)
		}
	}
	spec.Env = env
}

// executeAll runs the command, on all nodes if there are several: then it is
// over when it is on all of them, and succeeded where it did on all.
func (r *run) executeAll(ctx context.Context) outcome {
	if r.lead == nil {
		return r.execute(ctx)
	}
	r.halt = r.lead.halt
	for rank := 1; rank < r.o.Nodes.Count; rank++ {
		_ = r.s.DeleteRef(ctx, partRef(r.id, rank))
	}
	if err := r.lead.began(ctx, r); err != nil {
		return r.failed(err)
	}
	out := r.execute(ctx)
	r.ownExit = out.exit // also where another node's ended it
	if out.status != stages.Succeeded || out.err != nil {
		// The others hear that it is over; what they write is theirs alone.
		if err := r.lead.say(context.WithoutCancel(ctx), func(s *lead) { s.State = leadStops }); err != nil {
			r.warn("tell the other nodes to end: %s", oneLine(err))
		}
	}
	parts, err := r.lead.collect(context.WithoutCancel(ctx), r.id)
	r.parts = parts
	if err != nil && out.status == stages.Succeeded {
		return r.failed(err)
	}
	for _, p := range parts {
		if out.status == stages.Succeeded && p.Status != stages.Succeeded {
			out.status, out.exit, out.reason = p.Status, p.Exit, p.Why
		}
	}
	return out
}

// dropParts forgets what the nodes did: it is in the result.
func (r *run) dropParts(ctx context.Context) {
	for _, p := range r.parts {
		if err := r.s.DeleteRef(ctx, partRef(r.id, p.rank)); err != nil && !errors.Is(err, cas.ErrNotFound) {
			r.o.Log.Warn("forget the part of a node", "run", r.id, "node", p.rank, "error", err)
		}
	}
}
