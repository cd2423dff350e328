package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/internal/fault"
)

// dirTemp begins the names of files that are being written. No key has a part
// that begins with a dot.
const dirTemp = ".curi-tmp-"

// dirBucket is a directory, usually on a filesystem that machines share. An
// object is a file; link(2) decides who creates it, which holds on NFS and
// Lustre too.
type dirBucket struct{ dir string }

// OpenDir returns the bucket in the directory dir, which is made with its
// first object.
func OpenDir(dir string) Bucket { return &dirBucket{filepath.Clean(dir)} }

func (b *dirBucket) path(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return filepath.Join(b.dir, filepath.FromSlash(key)), nil
}

// dirError tells a missing object, and adds what can be done about the rest.
func dirError(key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return fmt.Errorf("%s: %w", key, cas.ErrNotFound)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w; free space there or collect garbage with curi remote gc", err, cas.ErrNoSpace)
	}
	return err
}

func (b *dirBucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	name, err := b.path(key)
	if err != nil {
		return 0, err
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, dirError(key, err)
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	if err != nil {
		return n, dirError(key, err)
	}
	return n, nil
}

func (b *dirBucket) Stat(ctx context.Context, key string) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	name, err := b.path(key)
	if err != nil {
		return Object{}, err
	}
	fi, err := os.Stat(name)
	if err != nil {
		return Object{}, dirError(key, err)
	}
	if !fi.Mode().IsRegular() {
		return Object{}, fmt.Errorf("%s: %w", key, cas.ErrNotFound)
	}
	return Object{key, fi.Size(), fi.ModTime()}, nil
}

func (b *dirBucket) Put(ctx context.Context, key string, data []byte) error {
	return b.write(ctx, key, data, os.Rename)
}

func (b *dirBucket) PutNew(ctx context.Context, key string, data []byte) error {
	return b.write(ctx, key, data, os.Link)
}

// write makes a durable temporary file of data, gives it its name by how, and
// makes the name durable.
func (b *dirBucket) write(ctx context.Context, key string, data []byte, how func(from, to string) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := b.path(key)
	if err != nil {
		return err
	}
	// Beside the object: a directory tree may span filesystems.
	f, above, err := b.temp(filepath.Dir(name))
	if err != nil {
		return dirError(key, err)
	}
	defer os.Remove(f.Name())
	if err = fault.In(fault.Write); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Chmod(b.fileMode())
	}
	if err == nil {
		err = fault.In(fault.Sync)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	fault.At(fault.ObjectStaged)
	if err == nil {
		err = fault.In(fault.Rename)
	}
	if err == nil {
		err = how(f.Name(), name)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", key, cas.ErrExists)
	}
	if err != nil {
		return dirError(key, err)
	}
	fault.At(fault.ObjectNamed)
	// The directories too, all of them: who made one may not have come so far.
	for d := filepath.Dir(name); ; d = filepath.Dir(d) {
		if err := syncDir(d); err != nil {
			return dirError(key, err)
		}
		if len(d) <= len(b.dir) {
			break
		}
	}
	for _, d := range above {
		if err := syncDir(d); err != nil {
			return dirError(key, err)
		}
	}
	return nil
}

// temp makes a temporary file in dir, and dir if need be. Those above the
// bucket's own that get a new name are to be made durable.
func (b *dirBucket) temp(dir string) (f *os.File, above []string, err error) {
	for range 100 {
		if above, err = b.mkdirs(dir); err == nil {
			f, err = os.CreateTemp(dir, dirTemp+"*")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		// A Delete has just taken the directory, which was empty.
	}
	return f, above, err
}

// fileMode lets those read and write an object who may do so to the directory.
func (b *dirBucket) fileMode() fs.FileMode {
	if fi, err := os.Stat(b.dir); err == nil {
		return fi.Mode().Perm() & 0o444
	}
	return 0o444
}

// mkdirs makes dir with the mode of the bucket's own directory, and returns
// those above the bucket that have a new name in them.
func (b *dirBucket) mkdirs(dir string) (above []string, err error) {
	mode := fs.FileMode(0o777)
	if fi, err := os.Stat(b.dir); err == nil {
		mode = fi.Mode() & (fs.ModePerm | fs.ModeSetgid)
	}
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		switch err := os.Mkdir(d, 0o777); {
		case errors.Is(err, fs.ErrExist):
		case err != nil:
			return nil, err
		case len(d) > len(b.dir):
			if err := os.Chmod(d, mode); err != nil {
				return nil, err
			}
		default:
			above = append(above, filepath.Dir(d))
		}
	}
	return above, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

func (b *dirBucket) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := b.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dirError(key, err)
	}
	// A directory that is empty now goes, too; one that is not stays by itself.
	for d := filepath.Dir(name); len(d) > len(b.dir); d = filepath.Dir(d) {
		if os.Remove(d) != nil {
			break
		}
	}
	return nil
}

// oldTemp is how old a temporary file is whose writer is gone. One that lives
// still finds it missing, and fails.
const oldTemp = time.Hour

// sweepTemp removes temporary files that writers who died left; now is by the
// clock of the filesystem.
func (b *dirBucket) sweepTemp(ctx context.Context, now time.Time) error {
	return filepath.WalkDir(b.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil || !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), dirTemp) {
			if errors.Is(err, fs.ErrNotExist) {
				err = nil // removed meanwhile
			}
			return errors.Join(err, ctx.Err())
		}
		fi, err := e.Info()
		if err == nil && now.Sub(fi.ModTime()) > oldTemp {
			err = os.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
}

// List walks the directories in such an order that keys ascend: a directory
// counts as its name with a slash.
func (b *dirBucket) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		at := path.Dir(prefix + "x")
		if at == "." {
			at = ""
		} else if CheckKey(at) != nil {
			return
		}
		b.list(ctx, at, prefix, after, yield)
	}
}

func (b *dirBucket) list(ctx context.Context, at, prefix, after string, yield func(Object, error) bool) bool {
	if err := ctx.Err(); err != nil {
		yield(Object{}, err)
		return false
	}
	ents, err := os.ReadDir(filepath.Join(b.dir, filepath.FromSlash(at)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return true
	}
	if err != nil {
		return yield(Object{}, dirError(at, err))
	}
	sortKey := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(ents, func(x, y fs.DirEntry) int { return strings.Compare(sortKey(x), sortKey(y)) })
	for _, e := range ents {
		if e.Name()[0] == '.' {
			continue
		}
		key := path.Join(at, e.Name())
		if e.IsDir() {
			below := key + "/"
			if !strings.HasPrefix(below, prefix) && !strings.HasPrefix(prefix, below) {
				continue
			}
			// All keys below come before after, unless it lies there too.
			if below < after && !strings.HasPrefix(after, below) {
				continue
			}
			if !b.list(ctx, key, prefix, after, yield) {
				return false
			}
			continue
		}
		if !strings.HasPrefix(key, prefix) || key <= after {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return yield(Object{}, dirError(key, err))
		}
		if !yield(Object{key, fi.Size(), fi.ModTime()}, nil) {
			return false
		}
	}
	return true
}

func (b *dirBucket) Close() error { return nil }
