package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// decode reads JSON that a program printed.
func decode[T any](text string) (v T, err error) {
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return v, fmt.Errorf("reading JSON: %w", err)
	}
	return v, nil
}

// dataDir is what is stored and compared with, below the working directory.
const dataDir = "data"

// large is a file of the run's size, made once.
func (b *bench) large() (string, error) {
	path := b.path(dataDir, "large")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// Random: it cannot be compressed, or stored as holes.
	if _, err := io.CopyN(f, rand.Reader, b.size); err != nil {
		return "", err
	}
	return path, f.Sync()
}

// tree is a directory of n different files of some bytes each, 100 to a
// directory, made once.
func (b *bench) tree(n int, size int64) (string, error) {
	dir := b.path(dataDir, fmt.Sprintf("tree-%d-%d", n, size))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	return dir, writeTree(dir, n, size)
}

func writeTree(dir string, n int, size int64) error {
	buf := make([]byte, size)
	for i := range n {
		sub := filepath.Join(dir, fmt.Sprintf("%03d", i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		rand.Read(buf)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("%06d.bin", i)), buf, 0o644); err != nil {
			return err
		}
	}
	return syncFilesystem(dir)
}

// artifact stores a path under a name, once, and returns the digest.
func (b *bench) artifact(name, path string) (string, error) {
	if d, ok := b.stored[name]; ok {
		return d, nil
	}
	if b.given {
		return "", fmt.Errorf("%s has to be stored before the store is given away", name)
	}
	said, err := b.output(b.tool("curi"), "add", path, "--name", name, "--json")
	if err != nil {
		return "", err
	}
	added, err := decode[struct{ Digest string }](said)
	b.stored[name] = added.Digest
	return added.Digest, err
}

// blob is the path of a stored file on the disk.
func (b *bench) blob(digest string) string {
	return filepath.Join(b.store, "blobs", digest[:2], digest)
}
