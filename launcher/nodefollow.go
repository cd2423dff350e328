package launcher

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// execFollower is Exec for every node but the first: it does what that says.
func (e *execution) execFollower(ctx context.Context) (*Result, error) {
	g := e.group()
	rank := g.nodes.Rank
	lock, err := g.enter(ctx, fmt.Sprintf("node %d of stage %s", rank, e.p.Name))
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	defer e.keepBeating(lock)()
	here := arrival{Token: rand.Text(), Host: thisNode().Host}
	if err := putInfo(ctx, e.s, g.arrivalRef(rank), cas.Digest{}, here); err != nil {
		return nil, err
	}
	defer func() { _ = e.s.DeleteRef(context.WithoutCancel(ctx), g.arrivalRef(rank)) }()
	e.say("node %d of %d: waiting for node 0", rank, g.nodes.Count)
	l, err := e.awaitLead(ctx, g, here.Token, leadRuns)
	if err != nil {
		return nil, err
	}
	if l.State == leadEnded {
		return e.leadResult(ctx, l)
	}
	e.id = l.Run
	r := &run{execution: e, lock: lock, place: e.s.Place(g.key), node: rank}
	return r.doFollower(ctx, g, l, here.Token)
}

// awaitLead waits until the first node says that it is so far, or at its end.
func (e *execution) awaitLead(ctx context.Context, g *group, token string, state leadState) (lead, error) {
	began := time.Now()
	rank := strconv.Itoa(g.nodes.Rank)
	t := time.NewTicker(lookNodes)
	defer t.Stop()
	for {
		l, said, err := g.lead(ctx)
		meant := err == nil && l.Tokens[rank] == token
		switch {
		case err != nil && !errors.Is(err, cas.ErrNotFound):
			return l, err
		case meant && (l.State == state || l.State == leadEnded || state == leadRuns && l.State == leadStops):
			// A command that fails at once is past a state before it is seen.
			return l, nil
		case err == nil && l.State == leadEnded && said.After(e.began.Add(-silence)):
			// It ended before this node came.
			if gone, err := g.gone(ctx, 0); err != nil || gone {
				return l, err
			}
		}
		gone, err := g.gone(ctx, 0)
		switch {
		case err != nil:
			return l, err
		case gone && meant:
			if now, _, err := g.lead(ctx); err == nil && now.State == leadEnded {
				return now, nil
			}
			return l, fmt.Errorf("%w: node 0 (%s) died", ErrRefused, l.Host)
		case gone && time.Since(began) > nodeSilence:
			return l, fmt.Errorf("%w: node 0 of %q did not come within %s: is it given the same --rdzv-id, and the same command?", ErrRefused, g.nodes.ID, nodeSilence)
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-t.C:
		}
	}
}

// leadResult is what the first node made of it.
func (e *execution) leadResult(ctx context.Context, l lead) (*Result, error) {
	e.id = l.Run
	res := e.result(l.Exit)
	res.Cached = l.Cached
	if l.Exit != 0 {
		e.say("node 0 (%s) ended with exit status %d, and so does this node", l.Host, l.Exit)
		return res, nil
	}
	found, err := stages.FindResult(ctx, e.s, e.p.Key)
	if err != nil {
		return nil, fmt.Errorf("take the result that node 0 (%s) published: %w", l.Host, err)
	}
	res.Outputs, err = e.outputsOf(ctx, found.Tree)
	return res, err
}

// doFollower runs the command on this node, stores what it wrote and says so.
func (r *run) doFollower(ctx context.Context, g *group, l lead, token string) (*Result, error) {
	defer r.release()
	p := part{rank: r.node, Status: stages.Failed, Exit: exitTrouble, Node: thisNode()}
	r.halt = make(chan halt, 1)
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan lead, 1)
	go func() {
		end, err := r.awaitLead(watching, g, token, leadStops)
		if watching.Err() == nil {
			r.halt <- halt{why: fmt.Sprintf("node 0 (%s) ended", l.Host)}
		}
		if err == nil && end.State != leadEnded {
			end, err = r.awaitLead(watching, g, token, leadEnded)
		}
		if err != nil {
			end = lead{State: leadEnded, Run: r.id, Host: l.Host, Exit: exitTrouble}
			if watching.Err() == nil {
				r.warn("%s", oneLine(err))
			}
		}
		ended <- end
	}()
	out := outcome{status: stages.Failed, exit: exitTrouble}
	err := r.prepareFollower(ctx, l)
	if err == nil {
		out = r.execute(ctx)
		err = out.err
	}
	ctx = context.WithoutCancel(ctx)
	p.Status, p.Exit = out.status, out.exit
	if r.log != nil {
		r.maskRankLogs()
		if err := r.log.close(); err != nil {
			r.warn("the log of this node is not whole: %s", oneLine(err))
		}
	}
	if err == nil && out.status == stages.Succeeded {
		if err = r.storePart(ctx, p); err != nil {
			out = r.failed(err)
		}
	}
	if out.status != stages.Succeeded {
		if out.reason == "" && err != nil {
			out.reason = oneLine(err)
		}
		p.Status, p.Exit, p.Why = out.status, out.exit, fmt.Sprintf("node %d (%s): %s", r.node, p.Node.Host, out.reason)
		r.warn("%s", p.Why)
		p.Node.Exit = p.Exit
		if err := r.putPart(ctx, p, nil); err != nil {
			return nil, err
		}
	}
	return r.leadResult(ctx, <-ended)
}

// prepareFollower makes what this node has of its own: outputs, TMPDIR, logs.
// Inputs and work directories are those of the first node.
func (r *run) prepareFollower(ctx context.Context, l lead) error {
	if err := r.p.CheckSecrets(r.secret); err != nil {
		return fmt.Errorf("stage %s: %w", r.p.Name, err)
	}
	if err := r.pinInputs(ctx); err != nil {
		return err
	}
	dir := r.dir()
	if err := r.makePlaces(dir, "out", "logs", "tmp"); err != nil {
		return err
	}
	// A short path to a deep store is a link on each machine.
	root := l.Root
	if r.o.Places == "" {
		var err error
		if root, err = plainRoot(r.s, r.p.Key.String(), r.deepest()); err != nil {
			return err
		}
	}
	r.places = r.paths(root)
	own := filepath.Join(root, nodeDir(r.node))
	r.places.Logs, r.places.Tmp = filepath.Join(own, "logs"), filepath.Join(own, "tmp")
	for name, path := range r.places.Out {
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		r.places.Out[name] = filepath.Join(own, rel)
	}
	if l.Resume != "" {
		r.places.Resume = filepath.Join(root, strings.TrimPrefix(l.Resume, l.Root))
	}
	r.attempt.number, r.attempt.resumed = l.Attempt, l.Resumed
	r.attempt.params = filepath.Join(r.places.Tmp, "curi-params.json")
	r.attempt.meta = filepath.Join(r.places.Tmp, "curi-meta")
	if err := r.fillArgv(); err != nil {
		return err
	}
	if err := writeParams(filepath.Join(dir, "tmp", "curi-params.json"), r.p.Params); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "curi-meta"), nil, 0o644); err != nil {
		return fmt.Errorf("make the file for metadata: %w", err)
	}
	var err error
	r.log, err = newKeptLog(r.logPath(), r.secrets)
	r.info = stages.NewRun(r.p, r.id, l.Attempt)
	return err
}

// storePart stores what the command wrote here, and says so.
func (r *run) storePart(ctx context.Context, p part) error {
	done, err := r.sealWritten(ctx)
	defer func() {
		for _, s := range done {
			s.added.Release()
		}
	}()
	if err != nil {
		return err
	}
	return r.putPart(ctx, p, done)
}

// sealWritten seals the outputs that there are: another node may have written
// the others.
func (r *run) sealWritten(ctx context.Context) (done []sealed, err error) {
	var take []stages.Output
	for _, out := range r.p.Outputs {
		why, err := r.missing(out)
		if err != nil {
			return nil, err
		}
		if why == "" {
			take = append(take, out)
		}
	}
	if err := r.moveExtras(take); err != nil {
		return nil, err
	}
	meta, err := r.writtenMeta()
	if err != nil {
		return nil, err
	}
	for _, out := range take {
		added, err := r.sealOutput(ctx, out, meta[out.Name])
		if err != nil {
			return done, fmt.Errorf("seal output %s: %w", out.Name, err)
		}
		done = append(done, sealed{out.Name, added})
	}
	return done, nil
}

// nodeDir is where a node other than the first has its own below the place.
func nodeDir(rank int) string { return "n" + strconv.Itoa(rank) }

// dir is where this run has its outputs, logs and TMPDIR.
func (r *run) dir() string {
	if r.node == 0 {
		return realDir(r.place)
	}
	return filepath.Join(realDir(r.place), nodeDir(r.node))
}

// deepest is what may lie between {root} and TMPDIR.
func (r *run) deepest() string {
	if r.o.Nodes == nil {
		return ""
	}
	return nodeDir(r.o.Nodes.Count)
}

// removeNodeDirs removes what other nodes had below a place; what they wrote as
// outputs and was not taken is kept.
func removeNodeDirs(place, kept string) error {
	dirs, _ := filepath.Glob(filepath.Join(place, "n[0-9]*"))
	for _, d := range dirs {
		if err := moveAside(filepath.Join(d, "out"), filepath.Join(kept, "out-"+filepath.Base(d))); err != nil {
			return err
		}
		if err := removeAll(d); err != nil {
			return err
		}
	}
	return nil
}
