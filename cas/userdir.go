package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// UserDir is the directory of this user, outside of all stores, for what needs
// a short path or a place that can be written: mount points, links, and mounts
// of stores that can only be read.
func UserDir() string { return filepath.Join("/tmp", "curi-"+strconv.Itoa(os.Geteuid())) }

// MakeUserDir makes [UserDir], or says why it cannot be trusted.
func MakeUserDir() error {
	dir := UserDir()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the directory of mount points: %w", err)
	}
	return checkUserDir(dir)
}

// checkUserDir refuses a directory that another user made or can write to.
func checkUserDir(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() || int(st.Uid) != os.Geteuid() || fi.Mode().Perm() != 0o700 {
		return fmt.Errorf("%s is not a directory of this user alone (mode 0700): move it away, or mount the store elsewhere (curi mount DIR) and run this again", dir)
	}
	return nil
}

// outsideMounts is where mounts of the store are registered by servers that
// cannot write to it.
func (s *Store) outsideMounts() string { return filepath.Join(UserDir(), s.id[:8]+".mounts") }

// mountDirs are the directories in which mounts of the store are registered.
func (s *Store) mountDirs() []string {
	dirs := []string{filepath.Join(s.dir, "mounts")}
	if checkUserDir(UserDir()) == nil {
		dirs = append(dirs, s.outsideMounts())
	}
	return dirs
}

// mountPath is the registration of a mount, or where it would be.
func (s *Store) mountPath(id string) string {
	dirs := s.mountDirs()
	for _, dir := range dirs {
		path := filepath.Join(dir, id+".json")
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return filepath.Join(dirs[0], id+".json")
}

// mountUsers is the file that the users of a mount lock, beside its registration.
func (s *Store) mountUsers(id string) string {
	return strings.TrimSuffix(s.mountPath(id), ".json") + ".users"
}

// mountIDs lists the registered mounts.
func (s *Store) mountIDs() ([]string, error) {
	var ids []string
	for _, dir := range s.mountDirs() {
		ents, err := os.ReadDir(dir)
		if noFile(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range ents {
			if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// registerOutside registers a mount of a store that cannot be written to.
func (s *Store) registerOutside(id string, b []byte) (*os.File, error) {
	if err := MakeUserDir(); err != nil {
		return nil, err
	}
	dir := s.outsideMounts()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	staged := filepath.Join(dir, "."+id)
	if err := os.WriteFile(staged, b, 0o600); err != nil {
		os.Remove(staged)
		return nil, err
	}
	return lockStaged(staged, filepath.Join(dir, id+".json"), os.Rename)
}
