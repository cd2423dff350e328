package cas

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// sweepPartial removes partial blobs that nobody opened for long, and what is
// left of those that the store has whole. They are what a remote can bring
// again; who has one open goes on with it.
func (c *collector) sweepPartial(ctx context.Context) error {
	ds, err := c.s.digestsIn(ctx, "partial")
	if err != nil {
		return err
	}
	// Who died when the bytes had become a blob left their map.
	maps, err := c.s.digestsOf(ctx, "partial", ".map")
	if err != nil {
		return err
	}
	for _, d := range append(ds, maps...) {
		path := c.s.partialPath(d)
		if !c.s.HasBlob(d) && !c.oldPartial(path) {
			continue
		}
		// The map first: without it the other files mean nothing.
		for _, file := range []string{path + ".map", path + ".outboard", path} {
			allocated := diskUse(file)
			fi, err := os.Lstat(file)
			if noFile(err) {
				continue
			}
			if err := c.remove(file, nil); err != nil {
				return err
			}
			if err == nil {
				c.r.RemovedBytes += allocated - fi.Size() // it has holes
			}
		}
	}
	return nil
}

func (c *collector) oldPartial(path string) bool {
	if c.o.PartialAge <= 0 {
		return false
	}
	// Whoever opens it touches the map.
	for _, file := range []string{path + ".map", path} {
		if fi, err := os.Lstat(file); err == nil {
			return time.Since(fi.ModTime()) > c.o.PartialAge
		}
	}
	return false
}

// PartialUsage is how many bytes partial blobs take on the disk.
func (s *Store) PartialUsage(ctx context.Context) (int64, error) {
	ds, err := s.digestsIn(ctx, "partial")
	if err != nil {
		return 0, err
	}
	var n int64
	for _, d := range ds {
		files, _ := filepath.Glob(s.partialPath(d) + "*")
		for _, f := range files {
			n += diskUse(f)
		}
	}
	return n, nil
}

// diskUse is how many bytes a file takes on the disk; 0 if there is none.
func diskUse(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return int64(st.Blocks) * 512
}
