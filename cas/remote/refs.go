package remote

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// Version is a version of an artifact on a remote. Its number is the remote's.
type Version struct {
	Name string `json:"-"`
	N    int    `json:"-"`
	RefInfo
}

// RefInfo is what a ref on a remote says.
type RefInfo struct {
	Tree   cas.Digest `json:"tree"`
	Time   time.Time  `json:"time"`
	Bytes  int64      `json:"bytes"`             // of all files
	Files  int64      `json:"files"`             // how many
	Single bool       `json:"single,omitempty"`  // the tree stands for the one file in it
	MadeBy string     `json:"made_by,omitempty"` // "RUN.OUTPUT", or ""
	Run    string     `json:"run,omitempty"`     // of a stage's result
	By     string     `json:"by,omitempty"`      // who published it, as they say: "ada@node7"
	Token  string     `json:"token"`             // random; tells one's own object from an equal one
}

func newToken() string { return rand.Text() }

func (r *Remote) versions(name string) series { return series{r.b, "refs/artifact/" + name} }

// parseRef parses the object of a ref. An empty one stands for a version that
// was removed, so that its number is never given again: [cas.ErrNotFound].
func parseRef(key string, b []byte) (RefInfo, error) {
	if len(b) == 0 {
		return RefInfo{}, fmt.Errorf("%s was removed: %w", key, cas.ErrNotFound)
	}
	var v RefInfo
	if err := json.Unmarshal(b, &v); err != nil {
		return RefInfo{}, fmt.Errorf("%s: %w: %w", key, err, cas.ErrCorrupt)
	}
	if v.Tree.IsZero() || v.Bytes < 0 || v.Files < 0 {
		return RefInfo{}, fmt.Errorf("%s: names no tree: %w", key, cas.ErrCorrupt)
	}
	return v, nil
}

// Version reads one version of an artifact, the newest if n is 0;
// [cas.ErrNotFound].
func (r *Remote) Version(ctx context.Context, name string, n int) (Version, error) {
	if err := cas.CheckName(name); err != nil {
		return Version{}, err
	}
	s := r.versions(name)
	if n != 0 {
		return r.version(ctx, s, name, n)
	}
	ns, err := s.numbers(ctx)
	if err != nil {
		return Version{}, err
	}
	return r.newest(ctx, s, name, ns)
}

// newest reads the newest version that was not removed.
func (r *Remote) newest(ctx context.Context, s series, name string, ns []int) (Version, error) {
	for _, n := range slices.Backward(ns) {
		v, err := r.version(ctx, s, name, n)
		if !errors.Is(err, cas.ErrNotFound) {
			return v, err
		}
	}
	return Version{}, fmt.Errorf("artifact %s: %w", name, cas.ErrNotFound)
}

func (r *Remote) version(ctx context.Context, s series, name string, n int) (Version, error) {
	b, err := s.read(ctx, n)
	if err != nil {
		return Version{}, err
	}
	info, err := parseRef(s.key(n), b)
	return Version{name, n, info}, err
}

// Publish makes info.Tree, whose recipe is there, the next version of name,
// unless it already is the newest: then isNew is false.
func (r *Remote) Publish(ctx context.Context, name string, info RefInfo) (v Version, isNew bool, err error) {
	if err := cas.CheckName(name); err != nil {
		return Version{}, false, err
	}
	info.Token = newToken()
	info.Time = time.Now().UTC().Truncate(time.Millisecond)
	data, err := json.Marshal(info)
	if err != nil {
		return Version{}, false, err
	}
	s := r.versions(name)
	for ctx.Err() == nil {
		ns, err := s.current(ctx)
		if err != nil {
			return Version{}, false, err
		}
		newest, err := r.newest(ctx, s, name, ns)
		if err == nil && newest.Tree == info.Tree {
			return newest, false, nil
		}
		if err != nil && !errors.Is(err, cas.ErrNotFound) {
			return Version{}, false, err
		}
		next := 1
		if len(ns) > 0 {
			next = ns[len(ns)-1] + 1
		}
		err = s.create(ctx, next, data)
		fault.At(fault.PushNamed)
		if !errors.Is(err, cas.ErrExists) {
			return Version{name, next, info}, true, err
		}
	}
	return Version{}, false, ctx.Err()
}

// Versions reads all versions of all artifacts whose names begin with prefix,
// in order of names and numbers. skip tells which are known already: versions
// never change, but by being removed.
func (r *Remote) Versions(ctx context.Context, prefix string, skip func(name string, n int) bool) ([]Version, error) {
	const room = "refs/artifact/"
	var todo []Version
	for o, err := range r.b.List(ctx, room+prefix, "") {
		if err != nil {
			return nil, err
		}
		name, number, _ := strings.Cut(strings.TrimPrefix(o.Key, room), "/")
		n := seriesNumber(number)
		if n == 0 || o.Size == 0 || cas.CheckName(name) != nil || skip != nil && skip(name, n) {
			continue
		}
		todo = append(todo, Version{Name: name, N: n})
	}
	err := each(ctx, len(todo), 16, func(ctx context.Context, i int) error {
		v, err := r.version(ctx, r.versions(todo[i].Name), todo[i].Name, todo[i].N)
		if errors.Is(err, cas.ErrNotFound) {
			return nil
		}
		todo[i].RefInfo = v.RefInfo
		return err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(todo, func(v Version) bool { return v.Tree.IsZero() }), nil
}

// Remove takes versions of an artifact off the remote. What only they needed
// goes with the next collection.
func (r *Remote) Remove(ctx context.Context, name string, ns ...int) error {
	if err := cas.CheckName(name); err != nil {
		return err
	}
	s := r.versions(name)
	for _, n := range ns {
		if _, err := r.version(ctx, s, name, n); err != nil && !errors.Is(err, cas.ErrCorrupt) {
			return err
		}
		if err := r.b.Put(ctx, s.key(n), nil); err != nil {
			return err
		}
	}
	return nil
}
