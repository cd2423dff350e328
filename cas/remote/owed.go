package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/curi-store/curi/cas"
)

// Owed is a result of a stage that a store is to publish to a remote and has
// not yet.
type Owed struct {
	Remote string     `json:"-"`
	Key    string     `json:"key"`
	Tree   cas.Digest `json:"tree"`
	Run    string     `json:"run"`
}

const owedDir = "owed"

// Note writes down that it is owed, durably.
func (o Owed) Note(ctx context.Context, s *cas.Store) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return s.WriteRemoteFile(ctx, o.Remote, owedDir+"/"+o.Key, append(b, '\n'))
}

// Done notes that it is owed no more, unless a newer result of the key is.
func (o Owed) Done(ctx context.Context, s *cas.Store) error {
	all, err := AllOwed(ctx, s, o.Remote)
	if err != nil || !slices.Contains(all, o) {
		return err
	}
	if err := os.Remove(s.RemoteFile(o.Remote, owedDir+"/"+o.Key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note that %s is published: %w", o.Run, err)
	}
	return ctx.Err()
}

// AllOwed lists what a store owes to a remote.
func AllOwed(ctx context.Context, s *cas.Store, remote string) ([]Owed, error) {
	dir := s.RemoteFile(remote, owedDir)
	ents, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list what is owed to remote %s: %w", remote, err)
	}
	var all []Owed
	for _, e := range ents {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process has published it
		}
		o := Owed{Remote: remote}
		if err == nil {
			err = json.Unmarshal(b, &o)
		}
		if err != nil {
			return nil, fmt.Errorf("what is owed to remote %s: %s: %w", remote, path, err)
		}
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b Owed) int { return strings.Compare(a.Run, b.Run) })
	return all, ctx.Err()
}
