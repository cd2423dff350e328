package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
	"github.com/curi-store/curi/stages"
)

// pushedJSON is an element of what `curi push --json` prints.
type pushedJSON struct {
	Name    string     `json:"name"` // REMOTE/NAME
	Version int        `json:"version"`
	Tree    cas.Digest `json:"tree"`
	Bytes   int64      `json:"bytes"`
	Files   int64      `json:"files"`
	Sent    int64      `json:"sent"` // bytes that were uploaded
	New     bool       `json:"new"`  // false: the remote had it as its newest version
}

func newPush(a *app) *cobra.Command {
	var to, name string
	var wait, owed bool
	c := &cobra.Command{
		Use:   "push [REF…]",
		Short: "Bring artifacts to a remote",
		Long: `Bring artifacts to a remote, where they become the next version of their name:
numbers belong to the store that gave them. What the remote has already is not
sent again, not even parts of files. A push that was cut off goes on where it
was.

Results of stages go by themselves to remotes whose policy is publish. What could
not be brought there, or was not to be yet, is owed: the next command of the store
starts to bring it, in the background, and --wait brings it and returns then.`,
		Example: `  curi push model@3
  curi push digits model --remote team
  curi push train.model --name model
  curi push --wait`,
		Args:              nargs(0, -1, "REFs"),
		ValidArgsFunction: a.completeRefs(-1),
		RunE: func(c *cobra.Command, args []string) error {
			a.leaveOwed = true
			switch {
			case owed:
				return a.upload(c.Context())
			case wait && (len(args) > 0 || name != ""):
				return usagef("curi push --wait publishes what is owed: give no REF and no --name")
			case wait:
				return a.pushWait(c.Context(), to)
			case len(args) == 0:
				return usagef("curi push: name one REF or more, or say --wait")
			}
			if name != "" && len(args) > 1 {
				return usagef("curi push: --name is for one REF")
			}
			return a.push(c.Context(), args, to, name)
		},
	}
	c.Flags().StringVar(&to, "remote", "", "the `REMOTE`, if the store knows several")
	c.Flags().BoolVar(&wait, "wait", false, "publish the results of stages that are owed, and nothing else")
	c.Flags().BoolVar(&owed, "owed", false, "what a command starts for what is owed")
	_ = c.Flags().MarkHidden("owed")
	c.Flags().StringVar(&name, "name", "", "the `NAME` on the remote, if not the artifact's own")
	return c
}

func (a *app) push(ctx context.Context, refs []string, to, name string) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	c, err := a.pickRemote(ctx, s, to)
	if err != nil {
		return err
	}
	if err := mayWrite(c); err != nil {
		return err
	}
	type job struct {
		target stages.Target
		tree   cas.Digest
		name   string
	}
	var jobs []job
	for _, ref := range refs {
		_, t, err := a.resolve(ctx, ref)
		if err != nil {
			return err
		}
		j := job{t, cas.Digest{}, name}
		var release func()
		if j.tree, release, err = treeOf(ctx, s, t, nil); err != nil {
			return err
		}
		defer release()
		if j.name == "" && t.Version != nil {
			j.name = t.Version.Name
		}
		if j.name == "" {
			return usagef("%s has no name that it could have on a remote; give it one with --name NAME", ref)
		}
		if err := cas.CheckName(j.name); err != nil {
			return err
		}
		jobs = append(jobs, j)
	}
	r, err := a.openRemote(ctx, c, true)
	if err != nil {
		return err
	}
	defer r.Close()
	out := []pushedJSON{}
	for _, j := range jobs {
		p, err := a.pushOne(ctx, s, r, c, j.target, j.tree, j.name)
		if err != nil {
			return err
		}
		out = append(out, p)
		if !a.json {
			if err := a.sayPushed(p); err != nil {
				return err
			}
		}
	}
	if _, err := r.See(ctx, s, c.Name); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(out)
	}
	return nil
}

func (a *app) pushOne(ctx context.Context, s *cas.Store, r *remote.Remote, c remote.Config, t stages.Target, tree cas.Digest, name string) (pushedJSON, error) {
	progress, clear := a.progress("pushing " + t.Name)
	defer clear()
	o := remote.PushOptions{Progress: progress}
	if v, err := r.Version(ctx, name, 0); err == nil {
		o.Bases = append(o.Bases, v.Tree)
	} else if !isNotFound(err) {
		return pushedJSON{}, err
	}
	p, err := r.Push(ctx, s, tree, o)
	if err != nil {
		return pushedJSON{}, err
	}
	root, err := s.Tree(ctx, tree)
	if err != nil {
		return pushedJSON{}, err
	}
	info := remote.RefInfo{Tree: tree, Bytes: p.Bytes, Files: p.Files, Single: root.Single, By: publisher()}
	if t.Version != nil {
		info.MadeBy = t.Version.MadeBy
	}
	v, isNew, err := r.Publish(ctx, name, info)
	if err != nil {
		return pushedJSON{}, fmt.Errorf("publish %s/%s: %w", c.Name, name, err)
	}
	return pushedJSON{c.Name + "/" + name, v.N, tree, p.Bytes, p.Files, p.Sent, isNew}, nil
}

func (a *app) sayPushed(p pushedJSON) error {
	name := fmt.Sprintf("%s@%d", p.Name, p.Version)
	if !p.New {
		a.say("%s is this already: no new version", name)
	}
	if a.quiet {
		return a.printf("%s\n", name)
	}
	return a.printf("%s  %s  %s, %s sent\n", name, p.Tree, contents(p.Bytes, p.Files), size(p.Sent))
}

// pickRemote finds the remote called name, or the only one.
func (a *app) pickRemote(ctx context.Context, s *cas.Store, name string) (remote.Config, error) {
	if name == "" {
		return a.onlyRemote(ctx, s)
	}
	return a.remoteConfig(ctx, s, name)
}
