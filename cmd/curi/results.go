package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// When a result of a stage is published to remotes whose policy is to.
const (
	pushNow      = "now"      // before exec returns; one that fails is owed
	pushLater    = "later"    // it is owed, and the next command brings it
	pushRequired = "required" // as now; one that fails is a failure
)

// owe writes down that a result is to be published, before anybody is told of
// it: whatever happens then, it is not forgotten.
func owe(ctx context.Context, s *cas.Store, k stages.Key, res stages.Result) error {
	list, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.Policy != remote.Publish {
			continue
		}
		if err := (remote.Owed{Remote: c.Name, Key: k.String(), Tree: res.Tree, Run: res.Run}).Note(ctx, s); err != nil {
			return fmt.Errorf("note that the result of %s is to go to remote %s: %w", res.Run, c.Name, err)
		}
	}
	return nil
}

// publishResult publishes what is owed of a run, by policy.
func (a *app) publishResult(ctx context.Context, s *cas.Store, run, when string) error {
	all, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	of := func(o remote.Owed) bool { return o.Run == run }
	for _, c := range all {
		if c.Policy != remote.Publish {
			continue
		}
		owed, err := remote.AllOwed(ctx, s, c.Name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(owed, of) {
			continue
		}
		if when == pushLater {
			a.say("the result is not on remote %s yet; the next command, or curi push --wait, brings it there", c.Name)
			continue
		}
		if ago, away := remote.Away(s, c.Name); away && when != pushRequired {
			err = fmt.Errorf("remote %s did not answer %s ago: %w", c.Name, ago.Round(time.Second), remote.ErrAway)
		} else {
			_, err = a.payOwed(ctx, s, c, of, a.waitForUploader())
		}
		if err != nil && when == pushRequired {
			return fmt.Errorf("the result of %s is not on remote %s, which --push required wants: %w", run, c.Name, err)
		}
		if err != nil {
			a.warn("%s", oneLine(err.Error()))
			a.warn("the result of %s is not on remote %s yet; the next command, or curi push --wait, brings it there", run, c.Name)
			if errors.Is(err, fs.ErrPermission) {
				a.warn("where you may only read remote %s, curi remote add %s '%s' --policy read-only says so to this store", c.Name, c.Name, c.URL)
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// payOwed publishes what a store owes to a remote, of that what which says, and
// returns how many results that were. One process of a store does that at a
// time; wait is told who does, and nil waits for nobody.
func (a *app) payOwed(ctx context.Context, s *cas.Store, c remote.Config, which func(remote.Owed) bool, wait func(cas.Holder) error) (n int, err error) {
	lock, err := s.Lock(ctx, "upload", "upload to remotes", wait)
	if err != nil {
		return 0, err
	}
	defer lock.Release()
	defer beating(lock)()
	owed, err := remote.AllOwed(ctx, s, c.Name)
	owed = slices.DeleteFunc(owed, func(o remote.Owed) bool { return !which(o) })
	if err != nil || len(owed) == 0 {
		return 0, err // another process may have published it
	}
	var r *remote.Remote
	err = within(ctx, contactTime(), func(ctx context.Context) (func(), error) {
		got, err := a.openRemote(ctx, c, true)
		return func() { r = got }, err
	})
	if err == nil {
		defer r.Close()
		n, err = a.payAll(ctx, s, r, owed)
	}
	switch {
	case err == nil:
		remote.NotePaid(s, c.Name)
	case ctx.Err() == nil:
		_ = remote.NoteFailed(ctx, s, c.Name, err)
	}
	return n, err
}

// beating shows that a lock's holder lives, until the returned function is called.
func beating(l *cas.Lock) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(cas.BeatEvery / 2)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				_ = l.Beat() // one that is lost makes two uploads of the same
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// payAll publishes one result after the other. One that cannot be published
// holds up no other, unless the remote is away.
func (a *app) payAll(ctx context.Context, s *cas.Store, r *remote.Remote, owed []remote.Owed) (n int, first error) {
	for _, o := range owed {
		err := a.payOne(ctx, s, r, o)
		if err == nil {
			n++
			continue
		}
		if first == nil {
			first = fmt.Errorf("publish the result of %s to remote %s: %w", o.Run, o.Remote, err)
		}
		if ctx.Err() != nil || errors.Is(err, remote.ErrAway) {
			break
		}
	}
	return n, first
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
	fault.At(fault.ResultNamed)
	// Not before others can take the result instead.
	if err := r.DropWork(ctx, o.Key); err != nil {
		if ctx.Err() != nil || errors.Is(err, remote.ErrAway) {
			return err
		}
		a.warn("the snapshots of the work directories of %s stay on remote %s: %s", o.Run, o.Remote, oneLine(err.Error()))
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
	if err != nil && !isNotFound(err) {
		return err
	}
	if n.Digest == out.Digest {
		return nil
	}
	there.Run, there.By = visible(there.Run), visible(there.By)
	d := stages.Differing{Remote: o.Remote, Run: there.Run, By: there.By, Tree: there.Tree}
	if err := stages.NoteDiffering(ctx, s, o.Run, d); err != nil && !isNotFound(err) {
		return err
	}
	a.warn("remote %s has another result of the same key, of %s by %s, with other outputs: this stage does not always make the same; theirs stays there, that of %s stays here (curi log %s)", o.Remote, there.Run, there.By, o.Run, o.Run)
	return nil
}

// waitForUploader says once who uploads.
func (a *app) waitForUploader() func(cas.Holder) error {
	said := false
	return func(h cas.Holder) error {
		if !said {
			a.say("waiting for process %d on %s, which uploads what this store owes to remotes", h.PID, h.Host)
		}
		said = true
		return nil
	}
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
	var first error
	for _, c := range list {
		k, err := a.payOwed(ctx, s, c, all, a.waitForUploader())
		n += k
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first != nil {
		return first
	}
	if a.json {
		return a.printJSON(map[string]int{"published": n})
	}
	return a.printf("%s published\n", count(int64(n), "result"))
}

// all is for everything that is owed.
func all(remote.Owed) bool { return true }
