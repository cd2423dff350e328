package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// outboardCompare takes the outboard that is computed of a blob and compares
// it with the stored one. One that cannot be read is as wrong as any.
type outboardCompare struct {
	f     *os.File // nil: it cannot be opened
	wrong atomic.Bool
}

func (c *outboardCompare) WriteAt(p []byte, off int64) (int, error) {
	have := make([]byte, len(p))
	if c.f == nil {
		return len(p), nil
	}
	if _, err := c.f.ReadAt(have, off); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(have, p) {
		c.wrong.Store(true)
	}
	return len(p), nil
}

func (c *outboardCompare) Close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}

// openOutboard opens the stored outboard of a blob, nil if it has none.
func (v *verification) openOutboard(d Digest, size int64) *outboardCompare {
	f, err := os.Open(v.s.outboardPath(d))
	if noFile(err) {
		return nil
	}
	c := &outboardCompare{}
	c.wrong.Store(true)
	if err != nil {
		return c
	}
	if fi, err := f.Stat(); err == nil {
		c.wrong.Store(fi.Size() != outboardSize(size))
	}
	c.f = f
	return c
}

// remakeOutboard replaces a damaged outboard by one made of the blob, which
// was found good.
func (v *verification) remakeOutboard(ctx context.Context, d Digest, blob *os.File, size int64) error {
	err := v.makeOutboard(ctx, d, blob, size)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	reason := "its outboard was damaged; it was made again from the blob"
	if err != nil {
		reason = fmt.Sprintf("its outboard is damaged, and could not be made again from the blob: %v", err)
	}
	v.found(d, finding{reason: reason})
	return nil
}

func (v *verification) makeOutboard(ctx context.Context, d Digest, blob *os.File, size int64) error {
	f, err := v.s.stage()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	have, err := hashFile(ctx, blob, size, f)
	if err == nil && have != d {
		err = fmt.Errorf("blob %s: %w", d, ErrCorrupt)
	}
	if err == nil {
		err = f.Chmod(blobMode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = v.s.renameDurable(f.Name(), v.s.outboardPath(d))
	}
	return err
}
