package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MinPrefix is the least number of hex digits that may stand for a digest.
const MinPrefix = 8

// ResolvePrefix finds the one blob or tree whose digest begins with 8 or more
// hex digits; several are an error that lists them ([ErrInvalid]), none is
// [ErrNotFound].
func (s *Store) ResolvePrefix(ctx context.Context, prefix string) (d Digest, isTree bool, err error) {
	prefix = strings.ToLower(prefix)
	if len(prefix) < MinPrefix || len(prefix) > 2*DigestSize || strings.Trim(prefix, "0123456789abcdef") != "" {
		return d, false, fmt.Errorf("digest %q: want %d to %d hex digits: %w", prefix, MinPrefix, 2*DigestSize, ErrInvalid)
	}
	found := map[Digest]bool{}
	for _, room := range []string{"references", "blobs", "trees", "lazy"} {
		if err := ctx.Err(); err != nil {
			return d, false, err
		}
		names, err := s.namesWith(room, prefix)
		if err != nil {
			return d, false, fmt.Errorf("look for digest %s: %w", prefix, storeError(err))
		}
		for _, name := range names {
			if d, err := ParseDigest(name); err == nil {
				found[d] = room == "trees" || room == "lazy"
			}
		}
	}
	switch len(found) {
	case 0:
		return d, false, fmt.Errorf("no blob or tree %s in the store: %w", prefix, ErrNotFound)
	case 1:
		for d, isTree := range found {
			return d, isTree, nil
		}
	}
	var all []string
	for d := range found {
		all = append(all, d.String())
	}
	slices.Sort(all)
	return d, false, fmt.Errorf("digest %s is ambiguous; give more digits of one of %s: %w", prefix, strings.Join(all, ", "), ErrInvalid)
}

// namesWith lists the files in a room of the store whose names begin with prefix.
func (s *Store) namesWith(room, prefix string) ([]string, error) {
	dir := filepath.Join(s.dir, room, prefix[:2])
	if len(prefix) == 2*DigestSize {
		if _, err := os.Lstat(filepath.Join(dir, prefix)); err != nil {
			return nil, nil
		}
		return []string{prefix}, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
