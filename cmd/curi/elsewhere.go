package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/internal/fault"
	"github.com/curi-store/curi/stages"
)

// maxRecord bounds a record that is fetched, in bytes.
const maxRecord = 64 << 20

// contactTime bounds the attempt to reach a remote.
func contactTime() time.Duration { return fault.Duration("contact", 10*time.Second) }

// elsewhere is what one call asks of the remotes of the store. Each is
// contacted at most once; one that does not answer is said, and no reason not
// to run.
type elsewhere struct {
	a        *app
	s        *cas.Store
	offline  bool // ask none
	contacts map[string]*contact
	lease    *remote.Lease
	leaseOn  string // the remote
}

// contact is a remote that was asked.
type contact struct {
	remote.Config
	r      *remote.Remote // nil if it cannot be asked
	bucket bool           // whoever has the bucket can make a remote of it
	first  func() (remote.RefInfo, error)
}

func (a *app) elsewhere(s *cas.Store) *elsewhere {
	return &elsewhere{a: a, s: s, contacts: map[string]*contact{}}
}

func (e *elsewhere) close() {
	for _, c := range e.contacts {
		if c.r != nil {
			c.r.Close()
		}
	}
}

// contact reaches a remote and looks a key up on it, the first time that it is
// asked for.
func (e *elsewhere) contact(ctx context.Context, cfg remote.Config, k stages.Key) *contact {
	if c := e.contacts[cfg.Name]; c != nil {
		return c
	}
	c := &contact{Config: cfg}
	e.contacts[cfg.Name] = c
	if ago, away := remote.Away(e.s, cfg.Name); away {
		e.a.say("remote %s did not answer %s ago; going on without it", cfg.Name, ago.Round(time.Second))
		return c
	}
	began := time.Now()
	err := within(ctx, contactTime(), func(ctx context.Context) (func(), error) {
		b, err := remote.OpenURL(ctx, cfg.URL, remote.BucketOptions{Helper: helperBeside(), Logger: e.a.logger()})
		if err != nil {
			return nil, err
		}
		r, first, err := remote.OpenResult(ctx, b, remote.Options{Logger: e.a.logger()}, k.String())
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			b.Close()
			return nil, err
		}
		return func() { c.r, c.first = r, first }, nil
	})
	switch {
	case err == nil:
		remote.NoteBack(e.s, cfg.Name)
		if err := c.r.Met(ctx, e.s, cfg.Name); err != nil {
			e.a.logger().Debug("note which remote it is", "remote", cfg.Name, "error", err)
		}
	case ctx.Err() != nil:
	case isNotFound(err):
		// One that is not mounted is said where it matters, in leaseRemote.
		c.bucket = true
	default:
		// The next calls are not to wait for it too.
		if errors.Is(err, remote.ErrAway) && time.Since(began) > contactTime()/10 {
			_ = remote.NoteAway(ctx, e.s, cfg.Name)
		}
		e.a.warn("remote %s: %s; going on without it", cfg.Name, oneLine(err.Error()))
	}
	return c
}

// within runs fn, and gives it up after a time: a directory on a file server
// that is gone answers nothing, not even that. What fn returns is called if it
// was in time.
func within(ctx context.Context, limit time.Duration, fn func(context.Context) (func(), error)) error {
	sub, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type end struct {
		keep func()
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		keep, err := fn(sub)
		ended <- end{keep, err}
	}()
	var err error
	select {
	case e := <-ended:
		if err = e.err; err == nil {
			e.keep()
		}
	case <-sub.Done():
		err = sub.Err()
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s: %w", limit, remote.ErrAway)
	}
	return err
}

// found is a result on a remote, whose record is of the key.
type found struct {
	on     *contact
	info   remote.RefInfo
	recipe *remote.Recipe
	record bytes.Buffer
}

// find looks a key up on the remotes, one after the other; nil if none has it.
func (e *elsewhere) find(ctx context.Context, k stages.Key) (*found, error) {
	if e.offline {
		return nil, nil
	}
	all, err := remote.Configs(ctx, e.s)
	if err != nil {
		return nil, err
	}
	for _, cfg := range all {
		f, err := e.findOn(ctx, e.contact(ctx, cfg, k), k)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if f != nil || err != nil {
			return f, err
		}
	}
	return nil, nil
}

// findOn looks a key up on one remote. What goes wrong there is said.
func (e *elsewhere) findOn(ctx context.Context, c *contact, k stages.Key) (*found, error) {
	if c.r == nil {
		return nil, nil
	}
	look := c.first
	if look == nil {
		look = func() (remote.RefInfo, error) { return c.r.Result(ctx, k.String()) }
	}
	c.first = nil
	info, err := look()
	info.By = visible(info.By)
	f := &found{on: c, info: info}
	if err == nil {
		err = f.check(ctx, e.s, k)
	}
	switch {
	case err == nil:
		return f, nil
	case ctx.Err() == nil && !isNotFound(err):
		e.a.warn("remote %s: %s; going on without it", c.Name, oneLine(err.Error()))
	}
	return nil, ctx.Err()
}

// check fetches the record before anything large comes: what a key maps to is
// the word of whoever wrote the bucket.
func (f *found) check(ctx context.Context, s *cas.Store, k stages.Key) error {
	bad := func(err error) error {
		return fmt.Errorf("the result of this key there, published by %s, cannot be taken: %w", f.info.By, err)
	}
	if err := cas.CheckName(f.info.Run); err != nil {
		return bad(fmt.Errorf("its run: %w", err))
	}
	var err error
	f.recipe, err = f.on.r.ResultRecipe(ctx, f.info.Tree)
	if isNotFound(err) {
		return bad(fmt.Errorf("its tree is missing: %w", cas.ErrCorrupt))
	}
	if err != nil {
		return bad(err)
	}
	n, err := f.recipe.Lookup(ctx, f.recipe.Root(), "record.json")
	if isNotFound(err) || err == nil && (!n.IsRegular() || n.Size > maxRecord) {
		err = fmt.Errorf("record.json: %w", cas.ErrCorrupt)
	}
	if err != nil {
		return bad(err)
	}
	if err := f.recipe.WriteFile(ctx, s, n, &f.record); err != nil {
		return bad(err)
	}
	if err := stages.CheckRecord(bytes.NewReader(f.record.Bytes()), k); err != nil {
		return bad(err)
	}
	return nil
}

// take makes a result that was found that of the key. Its outputs are brought
// when they are needed.
func (e *elsewhere) take(ctx context.Context, k stages.Key, f *found) error {
	// What was read of it need not be asked for again.
	if err := f.recipe.Keep(ctx, e.s, f.on.Name); err != nil {
		return err
	}
	// Its record stays, so that a hit needs no remote.
	pages, err := e.s.KeepPages(ctx, f.on.Name, f.info.Tree)
	if err == nil {
		err = pages.NoteCame(cas.Sum(f.record.Bytes()))
	}
	if err != nil {
		return err
	}
	record, err := e.s.AddReader(ctx, &f.record, "record.json", cas.AddOptions{})
	if err != nil {
		return err
	}
	defer record.Release()
	added, err := e.s.Adopt(ctx, f.on.Name, f.info.Tree)
	if err != nil {
		return err
	}
	defer added.Release()
	if err := stages.PutResult(ctx, e.s, k, stages.Result{Run: f.info.Run, Tree: f.info.Tree}); err != nil {
		return err
	}
	e.a.say("remote %s has the result: %s, published by %s", f.on.Name, f.info.Run, f.info.By)
	return nil
}

// result brings the result of a key, from where it is or from a machine that
// makes it now. Else this machine is to make it, as the run of that id, and
// others are told so.
func (e *elsewhere) result(ctx context.Context, k stages.Key, run string) (bool, error) {
	f, err := e.find(ctx, k)
	if err != nil {
		return false, err
	}
	if f == nil {
		if f, err = e.await(ctx, k, run); f == nil {
			return false, err
		}
	}
	return e.taken(ctx, k, f)
}

// there brings the result of a key if there is one, and waits for nobody.
func (e *elsewhere) there(ctx context.Context, k stages.Key) (bool, error) {
	f, err := e.find(ctx, k)
	if f == nil {
		return false, err
	}
	return e.taken(ctx, k, f)
}

// taken takes what was found; false says that it could not.
func (e *elsewhere) taken(ctx context.Context, k stages.Key, f *found) (bool, error) {
	if err := e.take(ctx, k, f); err != nil {
		if ctx.Err() != nil || errors.Is(err, cas.ErrNoSpace) {
			return false, err
		}
		e.a.warn("remote %s: %s; going on without it", f.on.Name, oneLine(err.Error()))
		return false, nil
	}
	return true, nil
}
