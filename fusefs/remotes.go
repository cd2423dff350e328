//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"slices"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// remoteNames is the source of remotes/: the remotes that the store knows.
type remoteNames struct{ f *filesystem }

func (r remoteNames) lookup(ctx context.Context, name string) (shown, error) {
	names, err := r.names(ctx)
	if err != nil {
		return shown{}, err
	}
	if !slices.Contains(names, name) {
		return shown{}, fmt.Errorf("remote %s: %w", name, cas.ErrNotFound)
	}
	return shownNames(r.f, "remote:"+name, remoteArtifacts{r.f, name}), nil
}

func (r remoteNames) names(ctx context.Context) ([]string, error) {
	if r.f.store.Remotes() == nil {
		return nil, nil
	}
	return r.f.store.Remotes().Names(ctx, "")
}

func (r remoteNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	names, err := r.names(ctx)
	return dirEntries(names), err
}

func dirEntries(names []string) []fuse.DirEntry {
	var list []fuse.DirEntry
	for _, name := range names {
		list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
	}
	return list
}

// remoteArtifacts is the source of remotes/<remote>: NAME, NAME@NUMBER and
// NAME@TAG as of the last pull, of which only the names are listed.
type remoteArtifacts struct {
	f      *filesystem
	remote string
}

func (r remoteArtifacts) lookup(ctx context.Context, name string) (shown, error) {
	d, err := r.f.store.Remotes().Find(ctx, r.remote, name)
	if err != nil {
		return shown{}, err
	}
	if r.f.store.HasTree(d) {
		return r.f.shownTree(d, nil), nil
	}
	return r.f.shownLazyTree(r.remote, d, nil), nil
}

func (r remoteArtifacts) list(ctx context.Context) ([]fuse.DirEntry, error) {
	names, err := r.f.store.Remotes().Names(ctx, r.remote)
	return dirEntries(names), err
}
