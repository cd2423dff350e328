//go:build linux

package fusefs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/curi-store/curi/cas"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// runPrefix is where the refs of runs are.
const runPrefix = "run/"

// runNames is the source of runs/.
type runNames struct{ f *filesystem }

func (s runNames) lookup(ctx context.Context, name string) (shown, error) {
	if _, err := s.f.store.Ref(ctx, runPrefix+name); err != nil {
		return shown{}, err
	}
	return shownNames(s.f, "run:"+name, runParts{s.f, name}), nil
}

func (s runNames) list(ctx context.Context) ([]fuse.DirEntry, error) {
	var list []fuse.DirEntry
	for r, err := range s.f.store.Refs(ctx, runPrefix) {
		if err != nil {
			s.f.log.Error("cannot list a run", "err", err)
			continue
		}
		name := strings.TrimPrefix(r.Name, runPrefix)
		if !strings.Contains(name, "/") {
			list = append(list, fuse.DirEntry{Name: name, Mode: syscall.S_IFDIR})
		}
	}
	return list, nil
}

// runParts is the source of runs/<run>: what the run's tree has, and links to
// the place of its key for the rest, as long as the place is the run's. They
// are links because a directory can only be in one place: a program that has
// one as its working directory would be moved.
type runParts struct {
	f   *filesystem
	run string
}

func (s runParts) lookup(ctx context.Context, name string) (shown, error) {
	r, err := s.f.store.Ref(ctx, runPrefix+s.run)
	if err != nil {
		return shown{}, err
	}
	if !r.Tree.IsZero() {
		sh, err := s.f.shownInside(ctx, r.Tree, name)
		if !errors.Is(err, cas.ErrNotFound) {
			return sh, err
		}
	}
	none := fmt.Errorf("run %s: %s: %w", s.run, name, cas.ErrNotFound)
	switch name {
	case "in", "work", "logs":
	case "out":
		if !r.Tree.IsZero() {
			return shown{}, none
		}
	default:
		return shown{}, none
	}
	var info struct {
		Key string `json:"key"`
	}
	if json.Unmarshal(r.Info, &info) != nil || info.Key == "" {
		return shown{}, none
	}
	p, err := s.f.place(cas.ShortKey(info.Key))
	if err != nil {
		return shown{}, err
	}
	st, err := p.current()
	if err != nil {
		return shown{}, err
	}
	if st.Key != info.Key || st.Run != s.run {
		return shown{}, none
	}
	if _, err := (partNames{p}).lookup(ctx, name); err != nil {
		return shown{}, err
	}
	return s.f.shownLink("../../at/"+p.short+"/"+name, nil), nil
}

func (s runParts) list(ctx context.Context) ([]fuse.DirEntry, error) {
	names := []string{"in", "out", "work", "logs"}
	if r, err := s.f.store.Ref(ctx, runPrefix+s.run); err != nil {
		return nil, err
	} else if !r.Tree.IsZero() {
		t, err := s.f.store.Tree(ctx, r.Tree)
		if err != nil {
			return nil, err
		}
		for _, e := range t.Entries {
			if e.Name != "out" {
				names = append(names, e.Name)
			}
		}
	}
	var list []fuse.DirEntry
	for _, name := range names {
		sh, err := s.lookup(ctx, name)
		if errors.Is(err, cas.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, fuse.DirEntry{Name: name, Mode: sh.stable.Mode})
	}
	return list, nil
}
