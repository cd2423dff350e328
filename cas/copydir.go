package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// CopyDir copies what programs left in the directory src to dst, which must not
// exist and whose parent must: files as reflinks where the filesystem has them,
// else as copies that keep holes. Hard links among them, symbolic links, modes,
// modification times and user.* extended attributes stay; the copies belong to
// the caller. Sockets, FIFOs and devices are left out.
//
// No file shares an inode with one in src. Nobody may write in src meanwhile.
// After an error what was made is left.
func CopyDir(ctx context.Context, src, dst string, progress Progress) error {
	c := &dirCopy{meter: &meter{fn: progress}, made: map[fileID]string{}}
	err := c.count(src)
	if err == nil {
		err = c.dir(ctx, src, dst)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", src, dst, checkoutSpace(err))
	}
	return nil
}

// CopyWhole is [CopyDir] of which dst has all, durably, or nothing. What a process
// that died left of a copy to dst is removed.
func CopyWhole(ctx context.Context, src, dst string, progress Progress) error {
	part := dst + ".new"
	if err := removeAll(part); err != nil {
		return fmt.Errorf("remove the rest of a copy: %w", err)
	}
	err := CopyDir(ctx, src, part, progress)
	if err == nil {
		err = syncFilesystem(part)
	}
	if err == nil {
		err = os.Rename(part, dst)
	}
	if err == nil {
		err = syncDir(filepath.Dir(dst))
	}
	if err != nil {
		_ = removeAll(part)
	}
	return err
}

type dirCopy struct {
	meter *meter
	made  map[fileID]string // files with several names: where the copy is
}

func (c *dirCopy) count(src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			c.meter.totalFiles++
			c.meter.totalBytes += info.Size()
		}
		return err
	})
}

func (c *dirCopy) dir(ctx context.Context, src, dst string) error {
	st, err := lstatFile(src)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dst, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, to := joinPath(src, e.Name()), joinPath(dst, e.Name())
		switch {
		case e.IsDir():
			err = c.dir(ctx, from, to)
		case e.Type()&fs.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = os.Symlink(target, to)
			}
		case e.Type().IsRegular():
			err = c.file(ctx, from, to)
		}
		if err != nil {
			return err
		}
	}
	return c.dress(src, dst, st)
}

func (c *dirCopy) file(ctx context.Context, src, dst string) error {
	f, err := openSource(src)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := fstatFile(f)
	if err != nil {
		return err
	}
	id := fileID{st.dev, st.ino}
	if first, ok := c.made[id]; ok {
		c.meter.bytes(st.size)
		c.meter.file()
		return os.Link(first, dst)
	}
	to, _, err := cloneOrCopy(ctx, f, dst, 0o600)
	if err != nil {
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	if st.nlink > 1 {
		c.made[id] = dst
	}
	c.meter.bytes(st.size)
	c.meter.file()
	return c.dress(src, dst, st)
}

// dress gives a copy the attributes, mode and time of what it is a copy of.
func (c *dirCopy) dress(src, dst string, st fileState) error {
	attrs, err := userXattrs(src)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := setXattr(dst, a.Key, a.Value); err != nil && !errors.Is(err, errors.ErrUnsupported) && strings.HasPrefix(a.Key, MetaPrefix) {
			return err
		}
	}
	if err := os.Chmod(dst, fs.FileMode(st.mode&0o777)); err != nil {
		return err
	}
	t := time.Unix(0, st.mtime)
	return os.Chtimes(dst, t, t)
}
