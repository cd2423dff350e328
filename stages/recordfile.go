package stages

import (
	"context"
	"fmt"
	"io"

	"github.com/curi-store/curi/cas"
)

// maxRecord bounds record.json in bytes; the diff and the untracked files in
// it are bounded far below.
const maxRecord = 256 << 20

// ReadRecord reads the record of a result tree, whether the run succeeded or
// not; cas.ErrNotFound, cas.ErrCorrupt.
func ReadRecord(ctx context.Context, s *cas.Store, tree cas.Digest) (*Record, error) {
	blob, err := openRecord(ctx, s, tree)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	b, err := io.ReadAll(io.LimitReader(blob, maxRecord+1))
	if err != nil {
		return nil, fmt.Errorf("read the record of %s: %w", tree, err)
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("the record of %s is longer than %d bytes: %w", tree, maxRecord, cas.ErrCorrupt)
	}
	r, err := ParseRecord(b)
	if err != nil {
		return nil, fmt.Errorf("result %s: %w", tree, err)
	}
	return r, nil
}

// openRecord opens record.json of a result tree.
func openRecord(ctx context.Context, s *cas.Store, tree cas.Digest) (*cas.Blob, error) {
	if tree.IsZero() {
		return nil, fmt.Errorf("the run left no record: %w", cas.ErrNotFound)
	}
	root, err := s.Tree(ctx, tree)
	if err != nil {
		return nil, err
	}
	e, ok := root.Lookup("record.json")
	if !ok || e.Kind != cas.KindFile {
		return nil, fmt.Errorf("tree %s has no record.json: %w", tree, cas.ErrNotFound)
	}
	blob, err := s.OpenBlob(ctx, e.Digest)
	if err != nil {
		return nil, fmt.Errorf("record.json of %s: %w", tree, err)
	}
	return blob, nil
}

// recordPreimage reads the preimage of a result tree's record.
func recordPreimage(ctx context.Context, s *cas.Store, tree cas.Digest) (Preimage, error) {
	blob, err := openRecord(ctx, s, tree)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	return readPreimage(blob)
}
