package launcher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/stages"
)

// leader is the first node of several: it has the key, decides, and publishes.
type leader struct {
	*group
	lock *cas.Lock
	e    *execution

	telling sync.Mutex
	says    lead
	seen    map[int]string // nodes that came, and their hosts
	dead    map[int]string // tokens of nodes that came to an earlier run; only watch has them
	halt    chan halt      // why the command here is to end: another node's did
	once    sync.Once
}

// execLeader is Exec for the first node.
func (e *execution) execLeader(ctx context.Context, exec func() (*Result, error)) (*Result, error) {
	g := e.group()
	lock, err := g.enter(ctx, "lead stage "+e.p.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	defer e.keepBeating(lock)()
	l := &leader{group: g, lock: lock, e: e, says: lead{State: leadWaits, Host: thisNode().Host, Tokens: map[string]string{}}, seen: map[int]string{}, dead: map[int]string{}, halt: make(chan halt, 1)}
	if err := g.setLead(ctx, l.says); err != nil {
		return nil, err
	}
	e.lead = l
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { defer close(done); l.watch(watching) }()
	res, err := exec()
	l.ended(context.WithoutCancel(ctx), res, err)
	l.farewell(context.WithoutCancel(ctx))
	cancel()
	<-done
	return res, err
}

// say tells the other nodes something new.
func (l *leader) say(ctx context.Context, change func(*lead)) error {
	l.telling.Lock()
	defer l.telling.Unlock()
	change(&l.says)
	return l.setLead(ctx, l.says)
}

// watch lets nodes in, and sees when one of them fails, until ctx ends.
func (l *leader) watch(ctx context.Context) {
	t := time.NewTicker(lookNodes)
	defer t.Stop()
	for {
		for rank := 1; rank < l.nodes.Count && ctx.Err() == nil; rank++ {
			if err := l.look(ctx, rank); err != nil && ctx.Err() == nil {
				l.e.o.Log.Warn("look for another node", "node", rank, "error", err)
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *leader) look(ctx context.Context, rank int) error {
	var a arrival
	_, err := readInfo(ctx, l.s, l.arrivalRef(rank), &a)
	if errors.Is(err, cas.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l.telling.Lock()
	known, runs, run := l.says.Tokens[strconv.Itoa(rank)] == a.Token, l.says.State == leadRuns, l.says.Run
	l.telling.Unlock()
	if !known {
		// One that is gone, of an earlier run, never comes back: another has
		// another token.
		if l.dead[rank] == a.Token {
			return nil
		}
		gone, err := l.goneNow(ctx, rank)
		if gone {
			l.dead[rank] = a.Token
		}
		if err != nil || gone {
			return err
		}
		l.telling.Lock()
		l.seen[rank] = a.Host
		l.telling.Unlock()
		return l.say(ctx, func(s *lead) { s.Tokens[strconv.Itoa(rank)] = a.Token })
	}
	if !runs {
		return nil
	}
	p, err := l.part(ctx, run, rank)
	switch {
	case err == nil && p.Status != stages.Succeeded:
		l.fail(halt{p.Why, p.Exit})
	case errors.Is(err, cas.ErrNotFound):
		gone, err := l.gone(ctx, rank)
		if err != nil || !gone {
			return err
		}
		if _, err := l.part(ctx, run, rank); errors.Is(err, cas.ErrNotFound) {
			p := diedPart(rank, a.Host)
			l.fail(halt{p.Why, p.Exit})
		}
	}
	return nil
}

// diedPart is what is known of a node that said nothing of its end.
func diedPart(rank int, host string) part {
	exit := 128 + int(syscall.SIGKILL)
	return part{rank: rank, Status: stages.Failed, Exit: exit, Why: fmt.Sprintf("node %d (%s) died", rank, host),
		Node: stages.Node{Host: host, Exit: exit, GPUs: []string{}}}
}

// fail ends the command here, if it still runs.
func (l *leader) fail(h halt) { l.once.Do(func() { l.halt <- h }) }

// began tells the others that they may run.
func (l *leader) began(ctx context.Context, r *run) error {
	return l.say(ctx, func(s *lead) {
		s.State, s.Run, s.Root, s.Attempt, s.Resumed, s.Resume = leadRuns, r.id, r.places.Root, r.attempt.number, r.attempt.resumed, r.places.Resume
	})
}

// collect waits for all other nodes to end, and returns what they left, with an error too.
func (l *leader) collect(ctx context.Context, run string) ([]part, error) {
	var parts []part
	began := time.Now()
	for rank := 1; rank < l.nodes.Count; rank++ {
		for {
			p, err := l.part(ctx, run, rank)
			if err == nil {
				parts = append(parts, p)
				break
			}
			if !errors.Is(err, cas.ErrNotFound) {
				return parts, err
			}
			gone, err := l.gone(ctx, rank)
			if err != nil {
				return parts, err
			}
			l.telling.Lock()
			host, came := l.seen[rank]
			l.telling.Unlock()
			if _, err := l.part(ctx, run, rank); gone && came && errors.Is(err, cas.ErrNotFound) {
				parts = append(parts, diedPart(rank, host))
				break
			}
			if gone && !came && time.Since(began) > silence {
				return parts, fmt.Errorf("%w: node %d of %d never came: nothing is published", ErrRefused, rank, l.nodes.Count)
			}
			select {
			case <-ctx.Done():
				return parts, ctx.Err()
			case <-time.After(lookNodes):
			}
		}
	}
	return parts, nil
}

// ended tells the others how it ended.
func (l *leader) ended(ctx context.Context, res *Result, err error) {
	serr := l.say(ctx, func(s *lead) {
		s.State, s.Exit = leadEnded, exitTrouble
		if errors.Is(err, ErrRefused) {
			s.Exit = exitRefused
		}
		if res != nil {
			s.Run, s.Cached = res.Run, res.Cached
			if err == nil || res.Exit != 0 {
				s.Exit = res.Exit
			}
		}
	})
	if serr != nil {
		l.e.warn("tell the other nodes how it ended: %s", oneLine(serr))
	}
}

// farewell waits until the other nodes have heard it and left, and takes away
// what is left of the meeting.
func (l *leader) farewell(ctx context.Context) {
	for deadline := time.Now().Add(nodesLeave); time.Now().Before(deadline); time.Sleep(lookNodes) {
		left := 0
		for rank := 1; rank < l.nodes.Count; rank++ {
			l.telling.Lock()
			_, came := l.seen[rank]
			l.telling.Unlock()
			_, err := l.s.Ref(ctx, l.arrivalRef(rank))
			gone := errors.Is(err, cas.ErrNotFound)
			if !gone {
				gone, _ = l.gone(ctx, rank)
			}
			if came && gone {
				left++
			}
		}
		if left == l.nodes.Count-1 {
			_ = l.s.DeleteRef(ctx, l.prefix+"lead")
			return
		}
	}
}
