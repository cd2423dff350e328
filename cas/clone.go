package cas

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/curi-store/curi/internal/fault"
)

// cloneOrCopy makes the file dst, which must not exist, with the bytes of src:
// as a reflink where the filesystem has them (cloned), else as a copy that
// keeps holes. The caller owns the returned file, which is open for reading
// and writing; on an error nothing is left. src's offset does not matter.
func cloneOrCopy(ctx context.Context, src *os.File, dst string, perm fs.FileMode) (f *os.File, cloned bool, err error) {
	if f, err = tryClone(src, dst, perm); err == nil {
		return f, true, nil
	} else if !errors.Is(err, errNoClone) {
		return nil, false, err
	}
	f, err = os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, false, err
	}
	if err = fault.In(fault.Write); err == nil {
		err = copyBytes(ctx, f, src)
	}
	if err != nil {
		f.Close()
		os.Remove(dst)
		return nil, false, err
	}
	return f, false, nil
}

// errNoClone: these two files cannot share blocks.
var errNoClone = errors.New("no reflinks here")

// copyPlain copies the bytes of src from off to end into dst at the same
// offsets, by read and write.
func copyPlain(ctx context.Context, dst, src *os.File, off, end int64) error {
	const step = 8 << 20
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.Copy(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, min(step, end-off)))
		if err != nil {
			return err
		}
		if n == 0 {
			return nil // it became shorter; whoever hashes it notices
		}
		off += n
	}
	return nil
}
