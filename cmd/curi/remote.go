package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// remoteJSON is an element of what `curi remote ls --json` prints.
type remoteJSON struct {
	Name      string    `json:"name"`
	URL       string    `json:"url"`
	Policy    string    `json:"policy"`
	Artifacts int       `json:"artifacts"` // as of the last pull
	Added     time.Time `json:"added"`
}

func newRemote(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "remote",
		Short: "Stores that are shared with other machines",
		Long: `A remote is a bucket of an object store, or a directory that machines share, to
which artifacts and results are pushed and from which they are pulled. What a
remote holds is verified whenever it is read.

  s3://BUCKET/PREFIX       S3 and what speaks its language
                           (?endpoint=https://HOST:PORT&region=REGION&profile=NAME)
  gs://BUCKET/PREFIX       Google Cloud Storage
  azblob://CONTAINER/PREFIX (?storage_account=NAME)
  file:///DIR              a directory on NFS, Lustre, …

Credentials come from where the provider's own tools take them: environment,
profile, the machine's role. They are never stored. An endpoint that is not
encrypted (http://) is refused but on loopback, unless the URL says insecure=true.
The program curi-bucket, beside curi or in PATH, speaks to object stores.`,
		Example: `  curi remote add team s3://ml-cache/curi
  curi push model@3
  curi pull --now team/model`,
		Args: subcommand,
		RunE: group,
	}
	c.AddCommand(newRemoteAdd(a), newRemoteLs(a), newRemoteRm(a), newRemoteGc(a), newRemoteFsck(a))
	return c
}

func newRemoteAdd(a *app) *cobra.Command {
	var policy string
	c := &cobra.Command{
		Use:   "add NAME URL",
		Short: "Tell the store of a remote",
		Long: `Tell the store of a remote. Nothing is contacted: the first push makes the remote
where there is none. Of an existing one the policy is changed.`,
		Example: `  curi remote add team s3://ml-cache/curi
  curi remote add lab file:///shared/lustre/curi --policy read-only`,
		Args:              nargs(2, 2, "a NAME and a URL"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			return a.remoteAdd(c.Context(), args[0], args[1], policy)
		},
	}
	c.Flags().StringVar(&policy, "policy", "publish", "what is published: `publish` (results of stages by themselves), by-hand or read-only")
	_ = c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"publish", "by-hand", "read-only"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) remoteAdd(ctx context.Context, name, url, policy string) error {
	if err := cas.CheckName(name); err != nil {
		return err
	}
	p, err := remote.ParsePolicy(policy)
	if err != nil {
		return err
	}
	if err := remote.CheckURL(url); err != nil {
		return err
	}
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Versions(ctx, name); err == nil {
		return usagef("%s is an artifact of this store: %s/PATH already means a file in it; choose another name for the remote", name, name)
	}
	c := remote.Config{Name: name, URL: url, Policy: p, Added: time.Now().UTC().Truncate(time.Second)}
	old, err := remote.FindConfig(ctx, s, name)
	switch {
	case err == nil && old.URL != url:
		return usagef("there is a remote %s already, at %s; remove it first (curi remote rm %s) or choose another name", name, old.URL, name)
	case err == nil:
		c.Added = old.Added
	case !isNotFound(err):
		return err
	}
	if err := c.Save(ctx, s); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(remoteJSON{Name: name, URL: url, Policy: string(p), Added: c.Added})
	}
	a.say("remote %s is %s; curi pull takes its names, curi push REF brings something there", name, url)
	all, err := remote.Configs(ctx, s)
	for _, o := range all {
		if o.Name != name && strings.TrimRight(o.URL, "/") == strings.TrimRight(url, "/") {
			a.warn("remote %s is at the same place; of two names for one remote, curi remote rm forgets one", o.Name)
		}
	}
	return err
}

func newRemoteLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "ls",
		Short:             "List the remotes",
		Long:              `List the remotes of the store. What is on them, curi ls shows.`,
		Example:           `  curi remote ls --json`,
		Args:              nargs(0, 0, "no argument"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return a.remoteLs(c.Context()) },
	}
}

func (a *app) remoteLs(ctx context.Context) error {
	s, err := a.store(ctx)
	if err != nil {
		return err
	}
	all, err := remote.Configs(ctx, s)
	if err != nil {
		return err
	}
	list := []remoteJSON{}
	var rows [][]string
	for _, c := range all {
		seen, err := remote.LoadSeen(ctx, s, c.Name)
		if err != nil {
			return err
		}
		n := len(seen.Newest(""))
		list = append(list, remoteJSON{c.Name, c.URL, string(c.Policy), n, c.Added})
		rows = append(rows, []string{c.Name, fmt.Sprint(n), string(c.Policy), c.URL})
	}
	if a.json {
		return a.printJSON(list)
	}
	if len(list) == 0 {
		a.say("no remotes; curi remote add NAME URL tells the store of one")
		return nil
	}
	return a.table([]string{"REMOTE", ">ARTIFACTS", "POLICY", "URL"}, rows)
}

func newRemoteRm(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME [REF…]",
		Short: "Forget a remote, or remove something from it",
		Long: `Without a REF, make the store forget a remote and give up what was pulled from
it; what is on the remote stays there. With REFs such as model@3, remove those
versions from the remote, for everybody; model alone means all its versions. What
only they held is freed by curi remote gc.`,
		Example: `  curi remote rm team
  curi remote rm team model@3`,
		Args: nargs(1, -1, "a NAME, and perhaps REFs of what is to go from it"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return a.remoteRemove(c.Context(), args[0], args[1:])
			}
			s, err := a.existingStore(c.Context())
			if err != nil {
				return err
			}
			if _, err := a.remoteConfig(c.Context(), s, args[0]); err != nil {
				return err
			}
			return a.forgetRemote(c.Context(), s, args[0])
		},
	}
}

// forgetRemote makes the store forget a remote, and gives up what was pulled
// from it.
func (a *app) forgetRemote(ctx context.Context, s *cas.Store, name string) error {
	owed, err := remote.AllOwed(ctx, s, name)
	if err != nil {
		a.logger().Debug("look what is owed to a remote", "remote", name, "error", err)
	}
	for r, err := range s.Refs(ctx, pulledRefs+name+"/") {
		if err == nil {
			err = s.DeleteRef(ctx, r.Name)
		}
		if err != nil && !isNotFound(err) {
			return err
		}
	}
	if err := s.RemoveRemoteFiles(ctx, name); err != nil {
		return err
	}
	a.say("remote %s is forgotten; what is on it stays there", name)
	if len(owed) > 0 {
		a.warn("%s that was to go there is not on it, and is not owed any more", count(int64(len(owed)), "result"))
	}
	return nil
}

// remoteRemove removes versions from a remote.
func (a *app) remoteRemove(ctx context.Context, name string, refs []string) error {
	s, err := a.existingStore(ctx)
	if err != nil {
		return err
	}
	c, err := a.remoteConfig(ctx, s, name)
	if err != nil {
		return err
	}
	if err := mayWrite(c); err != nil {
		return err
	}
	r, err := a.openRemote(ctx, c, false)
	if err != nil {
		return err
	}
	defer r.Close()
	seen, err := r.See(ctx, s, name)
	if err != nil {
		return err
	}
	type victim struct {
		name string
		ns   []int
	}
	var victims []victim
	for _, ref := range refs {
		w, err := parseRemoteName(ref)
		if err != nil {
			return err
		}
		if w.path != "" {
			return usagef("%s: versions are removed, not what lies in them; leave the path out", ref)
		}
		v := victim{name: w.name}
		for _, x := range seen.Versions {
			if x.Name == w.name && (w.n == 0 || x.N == w.n) {
				v.ns = append(v.ns, x.N)
			}
		}
		if len(v.ns) == 0 {
			return notFoundf("%s/%s: not on the remote; curi ls %s/ lists what is", name, ref, name)
		}
		victims = append(victims, v)
	}
	for _, v := range victims {
		if err := r.Remove(ctx, v.name, v.ns...); err != nil {
			return err
		}
		a.say("%s: %s removed", name+"/"+v.name, count(int64(len(v.ns)), "version"))
	}
	_, err = r.See(ctx, s, name)
	return err
}

// mayWrite refuses to change a remote that is only to be read.
func mayWrite(c remote.Config) error {
	if c.Policy == remote.ReadOnly {
		return usagef("remote %s is read-only here; curi remote add %s %s --policy by-hand changes that", c.Name, c.Name, c.URL)
	}
	return nil
}

// remoteConfig finds a remote of the store by its name.
func (a *app) remoteConfig(ctx context.Context, s *cas.Store, name string) (remote.Config, error) {
	c, err := remote.FindConfig(ctx, s, name)
	if !isNotFound(err) {
		return c, err
	}
	all, err := remote.Configs(ctx, s)
	if err != nil {
		return c, err
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	hint := didYouMean(name, names)
	if hint == "" {
		hint = "; curi remote ls lists them, curi remote add NAME URL makes one known"
	}
	return c, notFoundf("there is no remote %q%s", name, hint)
}

// onlyRemote is the remote that is meant where none is named.
func (a *app) onlyRemote(ctx context.Context, s *cas.Store) (remote.Config, error) {
	all, err := remote.Configs(ctx, s)
	switch {
	case err != nil:
		return remote.Config{}, err
	case len(all) == 0:
		return remote.Config{}, notFoundf("the store knows no remote; curi remote add NAME URL makes one known")
	case len(all) > 1:
		return remote.Config{}, usagef("the store knows %d remotes; name one with --remote", len(all))
	}
	return all[0], nil
}

// openRemote contacts a remote; create makes it where there never was one.
func (a *app) openRemote(ctx context.Context, c remote.Config, create bool) (*remote.Remote, error) {
	b, err := remote.OpenURL(ctx, c.URL, remote.BucketOptions{Helper: helperBeside(), Logger: a.logger()})
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", c.Name, err)
	}
	met := remote.Identity(a.opened, c.Name)
	r, err := remote.Open(ctx, b, remote.Options{Create: create && met == "", Logger: a.logger()})
	if isNotFound(err) && met != "" {
		err = fmt.Errorf("the remote that was there is not (is its directory mounted?); curi remote rm %s and curi remote add begin a new one: %w", c.Name, remote.ErrAway)
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("remote %s at %s: %w", c.Name, c.URL, err)
	}
	if err := r.Met(ctx, a.opened, c.Name); err != nil {
		a.logger().Debug("note which remote it is", "remote", c.Name, "error", err)
	}
	return r, nil
}

func helperBeside() string { return remote.FindHelper() }

// publisher is who publishes, for those who see it on the remote.
func publisher() string {
	name := fmt.Sprintf("uid %d", os.Geteuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
