package main

import (
	"context"
	"sync"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/launcher"
	"github.com/curi-store/curi/stages"
)

// taskRemotes lets each task of a graph ask the remotes, as a call of its own
// would.
type taskRemotes struct {
	a *app
	s *cas.Store
	o *stageOptions

	mu sync.Mutex
	of map[*stages.Task]*elsewhere

	following map[*stages.Task]bool // another node is the first
}

// follows notes before a task runs whether it runs on the first of several nodes.
func (r *taskRemotes) follows(t *stages.Task, follows bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.following = map[*stages.Task]bool{t: follows}
}

// connect gives a task's run what it asks.
func (r *taskRemotes) connect(t *stages.Task, opts *launcher.Options) {
	opts.Owe = func(ctx context.Context, k stages.Key, res stages.Result) error { return owe(ctx, r.s, k, res) }
	if r.o.offline {
		return
	}
	e := r.a.elsewhere(r.s)
	opts.Elsewhere, opts.There, opts.Snapshotted, opts.BringSnapshot = e.result, e.there, e.snapshotted, e.bringSnapshot
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[*stages.Task]*elsewhere{}
	}
	r.of[t] = e
}

// after publishes what a task made, and tells others how it ended.
func (r *taskRemotes) after(ctx context.Context, t *stages.Task, res *launcher.Result, err error) error {
	exit := exitStatus(ctx, err)
	if err == nil {
		exit = res.Exit
	}
	r.mu.Lock()
	e, follows := r.of[t], r.following[t]
	delete(r.of, t)
	r.mu.Unlock()
	var perr error
	// A job publishes its result itself, and of several nodes the first does.
	if exit == 0 && !res.Cached && (res.Job == "" || r.o.push == pushRequired) && !follows {
		perr = r.a.publishResult(ctx, r.s, res.Run, r.o.pushWhen())
	}
	if e != nil {
		if r.o.detach && err == nil && res.Job != "" {
			e.leave()
		}
		e.end(ctx, exit)
		e.close()
	}
	return perr
}
