package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Seen is what a store knows of the names on a remote: those of its last pull.
// Nothing follows a remote by itself.
type Seen struct {
	Remote   string // the remote's identity; "" before the first pull
	Versions []Version
	Tags     []Tag
}

const seenFile = "versions.json"

type seenJSON struct {
	Remote   string        `json:"remote"`
	Versions []seenVersion `json:"versions"`
	Tags     []seenTag     `json:"tags,omitempty"`
}

type seenTag struct {
	Name    string `json:"name"`
	Tag     string `json:"tag"`
	Version int    `json:"version"`
	N       int    `json:"n"`
}

type seenVersion struct {
	Name string `json:"name"`
	N    int    `json:"version"`
	RefInfo
}

// LoadSeen reads what the store knows of the remote called name.
func LoadSeen(ctx context.Context, s *cas.Store, name string) (Seen, error) {
	path := s.RemoteFile(name, seenFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Seen{}, ctx.Err()
	}
	if err != nil {
		return Seen{}, fmt.Errorf("read the names of remote %s: %w", name, err)
	}
	seen, err := parseSeen(b)
	if err != nil {
		return Seen{}, fmt.Errorf("the names of remote %s: %s: %w: %w; curi pull makes the file anew once it is removed", name, path, err, cas.ErrCorrupt)
	}
	return seen, ctx.Err()
}

func parseSeen(b []byte) (Seen, error) {
	var j seenJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Seen{}, err
	}
	seen := Seen{Remote: j.Remote}
	for _, v := range j.Versions {
		seen.Versions = append(seen.Versions, Version(v))
	}
	for _, t := range j.Tags {
		seen.Tags = append(seen.Tags, Tag{t.Name, t.Tag, t.Version, t.N})
	}
	return seen, nil
}

func (seen Seen) save(ctx context.Context, s *cas.Store, name string) error {
	j := seenJSON{Remote: seen.Remote, Versions: []seenVersion{}}
	slices.SortFunc(seen.Versions, func(a, b Version) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.N - b.N
	})
	for _, v := range seen.Versions {
		j.Versions = append(j.Versions, seenVersion(v))
	}
	for _, t := range seen.Tags {
		j.Tags = append(j.Tags, seenTag{t.Name, t.Tag, t.Version, t.n})
	}
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return s.WriteRemoteFile(ctx, name, seenFile, append(b, '\n'))
}

// Find returns a version, the newest if n is 0; [cas.ErrNotFound].
func (seen Seen) Find(name string, n int) (Version, error) {
	for _, v := range slices.Backward(seen.Versions) {
		if v.Name == name && (n == 0 || v.N == n) {
			return v, nil
		}
	}
	if n != 0 {
		name = fmt.Sprintf("%s@%d", name, n)
	}
	return Version{}, fmt.Errorf("artifact %s: %w", name, cas.ErrNotFound)
}

// FindTag returns the version that a tag means; [cas.ErrNotFound].
func (seen Seen) FindTag(name, tag string) (Version, error) {
	for _, t := range seen.Tags {
		if t.Name == name && t.Tag == tag {
			return seen.Find(name, t.Version)
		}
	}
	return Version{}, fmt.Errorf("artifact %s@%s: %w", name, tag, cas.ErrNotFound)
}

// TagsOf lists the tags of a version.
func (seen Seen) TagsOf(v Version) []string {
	tags := []string{}
	for _, t := range seen.Tags {
		if t.Name == v.Name && t.Version == v.N {
			tags = append(tags, t.Tag)
		}
	}
	return tags
}

// Newest lists the newest version of each artifact whose name begins with
// prefix, in order of names.
func (seen Seen) Newest(prefix string) []Version {
	var list []Version
	for i, v := range seen.Versions {
		last := i+1 == len(seen.Versions) || seen.Versions[i+1].Name != v.Name
		if last && strings.HasPrefix(v.Name, prefix) {
			list = append(list, v)
		}
	}
	return list
}

// See takes the names on the remote over into the store, under name.
func (r *Remote) See(ctx context.Context, s *cas.Store, name string) (Seen, error) {
	old, err := LoadSeen(ctx, s, name)
	if err != nil {
		return Seen{}, err
	}
	type id struct {
		name string
		n    int
	}
	have := map[id]Version{}
	if old.Remote == r.id {
		for _, v := range old.Versions {
			have[id{v.Name, v.N}] = v
		}
	}
	seen := Seen{Remote: r.id}
	fresh, err := r.Versions(ctx, "", func(name string, n int) bool {
		v, ok := have[id{name, n}]
		if ok {
			seen.Versions = append(seen.Versions, v)
		}
		return ok
	})
	if err != nil {
		return Seen{}, err
	}
	seen.Versions = append(seen.Versions, fresh...)
	if old.Remote != r.id {
		old.Tags = nil
	}
	if seen.Tags, err = r.Tags(ctx, old.Tags); err != nil {
		return Seen{}, err
	}
	if err := seen.save(ctx, s, name); err != nil {
		return seen, err
	}
	return seen, s.Refresh(ctx) // mounts show them
}
