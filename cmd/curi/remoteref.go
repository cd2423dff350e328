package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
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
// store: what is on a remote is brought here first.
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

// openTarget opens the recipe of a target, and finds the node it means.
func (a *app) openTarget(ctx context.Context, t *remoteTarget) (*remote.Remote, *remote.Recipe, remote.Node, error) {
	r, err := a.openRemote(ctx, t.config, false)
	if err != nil {
		return nil, nil, remote.Node{}, err
	}
	rc, err := r.Recipe(ctx, t.version.Tree)
	var n remote.Node
	if err == nil {
		n, err = findNode(ctx, rc, t)
	}
	if err != nil {
		r.Close()
		return nil, nil, n, fmt.Errorf("%s: %w", t.ref, err)
	}
	return r, rc, n, nil
}

func findNode(ctx context.Context, rc *remote.Recipe, t *remoteTarget) (remote.Node, error) {
	n := rc.Root()
	if t.path == "" && t.version.Single {
		// The name means the file.
		for n.Kind == cas.KindDir {
			_, below, err := rc.Tree(ctx, n)
			if err != nil {
				return n, err
			}
			if len(below) != 1 {
				return n, fmt.Errorf("said to be a single file, and is not one: %w", cas.ErrCorrupt)
			}
			n = below[0]
		}
		return n, nil
	}
	for part := range strings.SplitSeq(t.path, "/") {
		if part == "" || part == "." {
			continue
		}
		if n.Kind != cas.KindDir {
			return n, fmt.Errorf("nothing lies below a %s: %w", n.Kind, cas.ErrNotFound)
		}
		var err error
		if n, err = rc.Lookup(ctx, n, part); err != nil {
			return n, err
		}
	}
	return n, nil
}

// catRemote writes a file of a remote to stdout: from the store what is here,
// else from the remote, verified before it is written.
func (a *app) catRemote(ctx context.Context, s *cas.Store, t *remoteTarget) error {
	r, rc, n, err := a.openTarget(ctx, t)
	if err != nil {
		return err
	}
	defer r.Close()
	if !n.IsRegular() {
		return usagef("%s is a %s; name a file in it (curi show %s lists them)", t.ref, n.Kind, t.ref)
	}
	if b, err := s.OpenBlob(ctx, n.Digest); err == nil {
		defer b.Close()
		_, err = io.Copy(a.out, b)
		return err
	}
	return rc.WriteFile(ctx, s, n, a.out)
}

// describeRemote is describe for what is on a remote.
func (a *app) describeRemote(ctx context.Context, s *cas.Store, t *remoteTarget) (thing, []cas.Entry, error) {
	v := t.version
	d := thing{Name: t.config.Name + "/" + v.Name, Version: v.N, Tags: t.tags, Ref: path.Join(t.name(), t.path),
		Tree: v.Tree, Digest: v.Tree, Kind: "directory", Meta: map[string]string{}, MadeBy: v.MadeBy, Time: &v.Time, By: v.By, Remote: t.config.Name}
	r, rc, n, err := a.openTarget(ctx, t)
	if err != nil {
		return d, nil, err
	}
	defer r.Close()
	root, _, err := rc.Tree(ctx, rc.Root())
	if err != nil {
		return d, nil, err
	}
	d.Meta = root.Attrs.Meta()
	d.Digest = n.Digest
	switch {
	case n.Kind == cas.KindSymlink:
		d.Kind, d.Target = "symlink", n.Target
		return d, nil, nil
	case n.Kind == cas.KindDir:
		err := rc.Walk(ctx, n, func(n remote.Node) error {
			d.Files++
			d.Bytes += n.Size
			if s.HasBlob(n.Digest) {
				d.LocalBytes += n.Size
			}
			return nil
		})
		if err != nil {
			return d, nil, err
		}
		dir, _, err := rc.Tree(ctx, n)
		if err != nil {
			return d, nil, err
		}
		return d, dir.Entries, nil
	}
	d.Kind, d.Files, d.Bytes, d.File = "file", 1, n.Size, t.path
	if d.File == "" {
		d.File = n.Name
	}
	if s.HasBlob(n.Digest) {
		d.LocalBytes = n.Size
	}
	return d, nil, nil
}
