package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/curi-store/curi/cas"
)

// A small object that no digest is known of, such as a ref, carries a checksum
// against damage on the way or in the bucket. Against malice it is none: that
// is for whoever decides who may write the bucket.
//
//	sealed = JSON "\n" sum "\n"          sum is the first 16 digits of the digest of all before it
const sealSize = 16 + 1

// seal adds the checksum to a line of JSON, which has no newline yet.
func seal(line []byte) []byte {
	b := append(bytes.Clone(line), '\n')
	sum := cas.Sum(b).String()[:16]
	return append(append(b, sum...), '\n')
}

// unseal verifies a sealed object and returns the line. Nothing but an empty
// object has no checksum: it stands for a ref that was removed.
func unseal(key string, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil
	}
	n := len(b) - sealSize
	if n < 1 || !bytes.Equal(b, seal(b[:n-1])) {
		return nil, fmt.Errorf("%s: its checksum does not match: %w", key, cas.ErrCorrupt)
	}
	return b[:n-1], nil
}

// rereads is how often something is read whose bytes do not match: what
// damaged them may have been the way.
const rereads = 3

// again calls read until it yields something that is not damaged.
func again(ctx context.Context, read func() error) (err error) {
	for range rereads {
		if err = read(); !errors.Is(err, cas.ErrCorrupt) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// readSealed reads a sealed object.
func readSealed(ctx context.Context, b Bucket, key string) (line []byte, err error) {
	err = again(ctx, func() error {
		all, err := readAll(ctx, b, key, maxSmall)
		if err == nil {
			line, err = unseal(key, all)
		}
		return err
	})
	return line, err
}
