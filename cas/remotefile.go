package cas

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The directory STORE/remotes is for what the store knows of remotes; the
// package remote decides what is in it.

// RemoteFile is the path of the file remotes/<remote>/<name>.
func (s *Store) RemoteFile(remote, name string) string {
	return filepath.Join(s.dir, "remotes", remote, name)
}

// WriteRemoteFile creates or replaces that file, durably.
func (s *Store) WriteRemoteFile(ctx context.Context, remote, name string, data []byte) error {
	if err := CheckName(remote); err != nil {
		return fmt.Errorf("remote: %w", err)
	}
	for part := range strings.SplitSeq(name, "/") {
		if why := badComponent(part); why != "" {
			return fmt.Errorf("file %q of remote %s: %s: %w", name, remote, why, ErrInvalid)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.writeFileDurable(s.RemoteFile(remote, name), data, s.smallFileMode())
}

// RemoveRemoteFiles removes all that the store knows of a remote.
func (s *Store) RemoveRemoteFiles(ctx context.Context, remote string) error {
	if err := CheckName(remote); err != nil {
		return fmt.Errorf("remote: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := filepath.Join(s.dir, "remotes", remote)
	if err := os.RemoveAll(dir); err != nil {
		return storeError(err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil && !noFile(err) {
		return err
	}
	return s.Refresh(ctx) // mounts show the names on it
}
