package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/curi-store/curi/cas"
)

// ops are what is timed: each does its work on a path, of size bytes or as it
// needs, and returns the seconds.
var ops = map[string]func(path string, size int64) (float64, error){
	"read":       readFile,
	"readrandom": readRandom,
	"readmapped": readMapped,
	"write":      writeDurably,
	"writesmall": writeSmall,
	"openmany":   openMany,
	"walk":       walk,
	"digest":     digest,
	"seal":       seal,
}

// writesFile names those that make the file at their path.
var writesFile = map[string]bool{"write": true, "writesmall": true}

const (
	bufferSize  = 512 << 10
	smallIO     = 4 << 10
	randomReads = 100_000
)

// readFile reads a file from begin to end.
func readFile(path string, _ int64) (float64, error) {
	buf := make([]byte, bufferSize)
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for {
		_, err := f.Read(buf)
		if errors.Is(err, io.EOF) {
			return time.Since(start).Seconds(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// readRandom reads 4 KiB at places that are the same every time.
func readRandom(path string, size int64) (float64, error) {
	buf := make([]byte, smallIO)
	order := mathrand.New(mathrand.NewPCG(1, 2))
	places := make([]int64, randomReads)
	for i := range places {
		places[i] = order.Int64N(size/smallIO) * smallIO
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	start := time.Now()
	for _, at := range places {
		if _, err := f.ReadAt(buf, at); err != nil {
			return 0, err
		}
	}
	return time.Since(start).Seconds(), nil
}

// readMapped maps a file anew and copies all of it out.
func readMapped(path string, size int64) (float64, error) {
	buf := make([]byte, smallIO)
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	for rest := m; len(rest) > 0; {
		rest = rest[copy(buf, rest):]
	}
	if err := unix.Munmap(m); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// writeDurably writes a new file in large pieces, with fsync.
func writeDurably(path string, size int64) (float64, error) {
	return write(path, size, bufferSize, true)
}

// writeSmall writes a new file in pieces of 4 KiB.
func writeSmall(path string, size int64) (float64, error) { return write(path, size, smallIO, false) }

func write(path string, size int64, piece int, durably bool) (float64, error) {
	// What the round before left is no part of this one. The disk is the same
	// for both sides.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if native := os.Getenv(nativePath); native != "" {
		if err := syncFilesystem(filepath.Dir(native)); err != nil {
			return 0, err
		}
	}
	buf := make([]byte, piece)
	rand.Read(buf)
	start := time.Now()
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for left := size; left > 0; left -= int64(len(buf)) {
		if _, err := f.Write(buf[:min(left, int64(len(buf)))]); err != nil {
			return 0, err
		}
	}
	if durably {
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return time.Since(start).Seconds(), nil
}

// openMany opens, reads and closes every file below a directory, by the
// system's own calls: what Go does beside them is the same on both sides.
func openMany(dir string, _ int64) (float64, error) {
	var paths []string
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	}); err != nil {
		return 0, err
	}
	slices.Sort(paths)
	buf := make([]byte, 64<<10)
	start := time.Now()
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, &os.PathError{Op: "open", Path: p, Err: err}
		}
		n, err := unix.Read(fd, buf)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, &os.PathError{Op: "read", Path: p, Err: err}
		}
		if err := unix.Close(fd); err != nil {
			return 0, &os.PathError{Op: "close", Path: p, Err: err}
		}
	}
	return time.Since(start).Seconds(), nil
}

// walk lists every file below a directory with its size, as a process of its own.
func walk(dir string, _ int64) (float64, error) {
	cmd := exec.Command("find", dir, "-type", "f", "-printf", "%s\n")
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("find %s: %w", dir, err)
	}
	return time.Since(start).Seconds(), nil
}

// digest prints what b3sum would.
func digest(path string, size int64) (float64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	d, err := cas.SumFile(context.Background(), f, size)
	if err != nil {
		return 0, err
	}
	fmt.Println(d)
	return 0, nil
}

// seal takes a file over into the store that $CURI_STORE names, as the end of
// a stage does.
func seal(path string, _ int64) (float64, error) {
	ctx := context.Background()
	s, err := cas.Open(ctx, os.Getenv("CURI_STORE"), cas.Options{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	added, err := s.Seal(ctx, path, cas.SealOptions{})
	if err != nil {
		return 0, err
	}
	fmt.Println(added.Digest)
	added.Release()
	return 0, nil
}

// syncFilesystem lets the disk come to rest.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}
