package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Ignores tells what the [IgnoreFile]s of a directory leave out of an add, for
// others who keep copies of files. It is for one goroutine.
type Ignores struct {
	root string
	dirs map[string]*ignoreRules // by directory relative to root: its rules and those above
}

// NewIgnores reads the ignore files below root as they are needed.
func NewIgnores(root string) *Ignores {
	return &Ignores{root: root, dirs: map[string]*ignoreRules{}}
}

// Ignored reports whether a file at rel, slash-separated below the root, or a
// directory above it is ignored. The file need not exist.
func (g *Ignores) Ignored(rel string) (bool, error) {
	dir := ""
	parts := strings.Split(rel, "/")
	for i := range parts {
		rules, err := g.rules(dir)
		if err != nil {
			return false, err
		}
		name := strings.Join(parts[:i+1], "/")
		if rules.ignored(name, i < len(parts)-1) {
			return true, nil
		}
		dir = name
	}
	return false, nil
}

// rules returns what holds in a directory, whose parent was asked for before.
func (g *Ignores) rules(dir string) (*ignoreRules, error) {
	if r, ok := g.dirs[dir]; ok {
		return r, nil
	}
	var parent *ignoreRules
	if dir != "" {
		up := ""
		if i := strings.LastIndexByte(dir, '/'); i >= 0 {
			up = dir[:i]
		}
		parent = g.dirs[up]
	}
	file := filepath.Join(g.root, filepath.FromSlash(dir), IgnoreFile)
	content, err := readIgnores(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	r := parent.with(dir, content)
	g.dirs[dir] = r
	return r, nil
}

func readIgnores(file string) ([]byte, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIgnoreFile+1))
	if err == nil && len(b) > maxIgnoreFile {
		err = fmt.Errorf("longer than %d bytes: %w", maxIgnoreFile, ErrInvalid)
	}
	return b, err
}
