package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/curi-store/curi/cas"
)

func newStore(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "store",
		Short:   "Make a store",
		Long:    `Make a store. One is made at first use anyway; "curi store init" chooses where and for whom.`,
		Example: `  curi store init /data/curi --group research`,
		RunE:    group,
		Args:    subcommand,
	}
	var owners string
	init := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a store at DIR",
		Long: `Make a store at DIR. --group shares it with a group: everything in it can be read and
written by the group's members, whatever their umask.`,
		Example: `  curi store init /data/curi
  curi store init /data/curi --group research
  export CURI_STORE=/data/curi`,
		Args:              nargs(1, 1, "one directory"),
		ValidArgsFunction: completeDirs,
		RunE: func(c *cobra.Command, args []string) error {
			return a.storeInit(c.Context(), args[0], owners)
		},
	}
	init.Flags().StringVar(&owners, "group", "", "share the store with this `group`")
	c.AddCommand(init)
	return c
}

func (a *app) storeInit(ctx context.Context, dir, owners string) error {
	dir, err := normDir(dir, ".")
	if err != nil {
		return usagef("curi store init: %v", err)
	}
	if s, err := cas.Open(ctx, dir, cas.Options{}); err == nil {
		defer s.Close()
		return usagef("%s is a store already (%s)", s.Dir(), s.ID())
	}
	if outer := storeAround(dir); outer != "" {
		return usagef("%s lies in the store %s, which would take it for garbage; name a directory elsewhere", dir, outer)
	}
	s, err := cas.Open(ctx, dir, cas.Options{Create: true, Group: owners, Logger: a.logger()})
	if err != nil {
		return err
	}
	defer s.Close()
	a.firstUse(ctx, s)
	if a.json {
		return a.printJSON(map[string]string{"store": s.Dir(), "id": s.ID()})
	}
	return a.printf("%s\n", s.Dir())
}

// storeAround finds the store that dir lies in; "" if in none, or if dir is a
// store already, whose things one may still want to take out.
func storeAround(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if _, err := os.Lstat(filepath.Join(dir, "curi-store.json")); err == nil {
		return ""
	}
	for at := filepath.Dir(dir); ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, "curi-store.json")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return ""
		}
	}
}
