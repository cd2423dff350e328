package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/curi-store/curi/cas"
)

// Tag is a word for one version of an artifact on a remote.
type Tag struct {
	Name    string // of the artifact
	Tag     string
	Version int
	n       int // of the series: how often it was set
}

// tagInfo is the object that says where a tag points to.
type tagInfo struct {
	Version int       `json:"version"`
	Time    time.Time `json:"time"`
	By      string    `json:"by,omitempty"`
	Token   string    `json:"token"`
}

const tagRoom = "refs/tag/"

func (r *Remote) tag(name, tag string) series { return series{r.b, tagRoom + name + "/" + tag} }

// SetTag makes a tag mean a version, which must be there. If somebody else
// moves the tag meanwhile the error wraps [cas.ErrBusy] and the other's word
// counts.
func (r *Remote) SetTag(ctx context.Context, name, tag string, version int, by string) error {
	if err := cas.CheckName(name); err != nil {
		return err
	}
	if err := cas.CheckName(tag); err != nil {
		return err
	}
	if _, err := r.version(ctx, r.versions(name), name, version); err != nil {
		return err
	}
	line, err := json.Marshal(tagInfo{version, time.Now().UTC().Truncate(time.Millisecond), by, newToken()})
	if err != nil {
		return err
	}
	s := r.tag(name, tag)
	ns, err := s.current(ctx)
	if err != nil {
		return err
	}
	next := 1
	if len(ns) > 0 {
		next = ns[len(ns)-1] + 1
		if now, err := r.readTag(ctx, s, next-1); err == nil && now.Version == version {
			return nil
		}
	}
	err = s.create(ctx, next, line)
	if errors.Is(err, cas.ErrExists) {
		now, rerr := r.readTag(ctx, s, next)
		if rerr != nil {
			return rerr
		}
		return fmt.Errorf("%s moved the tag %s@%s to version %d at the same time; look at it, and repeat what you did if it is still right: %w", now.By, name, tag, now.Version, cas.ErrBusy)
	}
	return err
}

func (r *Remote) readTag(ctx context.Context, s series, n int) (tagInfo, error) {
	b, err := s.read(ctx, n)
	if err != nil {
		return tagInfo{}, err
	}
	return parseTag(s.key(n), b)
}

func parseTag(key string, line []byte) (tagInfo, error) {
	var t tagInfo
	if err := json.Unmarshal(line, &t); err != nil {
		return t, fmt.Errorf("%s: %w: %w", key, err, cas.ErrCorrupt)
	}
	if t.Version < 1 || t.Version > maxNumber {
		return t, fmt.Errorf("%s: names no version: %w", key, cas.ErrCorrupt)
	}
	return t, nil
}

// Tags reads all tags, in order of names. Those of known that were not moved
// since are not read again.
func (r *Remote) Tags(ctx context.Context, known []Tag) ([]Tag, error) {
	had := map[Tag]int{}
	for _, t := range known {
		had[Tag{Name: t.Name, Tag: t.Tag, n: t.n}] = t.Version
	}
	var list []Tag
	for o, err := range r.b.List(ctx, tagRoom, "") {
		if err != nil {
			return nil, err
		}
		parts := strings.Split(strings.TrimPrefix(o.Key, tagRoom), "/")
		if len(parts) != 3 || cas.CheckName(parts[0]) != nil || cas.CheckName(parts[1]) != nil {
			continue
		}
		t := Tag{Name: parts[0], Tag: parts[1], n: seriesNumber(parts[2])}
		if t.n == 0 {
			continue
		}
		// Numbers of one series follow each other.
		if k := len(list) - 1; k >= 0 && list[k].Name == t.Name && list[k].Tag == t.Tag {
			list[k] = t
		} else {
			list = append(list, t)
		}
	}
	return list, each(ctx, len(list), 16, func(ctx context.Context, i int) error {
		t := &list[i]
		if v, ok := had[*t]; ok {
			t.Version = v
			return nil
		}
		info, err := r.readTag(ctx, r.tag(t.Name, t.Tag), t.n)
		t.Version = info.Version
		return err
	})
}
