package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// snapshotted brings a snapshot of work directories to the remotes that results
// go to, so that another machine can go on with it. What fails is said and ends
// no run.
func (e *elsewhere) snapshotted(ctx context.Context, k stages.Key, snap stages.Snapshot) error {
	all, err := remote.Configs(ctx, e.s)
	if err != nil {
		return err
	}
	var failed error
	for _, cfg := range all {
		if cfg.Policy != remote.Publish {
			continue
		}
		c := e.contact(ctx, cfg, k)
		if c.r == nil {
			continue // that was said
		}
		if err := e.pushWork(ctx, c, k, snap); err != nil {
			failed = errors.Join(failed, fmt.Errorf("remote %s: %w", c.Name, err))
		}
	}
	if failed != nil {
		return fmt.Errorf("the snapshot of the work directories: %w", failed)
	}
	return nil
}

func (e *elsewhere) pushWork(ctx context.Context, c *contact, k stages.Key, snap stages.Snapshot) error {
	p, err := c.r.Push(ctx, e.s, snap.Tree, remote.PushOptions{})
	if err != nil {
		return err
	}
	return c.r.PublishWork(ctx, k.String(), remote.WorkInfo{
		RefInfo: remote.RefInfo{Tree: snap.Tree, Bytes: p.Bytes, Files: p.Files, Run: snap.Run, By: publisher()},
		Attempt: snap.Attempt, Checkpoint: snap.Checkpoint, Changed: snap.Time})
}

// bringSnapshot brings the newest snapshot of a key that a remote has, if it is
// newer than what is here. A remote that cannot give one is no reason not to run.
func (e *elsewhere) bringSnapshot(ctx context.Context, k stages.Key) error {
	all, err := remote.Configs(ctx, e.s)
	if err != nil {
		return err
	}
	for _, cfg := range all {
		c := e.contact(ctx, cfg, k)
		if c.r == nil {
			continue
		}
		err := e.bringFrom(ctx, c, k)
		switch {
		case ctx.Err() != nil || errors.Is(err, cas.ErrNoSpace):
			return err
		case err != nil && !isNotFound(err):
			e.a.warn("remote %s: %s; going on without its snapshot of the work directories", c.Name, oneLine(err.Error()))
		}
	}
	return nil
}

func (e *elsewhere) bringFrom(ctx context.Context, c *contact, k stages.Key) error {
	info, err := c.r.Work(ctx, k.String())
	if err != nil {
		return err
	}
	have, err := stages.Snapshots(ctx, e.s, k)
	if err != nil {
		return err
	}
	if len(have) > 0 && !info.Changed.After(have[0].Time) {
		return nil
	}
	progress, clear := e.a.progress("pulling the work directories of " + info.Run + " from " + c.Name)
	defer clear()
	added, err := c.r.Pull(ctx, e.s, info.Tree, remote.PullOptions{Progress: progress})
	if err != nil {
		return err
	}
	defer added.Release()
	clear()
	_, err = stages.PutSnapshot(ctx, e.s, k, stages.Snapshot{
		Run: info.Run, Attempt: info.Attempt, Checkpoint: info.Checkpoint, Time: info.Changed, Tree: info.Tree})
	if err == nil {
		e.a.say("remote %s has work directories of %s, by %s, with %s", c.Name, info.Run, info.By, info.Checkpoint)
	}
	return err
}
