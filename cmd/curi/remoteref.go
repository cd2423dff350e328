package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// splitRemote takes REMOTE/… apart; ok is false where the first part is no
// remote of the store.
func (a *app) splitRemote(ctx context.Context, s *cas.Store, ref string) (c remote.Config, rest string, ok bool, err error) {
	name, rest, slash := strings.Cut(ref, "/")
	if !slash {
		return c, "", false, nil
	}
	c, err = remote.FindConfig(ctx, s, name)
	if isNotFound(err) {
		return c, "", false, nil
	}
	return c, rest, err == nil, err
}

// remoteTarget is what REMOTE/NAME@N/PATH means, as of the last pull.
type remoteTarget struct {
	ref     string
	config  remote.Config
	version remote.Version
	tags    []string
	path    string
}

func (t *remoteTarget) name() string {
	return fmt.Sprintf("%s/%s@%d", t.config.Name, t.version.Name, t.version.N)
}

// findRemote finds what a REF means on a remote; nil if it means none.
func (a *app) findRemote(ctx context.Context, s *cas.Store, ref string) (*remoteTarget, error) {
	c, rest, ok, err := a.splitRemote(ctx, s, ref)
	if err != nil || !ok {
		return nil, err
	}
	w, err := parseRemoteName(rest)
	if err != nil {
		return nil, err
	}
	seen, err := remote.LoadSeen(ctx, s, c.Name)
	if err != nil {
		return nil, err
	}
	v, err := a.findSeen(c, seen, w)
	if err != nil {
		return nil, err
	}
	return &remoteTarget{ref, c, v, seen.TagsOf(v), w.path}, nil
}

// resolveLocal is resolve for commands that need all that a REF means in the
// store: a remote's artifact is brought here first, and is kept. One of which
// the REF means a part is taken over only, for the caller to bring that.
func (a *app) resolveLocal(ctx context.Context, ref string) (*cas.Store, stages.Target, error) {
	s, err := a.existingStore(ctx)
	if err != nil {
		return nil, stages.Target{}, err
	}
	t, err := a.findRemote(ctx, s, ref)
	if err != nil {
		return nil, stages.Target{}, err
	}
	if t == nil {
		return a.resolve(ctx, ref)
	}
	if t.path != "" && !s.HasTree(t.version.Tree) {
		target, release, err := a.adopt(ctx, s, ref, true)
		if err == nil {
			release() // it has a name now
		}
		return s, target, err
	}
	if !s.HasTree(t.version.Tree) {
		r, err := a.openRemote(ctx, t.config, false)
		if err != nil {
			return nil, stages.Target{}, err
		}
		defer r.Close()
		if err := a.pullBytes(ctx, s, r, t.config, t.version); err != nil {
			return nil, stages.Target{}, err
		}
	} else if err := s.TouchRef(ctx, pulledRef(t.config.Name, t.version)); err != nil && !isNotFound(err) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return nil, stages.Target{}, err
	}
	target, err := stages.Inside(ctx, s, t.ref, t.name(), t.version.Tree, t.path)
	return s, target, err
}

// adopt finds what a REF means on a remote as of the last pull, for a key that
// is made of it: nothing of it comes but what the remote says of it. release is
// nil where the REF names no remote's. With keep it stays known, as what was
// pulled.
func (a *app) adopt(ctx context.Context, s *cas.Store, ref string, keep bool) (t stages.Target, release func(), err error) {
	rt, err := a.findRemote(ctx, s, ref)
	if err != nil || rt == nil {
		return t, nil, err
	}
	added, err := s.Adopt(ctx, rt.config.Name, rt.version.Tree)
	if err != nil {
		return t, nil, err
	}
	if keep {
		err = s.SetRef(ctx, cas.Ref{Name: pulledRef(rt.config.Name, rt.version), Tree: rt.version.Tree})
	}
	if err == nil {
		t, err = stages.Inside(ctx, s, ref, rt.name(), rt.version.Tree, rt.path)
	}
	if err != nil {
		added.Release()
		return t, nil, err
	}
	return t, added.Release, nil
}

// resolveLazy is resolve for commands that read what they need, from where it
// is. remote is nil for what is not a remote's.
func (a *app) resolveLazy(ctx context.Context, ref string) (s *cas.Store, t stages.Target, remote *remoteTarget, err error) {
	if s, err = a.existingStore(ctx); err != nil {
		return nil, t, nil, err
	}
	if remote, err = a.findRemote(ctx, s, ref); err != nil {
		return nil, t, nil, err
	}
	if remote == nil {
		s, t, err = a.resolve(ctx, ref)
		return s, t, nil, err
	}
	if !s.HasTree(remote.version.Tree) {
		lazy, err := s.OpenTreeOf(ctx, remote.config.Name, remote.version.Tree)
		if err == nil {
			err = lazy.Reach(ctx)
		}
		if err != nil {
			return nil, t, nil, fmt.Errorf("%s: %w", ref, err)
		}
	}
	t, err = stages.Inside(ctx, s, remote.ref, remote.name(), remote.version.Tree, remote.path)
	return s, t, remote, err
}

// describeRemote is describe for what is on a remote.
func describeRemote(ctx context.Context, s *cas.Store, t stages.Target, r *remoteTarget) (thing, error) {
	d, err := describe(ctx, s, t)
	v := r.version
	d.Name, d.Version, d.Tags = r.config.Name+"/"+v.Name, v.N, r.tags
	d.MadeBy, d.Time, d.By, d.Remote = v.MadeBy, &v.Time, v.By, r.config.Name
	return d, err
}
