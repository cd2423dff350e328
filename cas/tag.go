package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Tag makes tag name version n, moving it if it exists, and tells every mount.
// [ErrNotFound] if there is no such version.
func (s *Store) Tag(ctx context.Context, name string, n int, tag string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := CheckName(tag); err != nil {
		return fmt.Errorf("tag: %w", err)
	}
	if _, err := s.readVersion(name, n); err != nil {
		return err
	}
	if err := s.writeTag(ctx, name, n, tag); err != nil {
		return fmt.Errorf("tag %s@%d as %s: %w", name, n, tag, err)
	}
	return s.Refresh(ctx)
}

func (s *Store) writeTag(ctx context.Context, name string, n int, tag string) error {
	b, err := encodeJSON(tagFile{n})
	if err != nil {
		return err
	}
	release, err := s.lockTags(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.putFile(s.artifactPath(name, "tags", tag), b)
}

// removeTag removes a tag, unless it names another version than n by now.
func (s *Store) removeTag(ctx context.Context, name string, n int, tag string) error {
	release, err := s.lockTags(ctx)
	if err != nil {
		return err
	}
	defer release()
	if now, err := s.readTag(name, tag); err == nil && now != n {
		return nil
	}
	if err := os.Remove(s.artifactPath(name, "tags", tag)); err != nil && !noFile(err) {
		return err
	}
	return nil
}

// lockTags keeps others from moving or removing tags.
func (s *Store) lockTags(ctx context.Context) (release func(), err error) {
	return s.lockAlone(ctx, "tags")
}

func (s *Store) readTag(name, tag string) (int, error) {
	path := s.artifactPath(name, "tags", tag)
	var f tagFile
	err := readJSON(path, &f)
	switch {
	case noFile(err):
		return 0, fmt.Errorf("artifact %s@%s: %w", name, tag, ErrNotFound)
	case err != nil:
		return 0, fmt.Errorf("artifact %s@%s: %w", name, tag, err)
	case f.N < 1:
		return 0, fmt.Errorf("artifact %s@%s: %s: %w: names no version", name, tag, path, ErrCorrupt)
	}
	return f.N, nil
}

// tags lists the tags of every version, sorted. A tag that does not parse is
// passed over here, as it names nothing; asked for by name it is an error.
func (s *Store) tags(name string) (map[int][]string, error) {
	ents, err := os.ReadDir(s.artifactPath(name, "tags"))
	if err != nil && !noFile(err) {
		return nil, fmt.Errorf("list the tags of %s: %w", name, err)
	}
	tags := map[int][]string{}
	for _, e := range ents {
		if CheckName(e.Name()) != nil {
			continue
		}
		n, err := s.readTag(name, e.Name())
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		tags[n] = append(tags[n], e.Name())
	}
	for _, t := range tags {
		slices.Sort(t)
	}
	return tags, nil
}

func (s *Store) tagsOf(name string, n int) ([]string, error) {
	tags, err := s.tags(name)
	return tags[n], err
}
