//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The attributes of the mount's root that are calls in truth. getxattr(2) does
// for that because it takes no lock of an inode.
const (
	refreshAttr = "user.curi.refresh" // show every change made so far, then answer
	statsAttr   = "user.curi.stats"   // a JSON object of counters
)

// rootNode is the mount's root.
type rootNode struct{ *names }

func (f *filesystem) newRoot() fs.InodeEmbedder {
	f.top = newNames(f, "root", fixedNames{
		"artifacts": shownNames(f, "artifacts", artifactNames{f}),
		"cas":       shownNames(f, "cas", addressNames{f}),
		"at":        shownNames(f, "at", placeNames{f}),
		"runs":      shownNames(f, "runs", runNames{f}),
		"remotes":   shownNames(f, "remotes", remoteNames{f}),
	})
	return rootNode{f.top}
}

func (n rootNode) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	if run, ok := strings.CutPrefix(attr, lostAttr); ok {
		return n.f.getLost(run, dest)
	}
	switch attr {
	case refreshAttr:
		n.f.refresh(ctx)
		return attrValue([]byte("done"), dest)
	case statsAttr:
		return attrValue(n.f.stats.json(), dest)
	}
	return 0, syscall.ENODATA
}

func (n rootNode) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) { return 0, 0 }

// fixedNames is the source of a directory that never changes.
type fixedNames map[string]shown

func (m fixedNames) lookup(ctx context.Context, name string) (shown, error) {
	s, ok := m[name]
	if !ok {
		return shown{}, fmt.Errorf("%s: %w", name, cas.ErrNotFound)
	}
	return s, nil
}

func (m fixedNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	var list []fuse.DirEntry
	for name, s := range m {
		list = append(list, fuse.DirEntry{Name: name, Mode: s.stable.Mode})
	}
	return list, nil
}

// artifactNames is the source of artifacts/: NAME, NAME@NUMBER and NAME@TAG,
// of which only the names are listed.
type artifactNames struct{ f *filesystem }

func (a artifactNames) lookup(ctx context.Context, name string) (shown, error) {
	base, selector, at := strings.Cut(name, "@")
	if at && selector == "" {
		return shown{}, fmt.Errorf("artifact %s: %w", name, cas.ErrNotFound)
	}
	v, err := a.f.store.Version(ctx, base, selector)
	if err != nil {
		return shown{}, err
	}
	return a.f.shownTree(v.Tree, nil), nil
}

func (a artifactNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	var list []fuse.DirEntry
	for v, err := range a.f.store.Artifacts(ctx, "") {
		if err != nil {
			a.f.log.Error("cannot list an artifact", "err", err)
			continue
		}
		list = append(list, fuse.DirEntry{Name: v.Name, Mode: syscall.S_IFDIR})
	}
	return list, nil
}

// addressNames is the source of cas/: every blob and tree by its digest, none
// of which is listed. Of what only remotes have it shows the trees that the
// store has met there, and those of all names as of the last pull: what it does
// not show costs no request.
type addressNames struct{ f *filesystem }

func (a addressNames) lookup(ctx context.Context, name string) (shown, error) {
	d, err := cas.ParseDigest(name)
	if err != nil {
		return shown{}, fmt.Errorf("%w: %w", err, cas.ErrNotFound)
	}
	if a.f.store.HasTree(d) || a.f.store.HasLazyTree(d) {
		return a.f.shownTree(d, nil), nil
	}
	if !a.f.store.HasBlob(d) {
		if remotes := a.f.store.Remotes(); remotes != nil {
			remote, err := remotes.FindTree(ctx, d)
			if err == nil {
				return a.f.shownLazyTree(remote, d, nil), nil
			}
			if !errors.Is(err, cas.ErrNotFound) {
				return shown{}, err
			}
		}
		return shown{}, fmt.Errorf("blob or tree %s: %w", d, cas.ErrNotFound)
	}
	b, err := a.f.store.OpenBlob(ctx, d)
	if err != nil {
		return shown{}, err
	}
	defer b.Close()
	return a.f.shownFile(cas.Entry{Kind: cas.KindFile, Size: b.Size(), Digest: d}, nil), nil
}

func (a addressNames) list(ctx context.Context) ([]fuse.DirEntry, error) { return nil, nil }

// attrValue answers getxattr and listxattr.
func attrValue(value, dest []byte) (uint32, syscall.Errno) {
	if len(dest) == 0 {
		return uint32(len(value)), 0
	}
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}
