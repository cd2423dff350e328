package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// maxRecord bounds a record that is fetched, in bytes.
const maxRecord = 64 << 20

// fetchResult looks a key up on the remotes of the store, one after the other,
// and brings the first result that there is. A remote that is away is said, and
// no reason not to run.
func (a *app) fetchResult(ctx context.Context, s *cas.Store, k stages.Key) (bool, error) {
	all, err := remote.Configs(ctx, s)
	if err != nil {
		return false, err
	}
	for _, c := range all {
		found, err := a.fetchFrom(ctx, s, c, k)
		if found {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil && !isNotFound(err) {
			a.warn("%s; going on without it", oneLine(err.Error()))
		}
	}
	return false, nil
}

func (a *app) fetchFrom(ctx context.Context, s *cas.Store, c remote.Config, k stages.Key) (bool, error) {
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return false, err
	}
	defer r.Close()
	info, err := r.Result(ctx, k.String())
	if err != nil {
		return false, err
	}
	bad := func(err error) error {
		return fmt.Errorf("remote %s has a result of this key, published by %s, that cannot be taken: %w", c.Name, info.By, err)
	}
	rc, err := r.Recipe(ctx, info.Tree)
	if err != nil {
		if isNotFound(err) {
			err = fmt.Errorf("its tree is missing there: %w", cas.ErrCorrupt)
		}
		return false, bad(err)
	}
	// Before anything large comes: what a key maps to is the word of whoever
	// wrote the bucket.
	n, err := rc.Lookup(ctx, rc.Root(), "record.json")
	if err == nil && (!n.IsRegular() || n.Size > maxRecord) {
		err = fmt.Errorf("record.json: %w", cas.ErrCorrupt)
	}
	if err != nil {
		return false, bad(err)
	}
	var record bytes.Buffer
	if err := rc.WriteFile(ctx, s, n, &record); err != nil {
		return false, bad(err)
	}
	if err := stages.CheckRecord(&record, k); err != nil {
		return false, bad(err)
	}
	progress, clear := a.progress("pulling the result of " + info.Run + " from " + c.Name)
	defer clear()
	added, err := r.Pull(ctx, s, info.Tree, remote.PullOptions{Progress: progress})
	if err != nil {
		return false, bad(err)
	}
	defer added.Release()
	clear()
	if err := stages.PutResult(ctx, s, k, stages.Result{Run: info.Run, Tree: info.Tree}); err != nil {
		return false, err
	}
	a.say("remote %s has the result: %s, published by %s", c.Name, info.Run, info.By)
	return true, nil
}

// When a result of a stage is published to remotes whose policy is to.
const (
	pushNow      = "now"      // before exec returns; one that fails is owed
	pushLater    = "later"    // it is owed, and the next command that publishes brings it
	pushRequired = "required" // as now; one that fails is a failure
)

// publishResult publishes the result of a run by policy.
func (a *app) publishResult(ctx context.Context, s *cas.Store, key, run, when string) error {
	k, err := stages.ParseKey(key)
	if err != nil {
		return err
	}
	all, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Policy != remote.Publish {
			continue
		}
		res, err := stages.FindResult(ctx, s, k)
		if err != nil || res.Run != run {
			return err // another has replaced it
		}
		// Written down first: whatever happens now, it is not forgotten.
		if err := (remote.Owed{Remote: c.Name, Key: key, Tree: res.Tree, Run: run}).Note(ctx, s); err != nil {
			return err
		}
		if when == pushLater {
			a.say("the result is not on remote %s yet; curi push --wait brings it there", c.Name)
			continue
		}
		_, err = a.payOwed(ctx, s, c)
		if err != nil && when == pushRequired {
			return fmt.Errorf("the result of %s is not on remote %s, which --push required wants: %w", run, c.Name, err)
		}
		if err != nil {
			a.warn("%s", oneLine(err.Error()))
			a.warn("the result of %s is not on remote %s yet; curi push --wait, or the next stage that is published, brings it there", run, c.Name)
		}
	}
	return nil
}

// payOwed publishes all that the store owes to a remote, and returns how many
// results that were.
func (a *app) payOwed(ctx context.Context, s *cas.Store, c remote.Config) (int, error) {
	owed, err := remote.AllOwed(ctx, s, c.Name)
	if err != nil || len(owed) == 0 {
		return 0, err
	}
	r, err := a.openRemote(ctx, c, true)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for i, o := range owed {
		if err := a.payOne(ctx, s, r, o); err != nil {
			return i, fmt.Errorf("publish the result of %s to remote %s: %w", o.Run, c.Name, err)
		}
	}
	return len(owed), nil
}

func (a *app) payOne(ctx context.Context, s *cas.Store, r *remote.Remote, o remote.Owed) error {
	if !s.HasTree(o.Tree) {
		a.warn("the result of %s, which was to go to remote %s, is not in the store any more", o.Run, o.Remote)
		return o.Done(ctx, s)
	}
	progress, clear := a.progress("publishing " + o.Run)
	defer clear()
	p, err := r.Push(ctx, s, o.Tree, remote.PushOptions{Progress: progress})
	if err != nil {
		return err
	}
	there, isNew, err := r.PublishResult(ctx, o.Key, remote.RefInfo{Tree: o.Tree, Bytes: p.Bytes, Files: p.Files, Run: o.Run, By: publisher()})
	if err != nil {
		return err
	}
	clear()
	if isNew {
		a.say("the result of %s is on remote %s", o.Run, o.Remote)
	} else if there.Tree != o.Tree {
		if err := a.compareResults(ctx, s, r, o, there); err != nil {
			return err
		}
	}
	return o.Done(ctx, s)
}

// compareResults says so where a stage came out differently elsewhere. The
// first published result stays the remote's, this one the store's.
func (a *app) compareResults(ctx context.Context, s *cas.Store, r *remote.Remote, o remote.Owed, there remote.RefInfo) error {
	mine, err := s.Tree(ctx, o.Tree)
	if err != nil {
		return err
	}
	out, _ := mine.Lookup("out")
	rc, err := r.Recipe(ctx, there.Tree)
	if err != nil {
		return err
	}
	n, err := rc.Lookup(ctx, rc.Root(), "out")
	if err != nil && !errors.Is(err, cas.ErrNotFound) {
		return err
	}
	if n.Digest != out.Digest {
		a.warn("remote %s has another result of the same key, of %s by %s, with other outputs: this stage does not always make the same; theirs stays there, that of %s stays here", o.Remote, there.Run, there.By, o.Run)
	}
	return nil
}

// pushWait publishes all that is owed, to one remote or to all.
func (a *app) pushWait(ctx context.Context, to string) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	list, err := remote.Configs(ctx, s)
	if to != "" {
		var c remote.Config
		c, err = a.remoteConfig(ctx, s, to)
		list = []remote.Config{c}
	}
	if err != nil {
		return err
	}
	n := 0
	for _, c := range list {
		k, err := a.payOwed(ctx, s, c)
		if err != nil {
			return err
		}
		n += k
	}
	if a.json {
		return a.printJSON(map[string]int{"published": n})
	}
	return a.printf("%s published\n", count(int64(n), "result"))
}
