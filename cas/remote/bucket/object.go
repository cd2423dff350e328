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
	return b.ReadSteps(ctx, key, p, off, func(int) {})
}

func (b *bucket) ReadSteps(ctx context.Context, key string, p []byte, off int64, came func(n int)) (int, error) {
	k, err := b.key(key)
	if err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	r, err := b.blob.NewRangeReader(ctx, k, off, int64(len(p)), nil)
	if err != nil {
		return 0, b.fail(ctx, "read", key, err)
	}
	defer r.Close()
	// What is asked for beyond the end is left out of the answer; what lacks of
	// the rest was cut off on the way.
	want := int(min(max(0, r.Size()-off), int64(len(p))))
	n := 0
	for n < want {
		k, err := io.ReadFull(r, p[n:min(n+remote.ReadStep, want)])
		if n += k; err != nil {
			return n, b.fail(ctx, "read", key, err)
		}
		if n < want {
			came(n)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

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
