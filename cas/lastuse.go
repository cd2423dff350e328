package cas

import (
	"context"
	"fmt"
	"os"
	"time"
)

// RefUsed is when a ref was last written or touched ([Store.TouchRef]);
// [ErrNotFound].
func (s *Store) RefUsed(ctx context.Context, name string) (time.Time, error) {
	if err := checkRefName(name); err != nil {
		return time.Time{}, err
	}
	fi, err := os.Stat(s.refPath(name))
	switch {
	case noFile(err):
		return time.Time{}, fmt.Errorf("ref %s: %w", name, ErrNotFound)
	case err != nil:
		return time.Time{}, fmt.Errorf("read ref %s: %w", name, err)
	}
	return fi.ModTime(), nil
}
