package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Blob is an open blob, which the caller closes. It is an io.ReaderAt, io.Reader
// and io.Closer; reads by offset may come from several goroutines at once. Of a
// blob that lies outside the store (Reference), [Blob.Check] tells after reading
// whether what was read can be believed.
type Blob struct {
	*os.File
	size      int64
	digest    Digest
	reference *referencedFile // nil: in the store
}

// Size of the blob in bytes.
func (b *Blob) Size() int64 { return b.size }

// Reference reports whether the bytes lie outside the store, at a recorded path.
func (b *Blob) Reference() bool { return b.reference != nil }

// Check reports whether the bytes still are what was recorded: [ErrChanged]
// if a referenced file changed since. Blobs in the store never do.
func (b *Blob) Check() error {
	if b.reference == nil {
		return nil
	}
	return b.reference.check(b.File)
}

// OpenBlob opens a blob for reading: a local file, else a reference, which is
// checked by size, mtime, ctime and inode ([ErrChanged]), else one of a lazy
// tree that was gone through before, which is brought here whole. Missing:
// [ErrNotFound].
func (s *Store) OpenBlob(ctx context.Context, d Digest) (*Blob, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(s.blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		b, rerr := s.openReference(d)
		if !errors.Is(rerr, ErrNotFound) {
			return b, rerr
		}
		if lerr := s.lazyBlob(ctx, d, nil); errors.Is(lerr, ErrNotFound) {
			return nil, rerr
		} else if lerr != nil {
			return nil, fmt.Errorf("open blob %s: %w", d, lerr)
		}
		f, err = os.Open(s.blobPath(d))
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, storeError(err))
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", f.Name(), ErrCorrupt)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	return &Blob{File: f, size: fi.Size(), digest: d}, nil
}

// openEntry opens the blob of a regular file of a tree. One that is not as long
// as the tree says is [ErrCorrupt].
func (s *Store) openEntry(ctx context.Context, e Entry) (*Blob, error) {
	b, err := s.OpenBlob(ctx, e.Digest)
	if err == nil && b.Size() != e.Size {
		b.Close()
		err = fmt.Errorf("blob %s has %d bytes, its tree says %d; run a verification: %w", e.Digest, b.Size(), e.Size, ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// HasBlob reports whether OpenBlob would find d, without checking its bytes.
func (s *Store) HasBlob(d Digest) bool { return s.hasLocalBlob(d) || s.hasReference(d) }

// HasWholeBlob is HasBlob for a blob whose size is known: a local one that was
// cut off does not count.
func (s *Store) HasWholeBlob(d Digest, size int64) bool {
	return s.hasWholeBlob(d, size) || !s.hasLocalBlob(d) && s.hasReference(d)
}

// HasLocalBlob reports whether the store itself holds d, in its full length:
// such a blob never changes, and needs no check when it is opened.
func (s *Store) HasLocalBlob(d Digest, size int64) bool { return s.hasWholeBlob(d, size) }

func (s *Store) hasLocalBlob(d Digest) bool {
	_, err := os.Lstat(s.blobPath(d))
	return err == nil
}

// HasTree reports whether a tree of that digest is stored, without reading it.
func (s *Store) HasTree(d Digest) bool {
	_, err := os.Lstat(s.treePath(d))
	return err == nil
}

// OpenOutboard opens the outboard of a blob; [ErrNotFound] if it has none,
// which is so for all blobs of at most 1 MiB.
func (s *Store) OpenOutboard(d Digest) (*Outboard, error) {
	f, err := os.Open(s.outboardPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("outboard of %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("outboard of %s: %w", d, storeError(err))
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("outboard of %s: %w", d, err)
	}
	o, err := ParseOutboard(f, fi.Size(), d)
	if err != nil {
		f.Close()
		return nil, err
	}
	return o, nil
}
