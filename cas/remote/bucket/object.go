package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"gocloud.dev/blob"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

func (b *bucket) key(key string) (string, error) {
	if err := remote.CheckKey(key); err != nil {
		return "", err
	}
	return b.prefix + key, nil
}

func (b *bucket) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		_, err := b.key(key)
		return 0, err
	}
	r, err := b.Open(ctx, key, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (b *bucket) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	k, err := b.key(key)
	if err != nil {
		return nil, err
	}
	r, err := b.blob.NewRangeReader(ctx, k, off, n, nil)
	if err != nil {
		return nil, b.fail(ctx, "read", key, err)
	}
	lack := max(0, r.Size()-off)
	if n >= 0 {
		lack = min(lack, n)
	}
	return &part{ctx: ctx, b: b, key: key, r: r, lack: lack}, nil
}

// part is a part of an object that is being read. What was asked for beyond the
// object's end is left out of the answer; what lacks of the rest was cut off on
// the way.
type part struct {
	ctx  context.Context
	b    *bucket
	key  string
	r    *blob.Reader
	lack int64
}

func (p *part) Read(b []byte) (int, error) {
	if p.lack == 0 {
		return 0, io.EOF
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.lack)])
	p.lack -= int64(n)
	switch {
	case err == nil || p.lack == 0:
		return n, nil
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, p.b.fail(p.ctx, "read", p.key, err)
}

func (p *part) Close() error { return p.r.Close() }

func (b *bucket) Stat(ctx context.Context, key string) (remote.Object, error) {
	k, err := b.key(key)
	if err != nil {
		return remote.Object{}, err
	}
	a, err := b.blob.Attributes(ctx, k)
	if err != nil {
		return remote.Object{}, b.fail(ctx, "look at", key, err)
	}
	return remote.Object{Key: key, Size: a.Size, ModTime: a.ModTime}, nil
}

func (b *bucket) Put(ctx context.Context, key string, data []byte) error {
	return b.write(ctx, key, data, false)
}

func (b *bucket) PutNew(ctx context.Context, key string, data []byte) error {
	return b.write(ctx, key, data, true)
}

func (b *bucket) write(ctx context.Context, key string, data []byte, isNew bool) error {
	k, err := b.key(key)
	if err != nil {
		return err
	}
	if err := b.put(ctx, k, data, isNew); err != nil {
		return b.fail(ctx, "write", key, err)
	}
	return nil
}

// contentType of all objects.
const contentType = "application/octet-stream"

// upload is put by way of gocloud.dev. The size of the buffer makes it one
// request.
func (b *bucket) upload(ctx context.Context, key string, data []byte, isNew bool) error {
	return b.blob.Upload(ctx, key, bytes.NewReader(data), &blob.WriterOptions{
		ContentType: contentType, IfNotExist: isNew, BufferSize: max(len(data), 5<<20), MaxConcurrency: 1,
	})
}

func (b *bucket) List(ctx context.Context, prefix, after string) iter.Seq2[remote.Object, error] {
	return func(yield func(remote.Object, error) bool) {
		o := &blob.ListOptions{Prefix: b.prefix + prefix}
		if after != "" && b.after != nil {
			o.BeforeList = b.after(b.prefix + after)
		}
		for it := b.blob.List(o); ; {
			obj, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(remote.Object{}, b.fail(ctx, "list", prefix, err))
				return
			}
			key := strings.TrimPrefix(obj.Key, b.prefix)
			if key <= after || obj.IsDir || remote.CheckKey(key) != nil {
				continue // what others put into the bucket is not ours
			}
			if !yield(remote.Object{Key: key, Size: obj.Size, ModTime: obj.ModTime}, nil) {
				return
			}
		}
	}
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	k, err := b.key(key)
	if err != nil {
		return err
	}
	if err := b.blob.Delete(ctx, k); err != nil {
		if err = b.fail(ctx, "remove", key, err); !errors.Is(err, cas.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (b *bucket) Close() error {
	if err := b.blob.Close(); err != nil {
		return fmt.Errorf("close %s: %w", b.name, err)
	}
	return nil
}
