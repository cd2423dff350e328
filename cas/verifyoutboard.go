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
// it with the stored one.
type outboardCompare struct {
	f     *os.File
	wrong atomic.Bool
}

func (c *outboardCompare) WriteAt(p []byte, off int64) (int, error) {
	have := make([]byte, len(p))
	if _, err := c.f.ReadAt(have, off); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if !bytes.Equal(have, p) {
		c.wrong.Store(true)
	}
	return len(p), nil
}

// openOutboard opens the stored outboard of a blob, nil if it has none.
func (v *verification) openOutboard(d Digest, size int64) (*outboardCompare, error) {
	f, err := os.Open(v.s.outboardPath(d))
	if noFile(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open outboard: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	c := &outboardCompare{f: f}
	c.wrong.Store(fi.Size() != outboardSize(size))
	return c, nil
}

// remakeOutboard replaces a damaged outboard by one made of the blob, which
// was found good.
func (v *verification) remakeOutboard(ctx context.Context, d Digest, blob *os.File, size int64) error {
	v.found(d, finding{reason: "its outboard was damaged; it was made again from the blob"})
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
	if err != nil {
		return fmt.Errorf("make the outboard of %s again: %w", d, err)
	}
	return nil
}
