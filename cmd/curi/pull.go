package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// pulledJSON is an element of what `curi pull --json` prints.
type pulledJSON struct {
	Name    string     `json:"name"` // REMOTE/NAME
	Version int        `json:"version"`
	Tree    cas.Digest `json:"tree"`
	Bytes   int64      `json:"bytes"`
	Files   int64      `json:"files"`
	Local   bool       `json:"local"` // all bytes are here
}

func newPull(a *app) *cobra.Command {
	var from string
	var now bool
	c := &cobra.Command{
		Use:   "pull [REF…]",
		Short: "Take names, and with --now the bytes, from remotes",
		Long: `Take the names of artifacts from a remote, or from all remotes if none is named.
REMOTE/NAME then means what the remote had at this moment. Bytes come when they
are read; with --now they come at once. A pull that was cut off goes on where
it was.`,
		Example: `  curi pull
  curi pull digits
  curi pull --now team/model@3`,
		Args:              nargs(0, -1, "REFs such as team/model"),
		ValidArgsFunction: a.completeRefs(-1),
		RunE: func(c *cobra.Command, args []string) error {
			if now && len(args) == 0 {
				return usagef("curi pull --now: name what is to come; everything of a remote may be much")
			}
			return a.pull(c.Context(), args, from, now)
		},
	}
	c.Flags().StringVar(&from, "remote", "", "the `REMOTE`, if the store knows several")
	c.Flags().BoolVar(&now, "now", false, "the bytes, too")
	return c
}

func (a *app) pull(ctx context.Context, refs []string, from string, now bool) error {
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return a.pullNames(ctx, s, from)
	}
	out := []pulledJSON{}
	for _, ref := range refs {
		p, err := a.pullOne(ctx, s, ref, from, now)
		if err != nil {
			return err
		}
		out = append(out, p)
		if a.json {
			continue
		}
		where := "its bytes come when they are read"
		if p.Local {
			where = "all here"
		}
		name := fmt.Sprintf("%s@%d", p.Name, p.Version)
		if a.quiet {
			err = a.printf("%s\n", name)
		} else {
			err = a.printf("%s  %s  %s, %s\n", name, p.Tree, contents(p.Bytes, p.Files), where)
		}
		if err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(out)
	}
	return nil
}

// pullNames takes the names of one remote, or of all.
func (a *app) pullNames(ctx context.Context, s *cas.Store, from string) error {
	var list []remote.Config
	if from != "" {
		c, err := a.remoteConfig(ctx, s, from)
		if err != nil {
			return err
		}
		list = append(list, c)
	} else {
		var err error
		if list, err = remote.Configs(ctx, s); err != nil {
			return err
		}
		if len(list) == 0 {
			return notFoundf("the store knows no remote; curi remote add NAME URL makes one known")
		}
	}
	out := []pulledJSON{}
	var failed error // of several remotes one may be away
	for _, c := range list {
		seen, err := a.see(ctx, s, c)
		if err != nil && ctx.Err() == nil && len(list) > 1 {
			a.warn("%s", oneLine(err.Error()))
			if failed == nil {
				failed = &statusError{status: exitStatus(ctx, err)}
			}
			continue
		}
		if err != nil {
			return err
		}
		newest := seen.Newest("")
		for _, v := range newest {
			out = append(out, pulledJSON{c.Name + "/" + v.Name, v.N, v.Tree, v.Bytes, v.Files, s.HasTree(v.Tree)})
		}
		if !a.json {
			a.say("%s: %s", c.Name, count(int64(len(newest)), "artifact"))
		}
	}
	if a.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	}
	return failed
}

// see takes the names of a remote.
func (a *app) see(ctx context.Context, s *cas.Store, c remote.Config) (remote.Seen, error) {
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return remote.Seen{}, err
	}
	defer r.Close()
	return r.See(ctx, s, c.Name)
}

// pullOne takes one name, and perhaps the bytes.
func (a *app) pullOne(ctx context.Context, s *cas.Store, ref, from string, now bool) (pulledJSON, error) {
	c, rest, ok, err := a.splitRemote(ctx, s, ref)
	if err != nil {
		return pulledJSON{}, err
	}
	if err := a.checkPull(ctx, s, ref, rest, ok); err != nil {
		return pulledJSON{}, err
	}
	if !ok {
		rest = ref
		if c, err = a.pickRemote(ctx, s, from); err != nil {
			return pulledJSON{}, err
		}
	}
	w, err := parseRemoteName(rest)
	if err != nil {
		return pulledJSON{}, err
	}
	if w.path != "" {
		return pulledJSON{}, usagef("%s: artifacts are pulled whole, or read when they are needed; leave the path out", ref)
	}
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return pulledJSON{}, err
	}
	defer r.Close()
	seen, err := r.See(ctx, s, c.Name)
	if err != nil {
		return pulledJSON{}, err
	}
	v, err := a.findSeen(c, seen, w)
	if err != nil {
		return pulledJSON{}, err
	}
	p := pulledJSON{c.Name + "/" + v.Name, v.N, v.Tree, v.Bytes, v.Files, s.HasTree(v.Tree)}
	if !now {
		return p, nil
	}
	if p.Local {
		// Whole is not enough to stay: a pull may have been cut off before it
		// named the tree, or the tree came by another way.
		if _, err := s.Ref(ctx, pulledRef(c.Name, v)); !isNotFound(err) {
			return p, err
		}
	}
	p.Local = true
	return p, a.pullBytes(ctx, s, r, c, v)
}

// checkPull refuses what looks like REMOTE/NAME and is none, in words that help.
func (a *app) checkPull(ctx context.Context, s *cas.Store, ref, rest string, ok bool) error {
	first, _, slash := strings.Cut(ref, "/")
	if _, err := remote.FindConfig(ctx, s, first); err == nil && strings.Trim(rest, "/") == "" {
		return usagef("%s is a remote: curi pull --remote %s takes its names, curi pull --now %s/NAME the bytes of one", first, first, first)
	}
	if slash && !ok {
		_, err := a.remoteConfig(ctx, s, first)
		return err
	}
	return nil
}

// pullBytes brings a version here, and names it so that it stays.
func (a *app) pullBytes(ctx context.Context, s *cas.Store, r *remote.Remote, c remote.Config, v remote.Version) error {
	progress, clear := a.progress(fmt.Sprintf("pulling %s/%s@%d", c.Name, v.Name, v.N))
	defer clear()
	added, err := r.Pull(ctx, s, v.Tree, remote.PullOptions{Progress: progress})
	if err != nil {
		return err
	}
	defer added.Release()
	return s.SetRef(ctx, cas.Ref{Name: pulledRef(c.Name, v), Tree: v.Tree})
}

// pulledRefs is where those refs are.
const pulledRefs = "remote/"

// pulledRef is the ref that keeps a version of a remote whose bytes are here.
func pulledRef(remoteName string, v remote.Version) string {
	return fmt.Sprintf(pulledRefs+"%s/%s@%d", remoteName, v.Name, v.N)
}

// remoteName is NAME@N/PATH behind REMOTE/.
type remoteName struct {
	name string
	n    int // 0: the newest
	tag  string
	path string
}

func parseRemoteName(text string) (remoteName, error) {
	var w remoteName
	first, path, _ := strings.Cut(text, "/")
	w.path = strings.Trim(path, "/")
	var selector string
	var has bool
	if w.name, selector, has = strings.Cut(first, "@"); has && selector == "" {
		return w, usagef("%q: a version or tag follows '@'", text)
	}
	if err := cas.CheckName(w.name); err != nil {
		return w, err
	}
	if selector == "" {
		return w, nil
	}
	if _, err := fmt.Sscanf(selector, "%d", &w.n); err == nil && fmt.Sprint(w.n) == selector && w.n > 0 {
		return w, nil
	}
	w.n, w.tag = 0, selector
	return w, cas.CheckName(selector)
}

// findSeen finds a version among the names of a remote.
func (a *app) findSeen(c remote.Config, seen remote.Seen, w remoteName) (remote.Version, error) {
	v, err := seen.Find(w.name, w.n)
	if w.tag != "" {
		v, err = seen.FindTag(w.name, w.tag)
	}
	if err == nil {
		return v, nil
	}
	if seen.Remote == "" {
		return v, notFoundf("%s/%s: nothing is known of remote %s yet; curi pull takes its names", c.Name, w.name, c.Name)
	}
	var names []string
	for _, v := range seen.Newest("") {
		names = append(names, v.Name)
	}
	hint := didYouMean(w.name, names)
	if hint == "" {
		hint = "; curi ls " + c.Name + "/ lists what it had at the last pull, curi pull looks again"
	}
	if (w.n != 0 || w.tag != "") && strings.Contains(hint, " mean "+w.name+"?") {
		var have []string
		for _, v := range seen.Versions {
			if v.Name == w.name {
				have = append(have, fmt.Sprint(v.N))
				have = append(have, seen.TagsOf(v)...)
			}
		}
		hint = fmt.Sprintf("; %s/%s has %s, as of the last pull", c.Name, w.name, strings.Join(have, ", "))
	}
	return v, notFoundf("%s: not on remote %s%s", strings.TrimPrefix(err.Error(), "artifact "), c.Name, hint)
}
