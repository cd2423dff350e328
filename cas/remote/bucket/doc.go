// Package bucket is [remote.Bucket] for the object stores that Curi knows: S3
// and what speaks its language, Google Cloud Storage, Azure Blob Storage. Only
// the program curi-bucket imports it, so that no other carries their libraries.
//
// Credentials come from where each provider's own tools take them. Nothing here
// stores or logs one, and errors name no request's URL, which may hold one.
package bucket

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"gocloud.dev/blob"

	"github.com/curi-store/curi/cas"
	"github.com/curi-store/curi/cas/remote"
)

// Open opens the bucket at a URL that [remote.CheckURL] takes. Credentials are
// looked for, but no request goes to the bucket. The error wraps
// [fs.ErrPermission] where there are none.
func Open(ctx context.Context, text string) (remote.Bucket, error) {
	if err := remote.CheckURL(text); err != nil {
		return nil, err
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	b := &bucket{name: u.Scheme + "://" + u.Host, prefix: strings.Trim(u.Path, "/")}
	if b.prefix != "" {
		b.prefix += "/"
	}
	switch u.Scheme {
	case "s3":
		err = b.openS3(ctx, u)
	case "gs":
		err = b.openGCS(ctx, u)
	case "azblob":
		err = b.openAzure(ctx, u)
	default:
		err = fmt.Errorf("%s:// is no object store: %w", u.Scheme, cas.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// bucket is one of gocloud.dev, below a prefix.
type bucket struct {
	name   string
	prefix string // "", or with a slash at the end
	blob   *blob.Bucket
	// put writes an object, in one request where that takes one.
	put func(ctx context.Context, key string, data []byte, isNew bool) error
	// after makes a listing begin behind a key, where a store can do that; the
	// others' listings are cut here.
	after func(key string) func(as func(any) bool) error
}
